// New instances, new versions, and where the traffic of a service's own host goes.
import { html } from 'htm/preact';
import { change, go } from './state.js';
import { Act, Check, Field } from './ui.js';

/** What an instance may be called (RFC 1123, and "_" within it). */
const label = '[a-z0-9]([a-z0-9_\\-]{0,61}[a-z0-9])?';

const Service = ({ id, services }) => html`
  <${Field} label="Service" id=${id}>
    <select id=${id} name="process" required>${services.map((s) => html`<option>${s}</option>`)}</select>
  <//>`;

const Name = ({ id, name, label: text, hint }) => html`
  <${Field} label=${text} id=${id} hint=${hint}>
    <input id=${id} name=${name} required maxlength="63" pattern=${label} autocomplete="off" autocapitalize="none"
      spellcheck=${false} aria-describedby=${hint && id + '-hint'} />
  <//>`;

export function Spawn({ services }) {
  const does = async ({ process, id, wake }) => {
    if (await change(`${process}:${id} is registered.`, 'POST', '/api/instances/spawn', { body: { process, id, wake: Boolean(wake) } })) {
      go(`/instances/${process}:${id}`);
    }
  };
  const fields = () => html`
    <${Service} id="spawn-service" services=${services} />
    <${Name} id="spawn-name" name="id" label="Name" hint="Small letters, digits, - and _, such as a customer's name." />
    <${Check} label="Wake it now" name="wake" defaultChecked=${true} />`;
  return html`<${Act} kind="primary" disabled=${!services.length} does=${does}
    confirm=${{ title: 'New instance', action: 'Register', fields }}>New instance<//>`;
}

export function Deploy({ services }) {
  const does = ({ process, version, weight, timeout }) =>
    change(`${process}:${version} is healthy and has the weight ${weight}.`, 'POST', '/api/deploy', {
      body: { process, version, weight: Number(weight), timeout: Number(timeout) },
    });
  const fields = () => html`
    <${Service} id="deploy-service" services=${services} />
    <${Name} id="deploy-version" name="version" label="Version" hint="The instance that is the new version, such as v2." />
    <${Field} label="Weight" id="deploy-weight" hint="Its share of the service's own host, once it is healthy.">
      <input id="deploy-weight" name="weight" type="number" min="0" max="1000" step="1" required defaultValue="100" aria-describedby="deploy-weight-hint" />
    <//>
    <${Field} label="Seconds to become healthy" id="deploy-timeout">
      <input id="deploy-timeout" name="timeout" type="number" min="1" max="3600" step="1" required defaultValue="60" />
    <//>`;
  return html`<${Act} disabled=${!services.length} does=${does} confirm=${{
    title: 'Deploy a version', action: 'Deploy', fields, text: 'It is started, and gets traffic only once it is healthy.',
  }}>Deploy…<//>`;
}

export function MoveWeight({ services }) {
  const does = ({ process, from, to }) =>
    change(`${process}:${to} has the traffic of ${process}:${from}.`, 'POST', '/api/route', { body: { process, from, to } });
  const fields = () => html`
    <${Service} id="route-service" services=${services} />
    <${Name} id="route-from" name="from" label="From" />
    <${Name} id="route-to" name="to" label="To" />`;
  return html`<${Act} disabled=${!services.length} does=${does} confirm=${{
    title: 'Move traffic', action: 'Move', fields, text: "All weight of one instance goes to another of the same service, in one step.",
  }}>Move traffic…<//>`;
}
