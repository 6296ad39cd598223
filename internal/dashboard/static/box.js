// The machine: what there is room for, what waits, and how many instances are awake.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, poll } from './api.js';
import { complain, isAdmin, say } from './state.js';
import { Act, Check, Page, State, When } from './ui.js';
import { Plot } from './plot.js';
import { bytes, count, some } from './format.js';

const every = 3000; // ms
const kept = 600; // samples, half an hour

/** What was seen since the page was opened, also while others were looked at in between. */
const history = { at: [], load: [], pressure: [], awake: [], leases: [] };

const resting = ['asleep', 'suspended', 'failed'];
const awake = (box) => Object.entries(box.states).reduce((n, [state, has]) => (resting.includes(state) ? n : n + has), 0);

function note(box) {
  history.at.push(Date.now() / 1000);
  history.load.push(box.load ?? 0);
  history.pressure.push(box.pressure.cpu ?? 0);
  history.awake.push(awake(box));
  history.leases.push(box.leases);
  if (history.at.length > kept) for (const list of Object.values(history)) list.shift();
}

export function Box() {
  const [box, setBox] = useState(null);
  useEffect(() => {
    const looking = poll(async (signal) => {
      try {
        const seen = await ask('GET', '/api/box', { signal });
        note(seen);
        setBox(seen);
      } catch (err) {
        complain(err);
      }
    }, every);
    return looking.stop;
  }, []);
  return html`
    <${Page} title="Box" aside=${isAdmin() && html`<${Reload} />`}>
      ${box ? html`<${Figures} box=${box} /><${Plots} at=${history.at.at(-1)} />` : html`<p class="faint">Loading…</p>`}
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

function Plots({ at }) {
  const series = (...names) => [history.at, ...names.map((name) => history[name])];
  return html`
    <div class="plots">
      <${Plot} title="Awake instances and requests" at=${at} data=${series('awake', 'leases')} names=${['awake', 'in flight']} />
      <${Plot} title="Load, and time waited for the CPU" at=${at} data=${series('load', 'pressure')} names=${['load', '% waited']} />
    </div>`;
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
