// What instances have used: what one bills from.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, queryString } from './api.js';
import { complain, place, remember } from './state.js';
import { Act, Empty, Page } from './ui.js';
import { Plot } from './plot.js';
import { bytes, count, span as duration } from './format.js';

const ranges = [['1', 'Last 24 hours'], ['7', 'Last 7 days'], ['30', 'Last 30 days'], ['90', 'Last 90 days'], ['400', 'All that is known']];

const columns = [
  ['Awake', (u) => u.awake_seconds, (n) => (n ? duration(n) : '–')],
  ['CPU', (u) => u.cpu_seconds, (n) => (n ? duration(n) : '–')],
  ['Memory', (u) => u.memory_byte_seconds / 3600, (n) => (n ? `${bytes(n)}·h` : '–')],
  ['Requests', (u) => u.requests, count],
  ['In', (u) => u.bytes_in, bytes],
  ['Out', (u) => u.bytes_out, bytes],
  ['Storage', (u) => u.storage_bytes, (n) => (n ? bytes(n) : '–')],
];

/** The beginning of the hour that was so many days ago. */
function since(days) {
  const hour = 3600000;
  return new Date(Math.floor((Date.now() - days * 24 * hour) / hour) * hour).toISOString();
}

const totals = (query) => ask('GET', '/api/usage/totals', { query });

export function UsagePage() {
  const [days, setDays] = useState(place.value.query.days || '30');
  const instance = place.value.query.instance || '';
  const [seen, setSeen] = useState(null);
  useEffect(() => {
    remember('/usage' + queryString({ days, instance }));
    const query = { since: since(days), instance };
    const asked = Promise.all([totals({ ...query, limit: 100 }), totals({ ...query, by: 'hour', limit: 10000 })]);
    asked.then(([instances, hours]) => setSeen({ all: instances.all, rows: instances.totals, hours: hours.totals, key: days + instance })).catch(complain);
  }, [days, instance]);

  return html`
    <${Page} title=${instance ? `Usage of ${instance}` : 'Usage'} aside=${html`<${Download} days=${days} instance=${instance} />`}>
      <form class="filters" onSubmit=${(e) => e.preventDefault()}>
        <div>
          <label class="unseen" for="days">Time</label>
          <select id="days" value=${days} onChange=${(e) => setDays(e.target.value)}>
            ${ranges.map(([value, name]) => html`<option value=${value} selected=${value === days}>${name}</option>`)}
          </select>
        </div>
        ${instance && html`<a href="/usage">All instances</a>`}
      </form>
      ${seen ? html`<${Seen} ...${seen} />` : html`<${Empty}>Loading…<//>`}
    <//>`;
}

function Seen({ all, rows, hours, key }) {
  if (!rows.length) return html`<${Empty}>Nothing was awake in this time.<//>`;
  return html`
    <div class="tiles">${columns.map(([name, of, show]) => html`
      <div class="tile" key=${name}><h2>${name}</h2><p class="figure">${show(of(all))}</p></div>`)}
    </div>
    <${Plots} hours=${hours} key=${key} />
    <section aria-labelledby="by-instance">
      <h2 id="by-instance">By instance</h2>
      <table class="wide">
        <thead><tr><th scope="col">Instance</th>${columns.map(([name]) => html`<th scope="col" class="number" key=${name}>${name}</th>`)}</tr></thead>
        <tbody>${rows.map((u) => html`
          <tr key=${u.instance}>
            <th scope="row"><a href=${'/instances/' + u.instance}>${u.instance}</a></th>
            ${columns.map(([name, of, show]) => html`<td data-label=${name} class="number" key=${name}>${show(of(u))}</td>`)}
          </tr>`)}</tbody>
      </table>
      ${rows.length === 100 && html`<p class="faint actions">Those that took most memory; the file has all.</p>`}
    </section>`;
}

/** Hours in which nothing was awake are none of the API's: they are nothing here. */
function Plots({ hours }) {
  const first = Date.parse(hours[0].hour) / 1000;
  const last = Math.floor(Date.now() / 3600000) * 3600;
  const at = [];
  for (let t = first; t <= last; t += 3600) at.push(t);
  const place = new Map(at.map((t, n) => [t, n]));
  const series = (of) => {
    const values = at.map(() => 0);
    for (const u of hours) values[place.get(Date.parse(u.hour) / 1000)] = of(u);
    return values;
  };
  const span = [Math.min(first, last - 24 * 3600) - 1800, last + 1800]; // bars are as wide as an hour
  const plot = (title, name, of, show) => html`
    <${Plot} title=${title} names=${[name]} at=${last} data=${[at, series(of)]} show=${show} span=${span} bars />`;
  return html`
    <div class="plots">
      ${plot('Awake, on average', 'instances', (u) => u.awake_seconds / 3600, (n) => count(Math.round(n * 100) / 100))}
      ${plot('Memory, on average', 'used', (u) => u.memory_byte_seconds / 3600, bytes)}
      ${plot('Requests an hour', 'requests', (u) => u.requests, count)}
      ${plot('CPU, on average', 'cores', (u) => u.cpu_seconds / 3600, (n) => count(Math.round(n * 100) / 100))}
    </div>`;
}

/** The sums of all instances as a file; `ten usage --csv` has the single hours. */
function Download({ days, instance }) {
  const does = async () => {
    try {
      const { totals: rows } = await totals({ since: since(days), instance, limit: 10000 });
      const keys = ['awake_seconds', 'cpu_seconds', 'memory_byte_seconds', 'requests', 'bytes_in', 'bytes_out', 'storage_bytes'];
      const lines = [['instance', ...keys], ...rows.map((u) => [u.instance, ...keys.map((key) => u[key])])];
      save(`usage-${days}-days.csv`, lines.map((line) => line.join(',') + '\r\n').join(''));
    } catch (err) {
      complain(err);
    }
  };
  return html`<${Act} does=${does}>Download CSV<//>`;
}

function save(name, text) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
