// The machine: what there is room for, what waits, and how many instances are awake.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, poll } from './api.js';
import { complain, isAdmin, say } from './state.js';
import { Act, Check, Page, State, When } from './ui.js';
import { Plot } from './plot.js';
import { columns } from './timeline.js';
import { bytes, count, percent, some } from './format.js';

const every = 3000; // ms

const resting = ['asleep', 'suspended', 'failed'];
const awake = (box) => Object.entries(box.states).reduce((n, [state, has]) => (resting.includes(state) ? n : n + has), 0);

export function Box() {
  const [box, setBox] = useState(null);
  const [hour, setHour] = useState(null);
  useEffect(() => {
    const looking = poll(async (signal) => {
      try {
        setBox(await ask('GET', '/api/box', { signal }));
        setHour(await ask('GET', '/api/box/timeline', { signal }));
      } catch (err) {
        complain(err);
      }
    }, every);
    return looking.stop;
  }, []);
  return html`
    <${Page} title="Box" aside=${isAdmin() && html`<div class="actions"><${Upgrade} /><${Reload} /></div>`}>
      ${box ? html`<${Figures} box=${box} />${hour?.samples.length > 0 && html`<${Plots} hour=${hour} box=${box} />`}` : html`<p class="faint">Loading…</p>`}
    <//>`;
}

const Tile = ({ name, value, children }) => html`<div class="tile"><h2>${name}</h2><p class="figure">${value}</p>${children}</div>`;

/** How much of something is taken. */
function Room({ name, room }) {
  if (!room.total_bytes) return null;
  const used = room.total_bytes - (room.available_bytes ?? 0);
  const percent = Math.round((100 * used) / room.total_bytes);
  return html`
    <${Tile} name=${name} value=${`${percent} %`}>
      <meter min="0" max="100" low="80" high="92" optimum="0" value=${percent} aria-label=${`${name} in use`}>${percent} %</meter>
      <p class="faint">${bytes(room.available_bytes)} free of ${bytes(room.total_bytes)}</p>
    <//>`;
}

function Figures({ box }) {
  const { cpu = 0, memory = 0, io = 0 } = box.pressure;
  return html`
    <div class="tiles">
      <${Tile} name="Awake" value=${count(awake(box))}>
        <p class="faint">${some(box.leases, 'request')} in flight, ${count(box.waiting)} held</p>
      <//>
      <${Room} name="Memory" room=${box.memory} />
      <${Room} name="Disk" room=${box.disk} />
      <${Tile} name="Load" value=${(box.load ?? 0).toFixed(2)}><p class="faint">on ${some(box.cores, 'core')}</p><//>
      <${Tile} name="Waiting for" value=${`${Math.max(cpu, memory, io).toFixed(0)} %`}>
        <p class="faint">CPU ${cpu.toFixed(0)} %, memory ${memory.toFixed(0)} %, disk ${io.toFixed(0)} % of the time</p>
      <//>
      <${Tile} name="Daemon" value=${box.version || 'development'}><p class="faint">took over <${When} at=${box.started_at} /></p><//>
    </div>
    <section aria-labelledby="states">
      <h2 id="states">Instances by state</h2>
      <ul class="states">${Object.entries(box.states).sort((a, b) => b[1] - a[1]).map(([state, n]) => html`
        <li key=${state}><a href=${'/?state=' + state}><${State} is=${state} /> ${count(n)}</a></li>`)}
      </ul>
    </section>`;
}

/** The last hour: what had to wait, and what for. */
function Plots({ hour, box }) {
  const { step_seconds: step, samples } = hour;
  const plot = (title, names, values, rest) => html`
    <${Plot} title=${title} names=${names} at=${samples.at(-1).at} data=${columns(hour, ...values)} ...${rest} />`;
  return html`
    <section aria-labelledby="hour">
      <h2 id="hour">Last hour</h2>
      <div class="plots">
        ${plot('Time waited for', ['CPU', 'memory', 'disk'], [(s) => s.pressure.cpu ?? 0, (s) => s.pressure.memory ?? 0, (s) => s.pressure.io ?? 0], { show: percent, floor: 10 })}
        ${plot('Processors in use', ['by instances', 'load'], [(s) => s.cpu_seconds / step, (s) => s.load], { floor: box.cores, show: decimal })}
        ${plot('Memory in use', ['all'], [(s) => s.memory_available_bytes && box.memory.total_bytes - s.memory_available_bytes], { show: bytes, floor: box.memory.total_bytes ?? 1 })}
        ${plot('Instances', ['awake'], [(s) => s.awake], {})}
        ${plot('Requests under way', ['in flight', 'held'], [(s) => s.leases, (s) => s.waiting], {})}
        ${plot('Requests a second', ['all', 'errors'], [(s) => s.requests / step, (s) => s.errors / step], { show: decimal })}
      </div>
    </section>`;
}

const decimal = (n) => count(Math.round(n * 100) / 100);

function Upgrade() {
  const does = async () => {
    try {
      const { version } = await ask('POST', '/api/upgrade');
      say(`The daemon ${version || ''} has taken over.`, { hint: 'Log in again when you are asked to.' });
    } catch (err) {
      complain(err);
    }
  };
  return html`<${Act} does=${does} confirm=${{
    title: 'Let a new daemon take over?', action: 'Upgrade',
    text: 'It is the program as it is on the disk now. Instances go on meanwhile; everybody logs in to the dashboard again.',
  }}>Upgrade…<//>`;
}

function Reload() {
  const does = async ({ restart }) => {
    try {
      const { added = [], removed = [], changed = [], outdated = [] } = await ask('POST', '/api/reload', { body: { restart: Boolean(restart) } });
      const news = [['added', added], ['removed', removed], ['changed', changed]].filter(([, list]) => list.length);
      say(news.map(([what, list]) => `${what}: ${list.join(', ')}`).join('; ') || 'The configuration is as it was.', {
        hint: outdated.length ? `${some(outdated.length, 'instance')} still run with the recipe of before.` : '',
      });
    } catch (err) {
      complain(err);
    }
  };
  return html`<${Act} does=${does} confirm=${{
    title: 'Read the configuration again?', action: 'Reload', text: 'All of it is put in force, or nothing.',
    fields: html`<${Check} label="Restart what runs with an older recipe, one after the other" name="restart" />`,
  }}>Reload configuration…<//>`;
}
