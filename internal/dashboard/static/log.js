// What instances print, as they print it.
import { html } from 'htm/preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { follow } from './api.js';
import { Check, Page, useSettled } from './ui.js';
import { full, time } from './format.js';

const kept = 2000; // lines in the page
const first = 300; // lines to begin with

/** The words of a search as the daemon reads them, for marking what was found. */
function wordsOf(search) {
  const words = [...search.matchAll(/"([^"]+)"?|(\S+)/g)].map((m) => m[1] || m[2].replace(/\*$/, ''));
  return words.filter(Boolean).map((w) => w.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
}

/** text with what was searched for in marks. */
function marked(text, words) {
  if (!words.length) return text;
  return text.split(new RegExp(`(${words.join('|')})`, 'i')).map((part, n) => (n % 2 ? html`<mark>${part}</mark>` : part));
}

/** Colours and cursor movements for terminals are no text here. */
// eslint-disable-next-line no-control-regex
const plain = (text) => text.replace(/\x1b\[[0-9;?]*[ -/]*[@-~]/g, '').replace(/[\x00-\x08\x0b-\x1f\x7f]/g, '·');

export function Log({ instance, around: Around = LogSection }) {
  const [search, setSearch] = useState('');
  const [level, setLevel] = useState('');
  const [following, setFollowing] = useState(true);
  const [lines, setLines] = useState([]);
  const [live, setLive] = useState(false);
  const settled = useSettled(search.trim(), 300);
  const box = useRef();

  useEffect(() => {
    const words = wordsOf(settled);
    // A line is drawn once: what is drawn already is passed over.
    const draw = (line) => html`
      <div class="line" data-level=${line.level} key=${line.id}>
        <time datetime=${line.at} title=${full(line.at)}>${time(line.at)}</time>
        ${!instance && html`<a class="source" href=${'/instances/' + line.instance}>${line.instance}</a>`}
        <span class="text">${marked(plain(line.text), words)}</span>
      </div>`;
    setLines([]);
    return follow('/api/logs/stream', { instance, search: settled, level, limit: first }, (list) => {
      setLines((known) => [...known, ...list.map(draw)].slice(-kept));
    }, setLive);
  }, [instance, settled, level]);

  useLayoutEffect(() => {
    if (following) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, following]);

  // Who scrolls back wants to read; who comes to the end wants to go on.
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    setFollowing(scrollHeight - scrollTop - clientHeight < 40);
  };

  return html`
    <${Around} live=${html`<span class="live" data-live=${live}>${live ? 'live' : 'connecting…'}</span>`}>
      <form class="filters" role="search" aria-label="Log" onSubmit=${(e) => e.preventDefault()}>
        <div class="grow">
          <label class="unseen" for="log-search">Search the log</label>
          <input id="log-search" type="search" placeholder="Words that are all in a line" value=${search}
            autocomplete="off" spellcheck=${false} onInput=${(e) => setSearch(e.target.value)} />
        </div>
        <div>
          <label class="unseen" for="log-level">Output</label>
          <select id="log-level" value=${level} onChange=${(e) => setLevel(e.target.value)}>
            <option value="">All output</option><option>stdout</option><option>stderr</option>
          </select>
        </div>
        <${Check} label="Follow" checked=${following} onChange=${(e) => setFollowing(e.target.checked)} />
      </form>
      <div class="log" ref=${box} tabindex="0" role="log" aria-live="off" aria-label="Lines of the log" onScroll=${scrolled}>
        ${lines.length ? lines : html`<p class="empty">${settled || level ? 'No line matches.' : 'Nothing printed yet.'}</p>`}
      </div>
    <//>`;
}

/** A section of an instance's page. */
function LogSection({ live, children }) {
  return html`
    <section aria-labelledby="log">
      <div class="title"><h2 id="log">Log</h2>${live}</div>
      ${children}
    </section>`;
}

const WholePage = ({ live, children }) => html`<${Page} title="Logs" aside=${live}>${children}<//>`;

/** What all instances print that one may see. */
export const LogsPage = () => html`<${Log} around=${WholePage} />`;
