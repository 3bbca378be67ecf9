// All federations: where each stands, how far it is, and in plain words what it waits for.
import { ENDED, FederationList } from "../data/list.js";
import { now } from "../clock.js";
import { dayAndClock, percent, plural, short } from "../format.js";
import { go, link, route, setQuery } from "../router.js";
import { useKeys } from "../shell.js";
import { Badge, Bar, toneOf } from "../ui/status.js";
import { Bones, Copied, Empty, Note, useChanged, When } from "../ui/parts.js";
import { html, useEffect, useMemo } from "../ui/view.js";

const STATES = ["running", "created", "paused", "completed", "failed", "cancelled", "rejected", "submitted"];

export function FederationsPage() {
  const list = useMemo(() => new FederationList(), []);
  useEffect(() => {
    document.title = "Federations · Flowerbed";
    list.start();
    return () => list.stop();
  }, [list]);
  useKeys({ "/": () => document.getElementById("search")?.focus() });
  const rows = list.rows.value;
  return html`
    <div class="page-head"><div><h1>Federations</h1><p>${rows && summary(rows)}</p></div></div>
    ${list.error.value && html`<${Note} tone="bad" icon="cross">${list.error.value}<//>`}
    ${rows === null ? html`<section class="panel"><${Bones} lines=${4} /></section>` : html`<${Found} rows=${rows} />`}`;
}

function summary(rows) {
  if (!rows.length) return "None yet.";
  const active = rows.filter((one) => !ENDED.includes(one.status));
  const running = active.filter((one) => one.status === "running").length;
  const waiting = active.length - running;
  const failed = rows.filter((one) => one.status === "failed").length;
  return [`${running} running`, waiting && `${waiting} waiting`, failed && `${failed} failed`,
    `${rows.length} in all`].filter(Boolean).join(" · ");
}

function Found({ rows }) {
  if (!rows.length) {
    return html`<section class="panel"><${Empty} title="No federation was submitted yet">
      <p>Publish a FederationSpec and watch it grow here:</p>
      <div class="stack"><${Copied} what="The command" text="flowerbed federation submit examples/hospital.yaml" /></div>
    <//></section>`;
  }
  const { state = "", tenant = "", q = "" } = route.value.query;
  const shown = rows.filter((one) => (!state || one.status === state) && (!tenant || one.tenant === tenant)
    && `${one.name} ${one.federation_id}`.toLowerCase().includes(q.toLowerCase()));
  const tenants = [...new Set(rows.map((one) => one.tenant))].sort();
  return html`
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <input class="input search" id="search" type="search" placeholder="Search by name or id"
        aria-label="Search by name or id" value=${q} onInput=${(event) => setQuery({ q: event.target.value })} />
      <${Choice} name="state" label="State" all="All states" value=${state}
        options=${STATES.filter((one) => rows.some((row) => row.status === one) || one === state)} />
      <${Choice} name="tenant" label="Tenant" all="All tenants" value=${tenant} options=${tenants} />
    </form>
    <section class="panel" aria-label="Federations">
      ${shown.length === 0 ? html`<${Empty} title="None matches"><p>Change the filters above.</p><//>` : html`
      <table class="table"><thead><tr><th>Federation</th><th>State</th><th>Progress</th>
        <th class="right">Clients</th><th>Last activity</th><th>Why</th></tr></thead>
        <tbody>${shown.map((one) => html`<${Row} key=${one.federation_id} row=${one} />`)}</tbody></table>`}
    </section>`;
}

function Choice({ name, label, all, value, options }) {
  return html`<select class="input" aria-label=${label} value=${value}
    onChange=${(event) => setQuery({ [name]: event.target.value })}>
    <option value="">${all}</option>${options.map((one) => html`<option value=${one}>${one}</option>`)}</select>`;
}

function Row({ row }) {
  const changed = useChanged(`${row.status} ${row.round_number} ${row.n_rounds_completed}`);
  const done = row.n_rounds ? row.n_rounds_completed / row.n_rounds : 0;
  const open = (event) => event.target.closest("a, button") || go("federations", row.federation_id);
  return html`<tr class="goes ${changed}" onClick=${open} data-federation=${row.federation_id}
      data-status=${row.status} data-round=${row.round_number} data-position=${row.position || ""}>
    <td data-label=""><span><a class="name" href=${link("federations", row.federation_id)}>${row.name || short(row.federation_id)}</a>
      <span class="under"><span class="mono">${row.federation_id}</span> · ${row.tenant}</span></span></td>
    <td data-label="State"><span><${Badge} status=${row.status} /></span></td>
    <td data-label="Progress"><div class="progress-cell">
      <${Bar} share=${done} tone=${row.status === "running" ? "" : toneOf(row.status)}
        label="${row.name}: ${percent(done)} of its rounds" />
      <span>${row.n_rounds_completed}<span class="quiet"> / ${row.n_rounds || "–"}</span></span></div></td>
    <td data-label="Clients" class="right">${row.n_clients ?? html`<span class="quiet">–</span>`}</td>
    <td data-label="Last activity" class="nowrap"><${When} at=${row.updated_at} /></td>
    <td data-label="Why" class="reason">${reason(row)}</td>
  </tr>`;
}

// "…, until 2026-11-26 00:31:09 UTC" as this browser's clock has it.
function withTimes(text) {
  return text.replace(/ \((client-[0-9a-f]+(, )?)+\)/g, "").replace(
    /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/g, (_, date, at) => dayAndClock(`${date}T${at}Z`, now.value));
}

function reason(row) {
  if (row.waiting_for) return withTimes(row.waiting_for);
  if (row.reason) return row.reason;
  if (row.status === "running" && row.round_number) {
    return `round ${row.round_number} of ${row.n_rounds}${row.doing ? `, ${row.doing}` : ""}`;
  }
  if (row.status === "completed") return html`<span class="quiet">nothing: all ${plural(row.n_rounds, "round")} done</span>`;
  return html`<span class="quiet">–</span>`;
}
