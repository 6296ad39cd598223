// The tokens of the management API: who may do what.
import { html } from 'htm/preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { ask } from './api.js';
import { change, complain, isAdmin, me } from './state.js';
import { Act, Empty, Field, Page, When } from './ui.js';

const scopes = [
  ['read-only', 'Read-only: sees everything, changes nothing'],
  ['tenant', 'Tenant: reads, starts and stops the instances of one name'],
  ['metrics', 'Metrics: for monitoring'],
  ['admin', 'Admin: everything'],
];
const days = [['30', '30 days'], ['90', '90 days'], ['365', 'A year'], ['0', 'Never']];

export function Tokens() {
  const [tokens, setTokens] = useState(null);
  const [made, setMade] = useState(null);
  const look = () => ask('GET', '/api/tokens').then((answer) => setTokens(answer.tokens)).catch(complain);
  useEffect(() => { look(); }, []);

  const revoke = async (token) => {
    if (await change(`The token ${token.name || token.id} is revoked.`, 'DELETE', '/api/tokens/' + encodeURIComponent(token.id))) look();
  };
  return html`
    <${Page} title="Tokens" aside=${isAdmin() && html`<${Create} onMade=${(token) => { setMade(token); look(); }} />`}>
      ${made && html`<${Made} token=${made} onDone=${() => setMade(null)} />`}
      ${tokens?.length ? html`
        <table class="wide">
          <thead><tr>
            <th scope="col">Token</th><th scope="col">Scope</th><th scope="col">Last used</th>
            <th scope="col">Made</th><th scope="col">Ends</th><th scope="col"><span class="unseen">Actions</span></th>
          </tr></thead>
          <tbody>${tokens.map((t) => html`<${Row} t=${t} revoke=${revoke} key=${t.id} />`)}</tbody>
        </table>` : html`<${Empty}>${tokens ? 'There is none.' : 'Loading…'}<//>`}
    <//>`;
}

function Row({ t, revoke }) {
  const mine = me.value.actor === 'token:' + t.id;
  return html`
    <tr>
      <th scope="row">${t.name || html`<code>${t.id}</code>`} ${t.name && html`<span class="faint">${t.id}</span>`}${mine && html` <span class="faint">yours</span>`}</th>
      <td data-label="Scope">${t.scope}${t.tenant && ' ' + t.tenant}</td>
      <td data-label="Last used"><${When} at=${t.last_used} /></td>
      <td data-label="Made"><${When} at=${t.created_at} /></td>
      <td data-label="Ends">${t.expires_at ? html`<${When} at=${t.expires_at} />` : 'never'}</td>
      <td class="actions end">${isAdmin() && html`
        <${Act} kind="danger quiet" does=${() => revoke(t)} confirm=${{
          title: `Revoke ${t.name || t.id}?`, action: 'Revoke', danger: true,
          text: mine ? 'It is the one you are logged in with: you will be logged out.' : 'Whoever uses it is refused from then on.',
        }}>Revoke<span class="unseen"> ${t.name || t.id}</span>…<//>`}</td>
    </tr>`;
}

function Create({ onMade }) {
  const does = async ({ name, scope, tenant, days: lifetime }) => {
    const body = { scope };
    if (name) body.name = name;
    if (scope === 'tenant') body.tenant = tenant;
    if (lifetime !== '0') body.expires_in_seconds = Number(lifetime) * 86400;
    try {
      onMade(await ask('POST', '/api/tokens', { body }));
    } catch (err) {
      complain(err);
    }
  };
  return html`<${Act} kind="primary" does=${does} confirm=${{ title: 'New token', action: 'Make', fields: () => html`<${Fields} />` }}>New token<//>`;
}

function Fields() {
  const [scope, setScope] = useState(scopes[0][0]);
  return html`
    <${Field} label="Name" id="token-name" hint="What to call it, such as ci. May be left empty.">
      <input id="token-name" name="name" pattern="[a-z0-9]([a-z0-9_\\-]{0,61}[a-z0-9])?" autocomplete="off" autocapitalize="none"
        spellcheck=${false} aria-describedby="token-name-hint" />
    <//>
    <${Field} label="Scope" id="token-scope">
      <select id="token-scope" name="scope" value=${scope} onChange=${(e) => setScope(e.target.value)}>
        ${scopes.map(([value, name]) => html`<option value=${value}>${name}</option>`)}
      </select>
    <//>
    ${scope === 'tenant' && html`<${Field} label="Tenant" id="token-tenant" hint="The name of its instances, in whatever service.">
      <input id="token-tenant" name="tenant" required autocomplete="off" autocapitalize="none" spellcheck=${false} aria-describedby="token-tenant-hint" />
    <//>`}
    <${Field} label="Ends after" id="token-days">
      <select id="token-days" name="days">${days.map(([value, name]) => html`<option value=${value} selected=${value === '90'}>${name}</option>`)}</select>
    <//>`;
}

/** A new token's secret, which is shown this once. */
function Made({ token, onDone }) {
  const [copied, setCopied] = useState(false);
  const field = useRef();
  const copy = async () => {
    field.current.select();
    try {
      await navigator.clipboard.writeText(token.secret);
      setCopied(true);
    } catch {
      setCopied(false); // only over HTTPS; it is selected
    }
  };
  return html`
    <div class="card made" role="region" aria-labelledby="made">
      <h2 id="made">The new token</h2>
      <p>Copy it now: it cannot be shown again.</p>
      <${Field} label=${`Token ${token.name || token.id}`} id="secret">
        <input id="secret" class="code" readonly value=${token.secret} ref=${field} />
      <//>
      <div class="actions">
        <button class="primary" onClick=${copy}>${copied ? 'Copied' : 'Copy'}</button>
        <button onClick=${onDone}>Done</button>
      </div>
    </div>`;
}
