// The frame around all pages, and which page is shown.
import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { html } from 'htm/preact';
import { ask } from './api.js';
import { complain, go, me, place, seesAll } from './state.js';
import { Empty, Notices, Page } from './ui.js';
import { Instances } from './instances.js';
import { Instance } from './instance.js';
import { EventsPage } from './events.js';
import { LogsPage } from './log.js';
import { WakesPage } from './wakes.js';
import { UsagePage } from './usage.js';
import { Tokens } from './tokens.js';
import { Box } from './box.js';

const pages = [
  { path: '/', name: 'Instances', view: Instances, shown: () => true },
  { path: '/wakes', name: 'Wakes', view: WakesPage, shown: () => true },
  { path: '/logs', name: 'Logs', view: LogsPage, shown: () => true },
  { path: '/events', name: 'Events', view: EventsPage, shown: () => true },
  { path: '/usage', name: 'Usage', view: UsagePage, shown: () => true },
  { path: '/tokens', name: 'Tokens', view: Tokens, shown: seesAll },
  { path: '/box', name: 'Box', view: Box, shown: seesAll },
];

const instancePage = /^\/instances\/([^/]+)$/;

function Current() {
  const { path, visit } = place.value;
  const found = instancePage.exec(path);
  if (found) return html`<${Instance} id=${decodeURIComponent(found[1])} key=${visit} />`;
  const page = pages.find((p) => p.path === path);
  if (!page || !page.shown()) return html`<${Page} title="Nothing here"><${Empty}>There is no such page.<//><//>`;
  return html`<${page.view} key=${visit} />`;
}

function Frame() {
  const { path } = place.value;
  const current = (page) => page.path === path || (page.path === '/' && instancePage.test(path));
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="name" href="/"><img src="/assets/icon.svg" alt="" width="22" height="22" /> tenement</a>
      <nav aria-label="Pages">
        ${pages.filter((p) => p.shown()).map((p) => html`
          <a href=${p.path} aria-current=${current(p) ? 'page' : undefined} key=${p.path}>${p.name}</a>`)}
      </nav>
      <form class="who" method="post" action="/logout">
        <span title=${me.value.actor}>${me.value.tenant || me.value.scope}</span>
        <button class="quiet">Log out</button>
      </form>
    </header>
    <main id="main"><${Current} /></main>
    <${Notices} />`;
}

function App() {
  useEffect(() => {
    const come = () => ask('GET', '/api/whoami').then((who) => { me.value = who; }).catch((err) => {
      complain(err);
      if (err.status !== 401) setTimeout(come, 3000); // the daemon is being replaced
    });
    come();
  }, []);
  return me.value ? html`<${Frame} />` : html`<main><h1 class="unseen">tenement</h1></main><${Notices} />`;
}

// Links of ours change the page without loading it again.
document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href^="/"]');
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || link.target) return;
  event.preventDefault();
  go(link.getAttribute('href'));
});

// "/" goes to the search of a page, as in many places.
document.addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.metaKey || event.ctrlKey || event.altKey) return;
  if (event.target.closest?.('input, select, textarea, dialog')) return;
  const search = document.querySelector('input[type="search"]');
  if (!search) return;
  event.preventDefault();
  search.focus();
});

render(html`<${App} />`, document.getElementById('app'));
