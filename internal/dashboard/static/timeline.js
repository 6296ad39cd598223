// The last hour of an instance: its states, and what it did meanwhile.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, instancePath, poll } from './api.js';
import { complain } from './state.js';
import { Empty, State } from './ui.js';
import { Plot } from './plot.js';
import { bytes, count, millis, percent, time } from './format.js';

const hour = 3600; // seconds
const seconds = (text) => Date.parse(text) / 1000;

/** From when to when a page shows, in seconds: up to an hour, of which something is known. */
function spanOf({ samples, changes }, now) {
  const known = [samples[0], changes[0]].filter(Boolean).map((first) => seconds(first.at));
  return [Math.max(now - hour, Math.min(now - 300, ...known)), now];
}

/**
 * Columns of values over the times of samples, as a Plot wants them: one for each of
 * values, which makes it of a sample. Where there are no samples nothing is drawn.
 */
export function columns({ samples, step_seconds: step }, ...values) {
  const list = [[], ...values.map(() => [])];
  let last = 0;
  for (const sample of samples) {
    const at = seconds(sample.at);
    if (last && at - last > 1.5 * step) {
      list[0].push(last + step);
      for (const column of list.slice(1)) column.push(null);
    }
    list[0].push(at);
    values.forEach((value, n) => list[n + 1].push(value(sample) ?? null));
    last = at;
  }
  return list;
}

export function Timeline({ id, state }) {
  const [seen, setSeen] = useState(null);
  useEffect(() => {
    const looking = poll(async (signal) => {
      try {
        const timeline = await ask('GET', instancePath(id) + '/timeline', { signal });
        setSeen({ timeline, now: Date.now() / 1000 });
      } catch (err) {
        if (err.status !== 404) complain(err);
      }
    }, 5000);
    return looking.stop;
  }, [id, state]);
  return html`
    <section aria-labelledby="timeline">
      <h2 id="timeline">Last hour</h2>
      ${seen ? html`<${Seen} ...${seen} state=${state} />` : html`<${Empty}>Loading…<//>`}
    </section>`;
}

function Seen({ timeline, now, state }) {
  const span = spanOf(timeline, now);
  const perMinute = 60 / timeline.step_seconds;
  const plot = (title, names, values, rest = {}) => html`
    <${Plot} title=${title} names=${names} data=${columns(timeline, ...values)} at=${now} span=${span} ...${rest} />`;
  return html`
    <${States} changes=${timeline.changes} state=${state} span=${span} />
    ${timeline.samples.length > 0 && html`<div class="plots">
      ${plot('Requests a minute', ['all', 'errors'], [(s) => s.requests * perMinute, (s) => s.errors * perMinute], { show: rounded })}
      ${plot('Response time', ['half', '95 %'], [(s) => s.median_ms, (s) => s.p95_ms], { show: millis })}
      ${plot('Memory', ['used'], [(s) => s.memory_bytes], { show: bytes, floor: 8 * 2 ** 20 })}
      ${plot('CPU', ['of a core'], [(s) => (100 * s.cpu_seconds) / timeline.step_seconds], { show: percent, floor: 5 })}
    </div>`}`;
}

const rounded = (n) => count(n < 10 ? Math.round(n * 10) / 10 : Math.round(n));

/** The pieces of span in which the state was the same. */
function pieces(changes, state, [from, to]) {
  const list = [];
  let at = from;
  for (const change of changes) {
    const until = Math.min(Math.max(seconds(change.at), from), to);
    if (until > at) list.push({ state: change.from, from: at, to: until });
    at = until;
  }
  list.push({ state: changes.at(-1)?.to ?? state, from: at, to });
  return list;
}

function States({ changes, state, span }) {
  const x = (at) => (100 * (at - span[0])) / (span[1] - span[0]);
  const list = pieces(changes, state, span);
  return html`
    <figure class="plot states-of">
      <svg height="14" width="100%" aria-hidden="true">
        ${list.map((p) => html`
          <rect key=${p.from} x=${x(p.from) + '%'} width=${Math.max(x(p.to) - x(p.from), 0.25) + '%'} height="14" data-state=${p.state}>
            <title>${p.state} ${clock(p.from)} – ${clock(p.to)}</title>
          </rect>`)}
      </svg>
      <p class="ends faint" aria-hidden="true"><span>${clock(span[0])}</span><span>now</span></p>
      ${changes.length ? html`
        <details>
          <summary>${changes.length === 100 ? 'The last 100 changes' : `${count(changes.length)} changes`} of state</summary>
          <ol class="changes">${changes.toReversed().map((c) => html`
            <li key=${c.at}><time datetime=${c.at}>${time(c.at)}</time> <${State} is=${c.to} /></li>`)}</ol>
        </details>` : html`<p class="faint">It has been ${state} all the while that is known.</p>`}
    </figure>`;
}

const clock = (at) => time(new Date(at * 1000));
