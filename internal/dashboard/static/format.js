// Numbers and times for people.

const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];

/** A span in seconds by its two largest units, such as "3 h 12 min". */
export function span(seconds) {
  if (seconds < 1) return 'under 1 s';
  const parts = [];
  for (const [name, size] of units) {
    const n = Math.floor(seconds / size);
    if (n > 0) parts.push(`${n} ${name}`);
    else if (parts.length) break;
    seconds -= n * size;
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

/** How long ago a time of the API was, or how far off it is. */
export function ago(text, now = Date.now()) {
  if (!text) return '–';
  const seconds = (now - Date.parse(text)) / 1000;
  if (Math.abs(seconds) < 1) return 'now';
  return seconds < 0 ? 'in ' + coarse(-seconds, Math.round) : coarse(seconds, Math.floor) + ' ago';
}

function coarse(seconds, whole) {
  for (const [name, size] of units) {
    if (seconds >= size) return `${whole(seconds / size)} ${name}`;
  }
  return '';
}

const day = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });

export const full = (text) => (text ? day.format(new Date(text)) : '–');
export const time = (text) => clock.format(new Date(text));

export function bytes(n) {
  if (!n) return '0';
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log2(n) / 10), names.length - 1);
  const value = n / 2 ** (10 * power);
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${names[power]}`;
}

/** A time in milliseconds. */
export function millis(n) {
  if (n >= 9950) return `${Math.round(n / 1000)} s`;
  if (n >= 995) return `${(n / 1000).toFixed(1)} s`;
  return `${n >= 9.95 || n === 0 ? Math.round(n) : n.toFixed(1)} ms`;
}

export const percent = (n) => `${n >= 9.95 || n === 0 ? Math.round(n) : n.toFixed(1)} %`;

export const count = (n) => (n ?? 0).toLocaleString();

/** "1 instance", "2 instances". */
export const some = (n, what) => `${count(n)} ${what}${n === 1 ? '' : 's'}`;
