// The pieces that pages are made of.
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { notices, dismiss } from './state.js';
import { ago, full } from './format.js';

/** A page: its heading takes the focus when one comes there, so that readers know where they are. */
export function Page({ title, aside, children }) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${title} · tenement`;
    if (Page.shown) heading.current.focus({ preventScroll: true });
    Page.shown = true; // the first page leaves the focus where the browser has it
  }, [title]);
  return html`
    <div class="title">
      <h1 tabindex="-1" ref=${heading}>${title}</h1>
      ${aside}
    </div>
    ${children}`;
}

export const State = ({ is }) => html`<span class="state" data-state=${is}>${is}</span>`;

/** A time as people say it; the exact one is shown when asked for. */
export const When = ({ at }) =>
  at ? html`<time datetime=${at} title=${full(at)}>${ago(at)}</time>` : html`<span class="faint">–</span>`;

export function Notices() {
  return html`
    <div class="notices" role="status" aria-live="polite">
      ${notices.value.map((n) => html`
        <div class=${n.bad ? 'notice bad' : 'notice'} key=${n.id}>
          <p>${n.text}</p>
          ${n.hint && html`<p class="hint">${n.hint}</p>`}
          <button class="quiet" aria-label="Dismiss" onClick=${() => dismiss(n.id)}>×</button>
        </div>`)}
    </div>`;
}

/**
 * A button that does something which takes a while: it can be pressed again once that has
 * ended. With confirm, what a Dialog says, it asks first.
 */
export function Act({ does, confirm, kind = '', disabled = false, children }) {
  const [busy, setBusy] = useState(false);
  const [asking, setAsking] = useState(false);
  const alive = useAlive();
  const press = () => {
    if (busy) return; // not disabled: the focus stays
    if (confirm) setAsking(true);
    else run({});
  };
  const run = async (answers) => {
    setAsking(false);
    setBusy(true);
    try {
      await does(answers);
    } finally {
      if (alive.current) setBusy(false);
    }
  };
  return html`
    <button type="button" class=${kind} disabled=${disabled} aria-disabled=${busy || undefined} aria-busy=${busy || undefined}
      onClick=${press}>${children}</button>
    ${asking && html`<${Dialog} ...${confirm} onDone=${run} onCancel=${() => setAsking(false)} />`}`;
}

/** Whether the component is still there, for what comes after a wait. */
export function useAlive() {
  const alive = useRef(true);
  useEffect(() => {
    alive.current = true;
    return () => { alive.current = false; };
  }, []);
  return alive;
}

/**
 * Asks something over the page. children are the fields of a form; onDone gets what was
 * filled in, by name. Escape, as everywhere, means no.
 */
export function Dialog({ title, text, action, danger = false, fields, onDone, onCancel }) {
  const box = useRef();
  useEffect(() => {
    const opener = document.activeElement;
    box.current.showModal();
    return () => opener.focus();
  }, []);
  const submit = (event) => {
    event.preventDefault();
    onDone(Object.fromEntries(new FormData(event.target)));
  };
  return html`
    <dialog ref=${box} onClose=${onCancel} aria-labelledby="dialog-title">
      <form onSubmit=${submit}>
        <h2 id="dialog-title">${title}</h2>
        ${text && html`<p>${text}</p>`}
        ${typeof fields === 'function' ? fields() : fields}
        <div class="actions end">
          <button type="button" onClick=${onCancel}>Cancel</button>
          <button class=${danger ? 'danger' : 'primary'}>${action}</button>
        </div>
      </form>
    </dialog>`;
}

/** One labelled field of a form. */
export function Field({ label, hint, id, children }) {
  return html`
    <div class="field">
      <label for=${id}>${label}</label>
      ${children}
      ${hint && html`<p class="hint" id=${id + '-hint'}>${hint}</p>`}
    </div>`;
}

export function Check({ label, ...rest }) {
  return html`<label class="check"><input type="checkbox" ...${rest} /> ${label}</label>`;
}

/** What stands where there is nothing to show. */
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** A value that follows another one after it has been the same for a while, in ms. */
export function useSettled(value, pause = 200) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), pause);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}
