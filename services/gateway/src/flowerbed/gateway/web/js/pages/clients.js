// Everyone who may train: invited, enrolled, revoked; how long each certificate lasts; a new invite.
import { now } from "../clock.js";
import { get, pages, post } from "../data/api.js";
import { Stream } from "../data/stream.js";
import { tenant } from "../data/tenant.js";
import { mayAnywhere } from "../data/who.js";
import { day, plural, seconds, time } from "../format.js";
import { route, setQuery } from "../router.js";
import { Sheet, show } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { Bones, Copied, Empty, Note, When } from "../ui/parts.js";
import { Badge, Bar } from "../ui/status.js";
import { html, useEffect, useState } from "../ui/view.js";

const TYPES = ["invited", "enrolled", "certificate_renewed", "revoked", "joined", "dropped", "released"]
  .map((fact) => `fl.client.${fact}`);

// The list, read again shortly after something has happened to a client.
function useClients() {
  const [state, setState] = useState({ clients: null, error: "" });
  useEffect(() => {
    let [stopped, timer, stream] = [false, null, null];
    const load = async () => {
      timer = null;
      try {
        const clients = await pages("/clients", "clients", { limit: 500 }, 5000);
        if (!stopped) setState({ clients, error: "" });
      } catch (error) {
        if (!stopped) setState((before) => ({ ...before, error: error.message }));
      }
    };
    const soon = () => { timer ??= setTimeout(load, 400); };
    get("/events/last").then(({ position }) => {
      if (!stopped) stream = new Stream("/events", { query: { type: TYPES }, after: position, on: soon }).start();
    }, () => {});
    load();
    return () => {
      stopped = true;
      clearTimeout(timer);
      stream?.stop();
    };
  }, []);
  return state;
}

export function ClientsPage() {
  const { clients, error } = useClients();
  useEffect(() => { document.title = "Clients · Flowerbed"; }, []);
  const { state = "", q = "" } = route.value.query;
  const rows = (clients || []).filter((one) => (!state || statusOf(one) === state)
    && `${one.client_id} ${one.tenant} ${one.tags.join(" ")}`.toLowerCase().includes(q.toLowerCase()));
  return html`
    <div class="page-head"><div><h1>Clients</h1><p>${clients && summary(clients)}</p></div>
      <div class="page-head-end">${mayAnywhere("admin") && html`<button type="button" class="button primary" onClick=${invite}><${Icon} name="plus" />Invite a client</button>`}</div></div>
    ${error && html`<${Note} tone="bad" icon="cross">${error}<//>`}
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <input class="input search" type="search" id="search" placeholder="Search by id, tag or tenant" aria-label="Search by id, tag or tenant"
        value=${q} onInput=${(event) => setQuery({ q: event.target.value })} />
      <select class="input" aria-label="State" value=${state} onChange=${(event) => setQuery({ state: event.target.value })}>
        <option value="">All states</option>${["enrolled", "invited", "expired", "revoked"].map((one) => html`<option value=${one}>${one}</option>`)}</select></form>
    <section class="panel" aria-label="Clients">${clients === null ? html`<${Bones} />`
      : rows.length === 0 ? html`<${Empty} title=${clients.length ? "None matches" : "Nobody is enrolled yet"}><p>Invite a client, then start its agent with the invite.</p><//>`
      : html`<table class="table"><thead><tr><th>Client</th><th>State</th><th>Tags</th><th>Certificate</th><th>Federations</th><th>Since</th></tr></thead>
        <tbody>${rows.slice(0, 300).map((one) => html`<${Row} key=${one.client_id} client=${one} />`)}</tbody></table>`}
      ${rows.length > 300 && html`<p class="inner small quiet">The first 300 of ${rows.length} are shown; search for the others.</p>`}
    </section>`;
}

// An invite that nobody used, and a certificate that ran out, admit nobody any more.
function statusOf(client) {
  const over = (moment) => moment && time(moment) < now.value;
  if (client.status === "invited" && over(client.invite_expires_at)) return "expired";
  if (client.status === "enrolled" && over(client.certificate_expires_at)) return "expired";
  return client.status;
}

function summary(clients) {
  const of = (status) => clients.filter((one) => statusOf(one) === status).length;
  return [`${of("enrolled")} enrolled`, `${of("invited")} invited`, of("expired") && `${of("expired")} expired`,
    of("revoked") && `${of("revoked")} revoked`].filter(Boolean).join(" · ");
}

function Row({ client }) {
  return html`<tr data-client=${client.client_id}>
    <td data-label=""><span><span class="name mono">${client.client_id}</span><span class="under">tenant ${client.tenant}</span></span></td>
    <td data-label="State"><span><${Badge} status=${statusOf(client)} />${client.reason && html`<span class="under">${client.reason}</span>`}</span></td>
    <td data-label="Tags"><span>${client.tags.map((one) => html`<span class="tag">${one}</span> `)}</span></td>
    <td data-label="Certificate"><${Certificate} client=${client} /></td>
    <td data-label="Federations"><span><${Memberships} client=${client} /></span></td>
    <td data-label="Since" class="nowrap"><${When} at=${client.enrolled_at || client.invited_at} as="day" /></td></tr>`;
}

function Memberships({ client }) {
  const { n_joined: joined, n_dropped: dropped, n_federations: all } = client;
  if (!all) return html`<span class="quiet">none yet</span>`;
  return html`${joined > 0 && html`<${Badge} status="joined" word="joined in ${joined}" bare /> `}${
    dropped > 0 && html`<${Badge} status="dropped" word="dropped in ${dropped}" bare /> `}<span class="quiet small">${
    joined || dropped ? `of ${all}` : `${plural(all, "federation")}, none open`}</span>`;
}

const WARN = 2 * 86_400; // agents renew at half of a certificate's life: less than this is late

function Certificate({ client }) {
  if (client.status === "invited") {
    return html`<span class="small quiet">the invite ends <${When} at=${client.invite_expires_at} as="until" /></span>`;
  }
  if (!client.certificate_expires_at) return html`<span class="quiet">–</span>`;
  const left = (time(client.certificate_expires_at) - now.value) / 1000;
  const whole = Math.max(left, 7 * 86_400);
  const tone = left <= 0 ? "bad" : left < WARN ? "warn" : "ok";
  return html`<div class="certificate"><${Bar} share=${Math.max(0, left) / whole} tone=${tone} label="Certificate of ${client.client_id}: ${seconds(Math.max(0, left))} left" />
    <span class="small">${left > 0 ? `${seconds(left)} left` : "ran out"}<span class="quiet">, until ${day(client.certificate_expires_at)}</span></span></div>`;
}

// --- invites ----------------------------------------------------------------

function invite() {
  show("Invite a client", () => html`<${Invite} />`, { wide: true });
}

function Invite() {
  const [made, setMade] = useState(null);
  const [error, setError] = useState("");
  async function make(event) {
    event.preventDefault();
    const given = new FormData(event.target);
    const tags = String(given.get("tags")).split(/[\s,]+/).filter(Boolean);
    try {
      setMade(await post("/clients/invites", { tenant: given.get("tenant"), tags, ttl_seconds: Number(given.get("hours")) * 3600 }));
    } catch (failure) {
      setError(failure.message);
    }
  }
  if (made) {
    return html`<${Sheet} title="The invite, shown once">
      <p>Give it to the site by a way that you trust. It admits one client and ends <${When} at=${made.expires_at} as="until" />. It is not kept anywhere.</p>
      <${Copied} what="The invite" text=${made.invite} />
      <p class="small">At the site, with the invite on standard input: <code>flowerbed client start --invite - --dataset local:FOLDER</code></p><//>`;
  }
  return html`<form onSubmit=${make}><h2>Invite a client</h2>
    <p>An invite is a key that one client uses once to enrol. Federations choose clients by their tags.</p>
    <label class="field">Tags<input class="input" name="tags" placeholder="hospital, north" autocomplete="off" autofocus /></label>
    <label class="field">Tenant<input class="input" name="tenant" value=${tenant.value || "default"} required pattern="[A-Za-z0-9_\\-]{1,64}" autocomplete="off" /></label>
    <label class="field">Good for<select class="input" name="hours"><option value="1">1 hour</option><option value="24" selected>1 day</option><option value="168">7 days</option></select></label>
    ${error && html`<div role="alert"><${Note} tone="bad" icon="cross">${error}<//></div>`}
    <div class="dialog-end"><button type="submit" class="button primary">Make the invite</button></div></form>`;
}

