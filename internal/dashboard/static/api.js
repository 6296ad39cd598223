// Talks to the management API. Who is logged in is known by a cookie that scripts
// cannot read.

/** A refusal of the API: a problem document (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || 'The daemon does not answer.');
    this.status = status; // 0 without an answer
    this.code = body.code || 'unreachable';
    this.hint = body.hint || '';
    this.errors = body.errors || [];
  }
}

/** Goes to the log-in page, and from there back to where we are. */
export function logInAgain() {
  const here = location.pathname + location.search;
  location.replace('/login?next=' + encodeURIComponent(here));
}

/** The answer to one request, or a Problem that is thrown. signal may end it. */
export async function ask(method, path, { query, body, type, signal } = {}) {
  let response;
  try {
    response = await fetch(path + queryString(query), {
      method, signal,
      headers: body === undefined ? {} : { 'Content-Type': type || 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Problem(0, {});
  }
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : null;
  if (response.status === 401) logInAgain();
  throw new Problem(response.status, parsed(text));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** "?a=b" of what is neither empty nor false. */
export function queryString(query = {}) {
  const q = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '' && value !== false) q.set(name, value);
  }
  const text = q.toString();
  return text ? '?' + text : '';
}

export const instancePath = (id) => '/api/instances/' + encodeURIComponent(id);

/**
 * Follows a stream of the API while the page can be seen: each is called with all that came
 * within one frame of the screen, live with whether the stream is there. The browser comes
 * again by itself, at the place where it was. Returns a function that ends it.
 *
 * A hidden page lets go: browsers keep six connections to a host, for all tabs together.
 */
export function follow(path, query, each, live = () => {}) {
  let source = null;
  let last = 0;
  let batch = [];
  let frame = 0;

  const deliver = () => {
    frame = 0;
    const items = batch;
    batch = [];
    each(items);
  };
  const open = () => {
    source = new EventSource(path + queryString(last ? { ...query, limit: 0, after: last } : query));
    source.onopen = () => live(true);
    source.onmessage = (message) => {
      const item = JSON.parse(message.data);
      last = Math.max(last, item.id);
      batch.push(item);
      frame ||= requestAnimationFrame(deliver);
    };
    source.onerror = () => {
      live(false);
      if (source?.readyState === EventSource.CLOSED) retry();
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  // The stream was refused. Asking who we are leads to the log-in page, if that is why.
  let timer = 0;
  const retry = () => {
    close();
    ask('GET', '/api/whoami').catch(() => {});
    timer = setTimeout(open, 3000);
  };
  const seen = () => {
    clearTimeout(timer);
    if (document.hidden) close();
    else if (!source) open();
  };

  document.addEventListener('visibilitychange', seen);
  seen();
  return () => {
    document.removeEventListener('visibilitychange', seen);
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    close();
  };
}

/**
 * Calls work now and then every pause milliseconds after it has ended, while the page can
 * be seen. work gets a signal that ends it. What is returned can stop that, and have the
 * next call come soon.
 */
export function poll(work, pause) {
  let timer = 0;
  let round = 0;
  let hurried = false;
  let control = new AbortController();
  const run = async () => {
    const mine = ++round;
    hurried = false;
    clearTimeout(timer);
    control.abort();
    control = new AbortController();
    await work(control.signal);
    if (mine === round && !hurried && !document.hidden) timer = setTimeout(run, pause);
  };
  const soon = () => {
    if (hurried || document.hidden) return;
    hurried = true; // of many who want it, the first one sets the time
    clearTimeout(timer);
    timer = setTimeout(run, 300);
  };
  const seen = () => {
    if (document.hidden) clearTimeout(timer);
    else run();
  };
  const stop = () => {
    round++;
    document.removeEventListener('visibilitychange', seen);
    clearTimeout(timer);
    control.abort();
  };
  document.addEventListener('visibilitychange', seen);
  run();
  return { soon, stop };
}
