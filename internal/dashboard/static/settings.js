// What an instance has of its own, over its service's: limits and times, variables, secrets.
import { html } from 'htm/preact';
import { useEffect, useState } from 'preact/hooks';
import { ask, instancePath } from './api.js';
import { complain, isAdmin, say } from './state.js';
import { Act, Empty, Field } from './ui.js';

// Each key of [service.NAME] that one instance may have otherwise, and what it is in words.
const keys = [
  ['memory_limit_mb', 'Memory, MB'], ['cpu_limit', 'CPU, cores'], ['cpu_shares', 'CPU, weight'],
  ['pids_limit', 'Processes'], ['open_files_limit', 'Open files'], ['storage_quota_mb', 'Storage, MB'],
  ['idle_timeout', 'Sleeps after'], ['freeze_timeout', 'Freezes after'], ['startup_timeout', 'Start-up takes at most'],
  ['request_timeout', 'Requests take at most'], ['stop_timeout', 'Stopping takes at most'],
];
const nameOf = Object.fromEntries(keys);

const kinds = { values: 'setting', env: 'variable', secrets: 'secret', cron: 'cron line' };

/** A cron line as `ten set` takes it; false is one of its service's that is off. */
const lineOf = (line) => {
  const { schedule, path, ...more } = line;
  return line ? [schedule, path, ...Object.entries(more).map(([key, value]) => `${key}=${value}`)].join(' ') : 'off';
};

export function Settings({ id }) {
  const [own, setOwn] = useState(null);
  const path = instancePath(id) + '/settings';
  useEffect(() => {
    ask('GET', path).then(setOwn).catch(complain);
  }, [path]);

  const patch = async (kind, name, value) => {
    try {
      const now = await ask('PATCH', path, { body: { [kind]: { [name]: value } }, type: 'application/merge-patch+json' });
      setOwn(now);
      say(`The ${kinds[kind]} ${name} is ${value === null ? 'taken away' : 'set'}.`, {
        hint: now.restart_needed ? 'Its process runs with what was before: restart it for the change to hold now.' : '',
      });
    } catch (err) {
      complain(err);
    }
  };
  const rows = own ? [
    ...Object.entries(own.values).map(([name, value]) => ['values', name, String(value)]),
    ...Object.entries(own.env).map(([name, value]) => ['env', name, String(value)]),
    ...own.secrets.map((name) => ['secrets', name, '••••••']),
    ...Object.entries(own.cron).map(([name, line]) => ['cron', name, lineOf(line)]),
  ] : [];

  return html`
    <section aria-labelledby="settings">
      <div class="title">
        <h2 id="settings">Settings</h2>
        ${isAdmin() && own && html`<div class="actions"><${SetValue} patch=${patch} /><${SetVariable} patch=${patch} /></div>`}
      </div>
      ${rows.length ? html`<table>
        <thead><tr><th scope="col">Name</th><th scope="col">Value</th><th scope="col"><span class="unseen">Actions</span></th></tr></thead>
        <tbody>${rows.map(([kind, name, value]) => html`
          <tr key=${kind + name}>
            <th scope="row">${nameOf[name] || html`<code>${name}</code>`} <span class="faint">${kinds[kind]}</span></th>
            <td class="detail">${value}</td>
            <td class="actions end">${isAdmin() && html`
              <${Act} kind="quiet" does=${() => patch(kind, name, null)} confirm=${{
                title: `Take ${name} away?`, action: 'Take away', danger: kind === 'secrets',
                text: kind === 'secrets' ? 'Nobody can show its value again.' : 'What its service has holds again.',
              }}>Remove<span class="unseen"> ${name}</span>…<//>`}</td>
          </tr>`)}</tbody>
      </table>` : html`<${Empty}>${own ? 'None of its own: it has what its service has.' : 'Loading…'}<//>`}
    </section>`;
}

/** A number where it is one, and else a text, such as "10m". */
const valueOf = (text) => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : text.trim());

function SetValue({ patch }) {
  const fields = html`
    <${Field} label="Setting" id="setting-key">
      <select id="setting-key" name="key">${keys.map(([key, name]) => html`<option value=${key}>${name}</option>`)}</select>
    <//>
    <${Field} label="Value" id="setting-value" hint="A number; times also like 250ms, 10s, 5m.">
      <input id="setting-value" name="value" required autocomplete="off" aria-describedby="setting-value-hint" />
    <//>`;
  return html`<${Act} does=${({ key, value }) => patch('values', key, valueOf(value))}
    confirm=${{ title: 'A limit or time of its own', action: 'Set', fields }}>Set a limit…<//>`;
}

function SetVariable({ patch }) {
  const does = ({ name, value, secret }) => patch(secret ? 'secrets' : 'env', name, value);
  const fields = html`
    <${Field} label="Name" id="variable-name">
      <input id="variable-name" name="name" required pattern="[A-Za-z_][A-Za-z0-9_]*" autocomplete="off" autocapitalize="none" spellcheck=${false} />
    <//>
    <${Field} label="Value" id="variable-value">
      <textarea id="variable-value" name="value" rows="3" autocomplete="off" autocapitalize="none" spellcheck=${false}></textarea>
    <//>
    <label class="check"><input type="checkbox" name="secret" /> It is a secret: encrypted, and never shown again</label>`;
  return html`<${Act} does=${does} confirm=${{ title: 'A variable of its own', action: 'Set', fields }}>Set a variable…<//>`;
}
