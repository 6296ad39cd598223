// Who woke what, and what took how long.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, poll } from './api.js';
import { complain } from './state.js';
import { Act, Empty, Page, When } from './ui.js';
import { count, millis } from './format.js';

const perPage = 50;

/** What a wake consists of, one after the other. */
const phases = [['queue', 'queue_ms'], ['spawn', 'spawn_ms'], ['ready', 'ready_ms'], ['first byte', 'first_byte_ms']];

const causes = {
  request: 'request', operator: 'operator', schedule: 'alarm or cron line', pinned: 'configuration', restart: 'restart',
};

const totalOf = (wake) => phases.reduce((sum, [, key]) => sum + wake[key], 0);

/** The wakes that query selects, the newest first, kept up to date; null before. */
function useWakes(instance, limit) {
  const [wakes, setWakes] = useState(null);
  const [more, setMore] = useState(0);
  useEffect(() => {
    const looking = poll(async (signal) => {
      try {
        const page = await ask('GET', '/api/wakes', { query: { instance, limit }, signal });
        setWakes((known) => merged(page.wakes.toReversed(), known ?? []));
        setMore((known) => known || page.next || -1);
      } catch (err) {
        complain(err);
      }
    }, 3000);
    return looking.stop;
  }, [instance]);
  const older = async () => {
    try {
      const page = await ask('GET', '/api/wakes', { query: { instance, limit, before: more } });
      setWakes((known) => [...known, ...page.wakes.toReversed()]);
      setMore(page.next || -1);
    } catch (err) {
      complain(err);
    }
  };
  return { wakes, older: more > 0 ? older : null };
}

/** The newest ones, and of the known ones those that are older. */
function merged(newest, known) {
  const oldest = newest.at(-1)?.id ?? Infinity;
  return [...newest, ...known.filter((w) => w.id < oldest)];
}

export function WakesPage() {
  const { wakes, older } = useWakes('', perPage);
  return html`
    <${Page} title="Wakes">
      <${Waterfall} wakes=${wakes} none="Nothing has been woken yet." />
      ${older && html`<p class="actions"><${Act} does=${older}>Show older wakes<//></p>`}
    <//>`;
}

/** Those of one instance, as a section of its page. */
export function Wakes({ instance }) {
  const { wakes, older } = useWakes(instance, 10);
  return html`
    <section aria-labelledby="wakes">
      <h2 id="wakes">Wakes</h2>
      <${Waterfall} wakes=${wakes} none="Nothing has woken it yet." single />
      ${older && html`<p class="actions"><${Act} does=${older}>Show older wakes<//></p>`}
    </section>`;
}

function Waterfall({ wakes, none, single = false }) {
  if (!wakes?.length) return html`<${Empty}>${wakes ? none : 'Loading…'}<//>`;
  const longest = Math.max(...wakes.map(totalOf));
  return html`
    <table class="wide waterfall">
      <thead><tr>
        <th scope="col">When</th>${!single && html`<th scope="col">Instance</th>`}<th scope="col">Woken by</th>
        <th scope="col" class="phases">${phases.map(([name, key]) => html`<span class="phase" data-phase=${key} key=${key}>${name}</span>`)}</th>
        <th scope="col" class="number">Took</th><th scope="col">Outcome</th>
      </tr></thead>
      <tbody>${wakes.map((w) => html`<${Row} w=${w} longest=${longest} single=${single} key=${w.id} />`)}</tbody>
    </table>`;
}

function Row({ w, longest, single }) {
  return html`
    <tr>
      <td data-label="When"><${When} at=${w.at} /></td>
      ${!single && html`<td data-label="Instance"><a href=${'/instances/' + w.instance}>${w.instance}</a></td>`}
      <td data-label="Woken by" class="detail asker">${w.cause === 'request' ? html`<code>${w.path}</code>` : causes[w.cause] ?? w.cause}
        <span class="faint">${[w.client, w.user_agent].filter(Boolean).join(' · ')}</span>
        ${w.shared > 1 && html`<span class="faint">${count(w.shared)} requests waited</span>`}</td>
      <td class="phases"><${Bar} w=${w} longest=${longest} /></td>
      <td data-label="Took" class="number">${millis(totalOf(w))}</td>
      <td data-label="Outcome"><span class="outcome" data-ok=${w.outcome === 'ok'}>${w.outcome}</span></td>
    </tr>`;
}

/** The phases one after the other, to the scale of the longest wake. */
function Bar({ w, longest }) {
  const text = phases.filter(([, key]) => w[key] > 0).map(([name, key]) => `${name} ${millis(w[key])}`).join(', ');
  let at = 0;
  const rects = phases.map(([, key]) => {
    const from = at;
    at += w[key];
    return w[key] > 0 && html`
      <rect key=${key} data-phase=${key} x=${(100 * from) / longest + '%'} width=${Math.max((100 * w[key]) / longest, 0.4) + '%'} height="12" />`;
  });
  return html`<svg height="12" width="100%" role="img" aria-label=${text || 'no phase was reached'}><title>${text}</title>${rects}</svg>`;
}
