// One instance: what it does, what it has of its own, what it prints, and what can be done.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, follow, instancePath, poll } from './api.js';
import { change, complain, go, isAdmin, maySteer, say } from './state.js';
import { Act, Check, Empty, Field, Page, State, When } from './ui.js';
import { WakeOrSleep } from './instances.js';
import { Settings } from './settings.js';
import { Timeline } from './timeline.js';
import { Wakes } from './wakes.js';
import { Log } from './log.js';
import { EventTable } from './events.js';
import { bytes, count, full } from './format.js';

/** What the API says of id, kept up to date; null before, false when there is no such one. */
function useInstance(id) {
  const [instance, setInstance] = useState(null);
  const [storage, setStorage] = useState(null);
  const [events, setEvents] = useState([]);
  useEffect(() => {
    const looking = poll(async (signal) => {
      try {
        setInstance(await ask('GET', instancePath(id), { signal }));
      } catch (err) {
        if (err.status === 404) setInstance(false);
        else complain(err);
      }
    }, 2000);
    // Measuring reads the whole directory.
    const measuring = poll((signal) => ask('GET', instancePath(id) + '/storage', { signal }).then(setStorage).catch(() => {}), 60000);
    const unfollow = follow('/api/events/stream', { instance: id, limit: 20 }, (list) => {
      setEvents((known) => [...list.toReversed(), ...known].slice(0, 100));
      looking.soon();
    });
    return () => {
      unfollow();
      looking.stop();
      measuring.stop();
    };
  }, [id]);
  return { instance, storage, events };
}

export function Instance({ id }) {
  const { instance: i, storage, events } = useInstance(id);
  if (i === false) {
    return html`<${Page} title=${id}><${Empty}>It is not registered, or not yours to see. <a href="/">All instances</a><//><//>`;
  }
  if (!i) return html`<${Page} title=${id}><p class="faint">Loading…</p><//>`;
  return html`
    <${Page} title=${id} aside=${html`<${State} is=${i.state} />`}>
      <${Actions} i=${i} />
      ${i.reason && html`<div class="notice bad still"><p>${i.reason}</p></div>`}
      <${Facts} i=${i} storage=${storage} />
      <${Timeline} id=${id} state=${i.state} />
      <${Wakes} instance=${id} />
      <${Log} instance=${id} />
      <${Settings} id=${id} />
      <section aria-labelledby="events">
        <h2 id="events">Events</h2>
        ${events.length ? html`<${EventTable} events=${events} bare />` : html`<${Empty}>Nothing has happened to it yet.<//>`}
      </section>
    <//>`;
}

function Actions({ i }) {
  const path = instancePath(i.id);
  const act = (verb, done) => () => change(`${i.id} ${done}.`, 'POST', `${path}/${verb}`);
  if (!maySteer()) return html`<p class="actions"><${Visit} i=${i} /></p>`;
  return html`
    <div class="actions">
      <${Visit} i=${i} />
      <${WakeOrSleep} i=${i} />
      <${CheckHealth} i=${i} />
      ${isAdmin() && html`
        <${Act} does=${act('restart', 'was restarted')} confirm=${{
          title: `Restart ${i.id}?`, action: 'Restart',
          text: 'Requests under way are given time to finish; new ones wait for the next process.',
        }}>Restart…<//>
        ${i.state === 'suspended'
          ? html`<${Act} key="resume" does=${act('resume', 'may wake again')}>Resume<//>`
          : html`<${Act} key="suspend" does=${act('suspend', 'is switched off')} confirm=${{
            title: `Suspend ${i.id}?`, action: 'Suspend', danger: true,
            text: 'Its process is ended, and its requests are refused until it is resumed.',
          }}>Suspend…<//>`}
        <${Weight} i=${i} />
        <${Delete} i=${i} />`}
    </div>`;
}

const Visit = ({ i }) => i.url && html`<a class="button" href=${i.url} target="_blank" rel="noreferrer">Open ↗<span class="unseen"> ${i.url} in a new tab</span></a>`;

/** Asks the instance how it is, now. */
function CheckHealth({ i }) {
  const does = async () => {
    try {
      const { health, detail } = await ask('GET', instancePath(i.id) + '/health');
      say(`${i.id} is ${health}.`, { hint: detail, bad: health === 'unhealthy' || health === 'degraded' });
    } catch (err) {
      complain(err);
    }
  };
  return i.pid > 0 && html`<${Act} does=${does}>Check health<//>`;
}

function Weight({ i }) {
  const does = ({ weight }) => change(`${i.id} has the weight ${weight}.`, 'PUT', instancePath(i.id) + '/weight', { body: { weight: Number(weight) } });
  const service = i.id.slice(0, i.id.indexOf(':'));
  const fields = html`
    <${Field} label="Weight" id="weight" hint=${`Its share of the host of ${service} itself, from 0, which is none, to 1000.`}>
      <input id="weight" name="weight" type="number" min="0" max="1000" step="1" required defaultValue=${i.weight} aria-describedby="weight-hint" />
    <//>`;
  return html`<${Act} does=${does} confirm=${{ title: `Weight of ${i.id}`, action: 'Set', fields }}>Weight…<//>`;
}

function Delete({ i }) {
  const does = async ({ purge }) => {
    const path = instancePath(i.id) + (purge ? '?purge=true' : '');
    if (await change(`${i.id} is deleted.`, 'DELETE', path)) go('/');
  };
  const fields = html`
    <${Field} label=${`To be sure, type ${i.id}`} id="sure">
      <input id="sure" required pattern=${i.id} autocomplete="off" autocapitalize="none" spellcheck=${false} />
    <//>
    <${Check} label="Remove its files as well, for ever" name="purge" />`;
  return html`<${Act} kind="danger quiet" does=${does} confirm=${{
    title: `Delete ${i.id}?`, action: 'Delete', danger: true, fields,
    text: 'Its process is ended, and nobody reaches it any more.',
  }}>Delete…<//>`;
}

const Fact = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;

function Facts({ i, storage }) {
  const limit = storage?.limit_bytes ? ` of ${bytes(storage.limit_bytes)}` : '';
  return html`
    <section aria-labelledby="facts">
      <h2 class="unseen" id="facts">Facts</h2>
      <dl class="facts">
        <${Fact} name="Health">${i.health}${i.last_healthy_at && html` <span class="faint"><${When} at=${i.last_healthy_at} /></span>`}<//>
        <${Fact} name="In flight">${count(i.leases)}${i.waiting > 0 && ` + ${count(i.waiting)} held`}<//>
        <${Fact} name="Last active"><${When} at=${i.last_active_at} /><//>
        <${Fact} name="Running since"><${When} at=${i.started_at} /><//>
        <${Fact} name="Weight">${i.weight}<//>
        <${Fact} name="Storage">${storage ? bytes(storage.used_bytes) + limit : '–'}<//>
        <${Fact} name="Restarts">${count(i.restarts)}<//>
        <${Fact} name="Out of memory">${i.oom_kills ? `${count(i.oom_kills)} times` : 'never'}<//>
        <${Fact} name="Process">${i.pid || '–'}<//>
        <${Fact} name="Registered"><${When} at=${i.created_at} /><//>
        ${i.retry_at && html`<${Fact} name="Next start"><${When} at=${i.retry_at} /><//>`}
        ${i.busy_until && html`<${Fact} name="Busy until">${full(i.busy_until)}<//>`}
        ${i.next_alarm_at && html`<${Fact} name="Next alarm"><${When} at=${i.next_alarm_at} /><//>`}
        ${i.next_cron_at && html`<${Fact} name="Next cron run"><${When} at=${i.next_cron_at} /><//>`}
      </dl>
    </section>`;
}
