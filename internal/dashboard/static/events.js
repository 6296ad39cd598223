// Who changed what, or tried to.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, follow } from './api.js';
import { complain } from './state.js';
import { Act, Empty, Page, useSettled, When } from './ui.js';

const first = 100; // events to begin with
const kept = 2000; // in the page

export function EventTable({ events, bare = false }) {
  return html`
    <table class="wide">
      <thead><tr>
        <th scope="col">When</th><th scope="col">Action</th>${!bare && html`<th scope="col">About</th>`}
        <th scope="col">Outcome</th><th scope="col">Who</th><th scope="col">Detail</th>
      </tr></thead>
      <tbody>${events.map((e) => html`<${Row} e=${e} bare=${bare} key=${e.id} />`)}</tbody>
    </table>`;
}

function Row({ e, bare }) {
  return html`
    <tr>
      <td data-label="When"><${When} at=${e.at} /></td>
      <td data-label="Action">${e.action}</td>
      ${!bare && html`<td data-label="About">${e.target?.includes(':') ? html`<a href=${'/instances/' + e.target}>${e.target}</a>` : e.target || '–'}</td>`}
      <td data-label="Outcome"><span class="outcome" data-ok=${e.outcome === 'ok'}>${e.outcome}</span></td>
      <td data-label="Who">${e.actor}${e.from && html` <span class="faint">${e.from}</span>`}</td>
      <td data-label="Detail" class="detail">${e.detail || html`<span class="faint">–</span>`}</td>
    </tr>`;
}

export function EventsPage() {
  const [text, setText] = useState('');
  const [events, setEvents] = useState([]); // the newest first
  const [more, setMore] = useState(true);
  const [live, setLive] = useState(false);
  const wanted = useSettled(text.trim().toLowerCase());

  useEffect(() => follow('/api/events/stream', { limit: first }, (list) => {
    setEvents((known) => [...list.toReversed(), ...known].slice(0, kept));
  }, setLive), []);

  const older = async () => {
    try {
      const page = await ask('GET', '/api/events', { query: { before: events.at(-1)?.id, limit: first } });
      setEvents((known) => [...known, ...page.events.toReversed()].slice(0, kept));
      setMore(page.next !== undefined && events.length + page.events.length < kept);
    } catch (err) {
      complain(err);
    }
  };
  const shown = events.filter((e) => `${e.actor} ${e.from || ''} ${e.action} ${e.target || ''} ${e.outcome} ${e.detail || ''}`.toLowerCase().includes(wanted));

  return html`
    <${Page} title="Events" aside=${html`<span class="live" data-live=${live}>${live ? 'live' : 'connecting…'}</span>`}>
      <form class="filters" role="search" onSubmit=${(e) => e.preventDefault()}>
        <div class="grow">
          <label class="unseen" for="event-search">Search what is shown</label>
          <input id="event-search" type="search" placeholder="Search what is shown: an action, an instance, an address…" value=${text}
            autocomplete="off" spellcheck=${false} onInput=${(e) => setText(e.target.value)} />
        </div>
      </form>
      ${shown.length ? html`<${EventTable} events=${shown} />` : html`<${Empty}>${events.length ? 'Nothing matches.' : 'Nothing has happened yet.'}<//>`}
      ${events.length >= first && more && html`<p class="actions"><${Act} does=${older}>Show older events<//></p>`}
    <//>`;
}
