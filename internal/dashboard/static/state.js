// What all pages share: who is logged in, where we are, and what is to be said.
import { signal } from '@preact/signals';
import { ask } from './api.js';

/** Who is logged in: {actor, scope, tenant}; null until that is known. */
export const me = signal(null);
export const isAdmin = () => me.value?.scope === 'admin';
export const seesAll = () => isAdmin() || me.value?.scope === 'read-only';
/** Admins everything; a tenant may start and stop its own. */
export const maySteer = () => isAdmin() || me.value?.scope === 'tenant';

let visits = 0;

/** The page that is shown: its path and query, and which visit it is: each one begins anew. */
export const place = signal(read());

function read() {
  return { path: location.pathname, query: Object.fromEntries(new URLSearchParams(location.search)), visit: ++visits };
}

export function go(url) {
  history.pushState(null, '', url);
  place.value = read();
  scrollTo(0, 0);
}

/** Keeps a page's choices in its address, so that they survive a reload and a way back. */
export function remember(url) {
  history.replaceState(null, '', url);
}

addEventListener('popstate', () => { place.value = read(); });

/** What is to be said to the user: {id, text, hint, bad}. */
export const notices = signal([]);
let lastNotice = 0;

export function say(text, { hint = '', bad = false } = {}) {
  const id = ++lastNotice;
  const others = notices.value.filter((n) => n.text !== text); // what goes on is said once
  notices.value = [...others.slice(-2), { id, text, hint, bad }];
  if (!bad) setTimeout(() => dismiss(id), 6000);
}

export function complain(err) {
  if (err.name === 'AbortError' || err.status === 401) return;
  const details = (err.errors || []).map((e) => `${e.location || ''} ${e.detail}`.trim());
  say([err.message, ...details].join(' · '), { hint: err.hint, bad: true });
}

export function dismiss(id) {
  notices.value = notices.value.filter((n) => n.id !== id);
}

/** Asks the API to change something, and says how that went. True if it was done. */
export async function change(done, method, path, options) {
  try {
    await ask(method, path, options);
    say(done);
    return true;
  } catch (err) {
    complain(err);
    return false;
  }
}
