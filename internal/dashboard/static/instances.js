// The list of instances: chosen and paged by the daemon, so that it is as quick for ten
// thousand as for ten.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, follow, instancePath, poll, queryString } from './api.js';
import { change, complain, isAdmin, maySteer, place, remember, seesAll } from './state.js';
import { Act, Empty, Page, State, useSettled, When } from './ui.js';
import { Deploy, MoveWeight, Spawn } from './deploy.js';
import { count, some } from './format.js';

const states = ['asleep', 'starting', 'ready', 'frozen', 'draining', 'stopping', 'backoff', 'failed', 'suspended'];
const rowsPerPage = 100;

/** Beside single states one chooses what is awake at all. */
const choices = [['', 'Any state'], ['awake', 'Awake'], ...states.map((s) => [s, s[0].toUpperCase() + s.slice(1)])];

const stateQuery = (state) => (state === 'awake' ? { awake: true } : { state });

/** The services, for those who may know them. */
function useServices() {
  const [services, setServices] = useState([]);
  useEffect(() => {
    if (seesAll()) ask('GET', '/api/box').then((box) => setServices(box.services)).catch(complain);
  }, []);
  return services;
}

/**
 * One page of what query chooses, asked for again every few seconds and when something was
 * done. before is the way back: the "after" of each page up to this one.
 */
function usePage(query, before) {
  const [page, setPage] = useState(null);
  const [total, setTotal] = useState(null);
  const key = JSON.stringify([query, before]);
  useEffect(() => {
    const after = before.at(-1) || '';
    const look = async (signal) => {
      try {
        const answer = await ask('GET', '/api/instances', { query: { ...query, after, limit: rowsPerPage }, signal });
        setPage(answer);
        if (answer.total !== undefined) setTotal(answer.total);
      } catch (err) {
        complain(err);
      }
    };
    const looking = poll(look, 3000);
    const unfollow = follow('/api/events/stream', {}, looking.soon);
    return () => { unfollow(); looking.stop(); };
  }, [key]);
  return [page, total];
}

export function Instances() {
  const from = place.value.query;
  const [text, setText] = useState(from.text || '');
  const [service, setService] = useState(from.service || '');
  const [state, setState] = useState(from.state || '');
  const [before, setBefore] = useState([]);
  const services = useServices();
  const settled = useSettled(text.trim());
  const query = { text: settled, service, ...stateQuery(state) };
  const [page, total] = usePage(query, before);

  useEffect(() => {
    setBefore([]);
    remember('/' + queryString({ text: settled, service, state }));
  }, [settled, service, state]);

  return html`
    <${Page} title="Instances" aside=${isAdmin() && html`<${Operate} services=${services} />`}>
      <form class="filters" role="search" onSubmit=${(e) => e.preventDefault()}>
        <div class="grow">
          <label class="unseen" for="text">Search by name</label>
          <input id="text" type="search" placeholder="Search by name" value=${text} autocomplete="off"
            spellcheck=${false} onInput=${(e) => setText(e.target.value)} />
        </div>
        ${services.length > 1 && html`<div>
          <label class="unseen" for="service">Service</label>
          <select id="service" value=${service} onChange=${(e) => setService(e.target.value)}>
            <option value="">Any service</option>
            ${services.map((s) => html`<option value=${s} selected=${s === service}>${s}</option>`)}
          </select>
        </div>`}
        <div>
          <label class="unseen" for="state">State</label>
          <select id="state" value=${state} onChange=${(e) => setState(e.target.value)}>
            ${choices.map(([value, name]) => html`<option value=${value} selected=${value === state}>${name}</option>`)}
          </select>
        </div>
      </form>
      <p class="faint" role="status">${total === null ? 'Loading…' : some(total, 'instance')}</p>
      ${page && (page.instances.length
        ? html`<${Table} rows=${page.instances} />`
        : html`<${Empty}>${settled || service || state ? 'Nothing matches.' : 'No instance is registered yet.'}<//>`)}
      <${Pager} page=${page} before=${before} setBefore=${setBefore} />
    <//>`;
}

const Operate = ({ services }) => html`
  <div class="actions"><${MoveWeight} services=${services} /><${Deploy} services=${services} /><${Spawn} services=${services} /></div>`;

function Pager({ page, before, setBefore }) {
  if (!page?.next && !before.length) return null;
  const move = (to) => { setBefore(to); scrollTo(0, 0); };
  return html`
    <nav class="actions" aria-label="Pages of the list">
      <button disabled=${!before.length} onClick=${() => move(before.slice(0, -1))}>← Previous</button>
      <span class="faint">Page ${count(before.length + 1)}</span>
      <button disabled=${!page?.next} onClick=${() => move([...before, page.next])}>Next →</button>
    </nav>`;
}

function Table({ rows }) {
  return html`
    <table class="wide">
      <thead><tr>
        <th scope="col">Instance</th><th scope="col">State</th><th scope="col">Health</th>
        <th scope="col" class="number">In flight</th><th scope="col" class="number">Weight</th>
        <th scope="col">Last active</th><th scope="col"><span class="unseen">Actions</span></th>
      </tr></thead>
      <tbody>${rows.map((i) => html`<${Row} i=${i} key=${i.id} />`)}</tbody>
    </table>`;
}

function Row({ i }) {
  const name = i.id.slice(i.id.indexOf(':') + 1);
  return html`
    <tr>
      <th scope="row"><a href=${'/instances/' + i.id}><span class="faint">${i.id.slice(0, -name.length)}</span>${name}</a></th>
      <td><${State} is=${i.state} />${i.retry_at && html` <span class="faint">again <${When} at=${i.retry_at} /></span>`}</td>
      <td data-label="Health">${health(i)}</td>
      <td data-label="In flight" class="number"><${Amount} n=${i.leases} />${i.waiting > 0 && html` <span class="faint">+${count(i.waiting)} held</span>`}</td>
      <td data-label="Weight" class="number"><${Amount} n=${i.weight} /></td>
      <td data-label="Last active"><${When} at=${i.last_active_at} /></td>
      <td class="actions end">${maySteer() && html`<${WakeOrSleep} i=${i} />`}</td>
    </tr>`;
}

/** What is nothing does not catch the eye. */
const Amount = ({ n }) => (n ? count(n) : html`<span class="faint">0</span>`);

const health = (i) => (i.health === 'unknown' || i.health === 'unchecked' ? html`<span class="faint">–</span>` : i.health);

/** The one thing that is done most: an instance is woken, or put to sleep. */
export function WakeOrSleep({ i }) {
  const act = (verb, done) => () => change(`${i.id} ${done}.`, 'POST', `${instancePath(i.id)}/${verb}`);
  switch (i.state) {
    case 'asleep': case 'failed': case 'backoff': case 'frozen':
      return html`<${Act} key="wake" does=${act('start', 'is awake')}>Wake<span class="unseen"> ${i.id}</span><//>`;
    case 'ready': case 'starting':
      return html`<${Act} key="sleep" does=${act('stop', 'sleeps')}>Sleep<span class="unseen"> ${i.id}</span><//>`;
    default:
      return null;
  }
}
