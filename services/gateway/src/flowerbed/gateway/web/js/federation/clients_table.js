// Each client of the federation: its lease, and how it did in the newest round that it answered.
import { count, metric, plural } from "../format.js";
import { Badge } from "../ui/status.js";
import { Empty, Panel, Unknown, When } from "../ui/parts.js";
import { html } from "../ui/view.js";
import { bothNames } from "./labels.js";

const MOST = 100;
const NO_TOKENS = "the app reports no number of tokens with its updates";
const NO_JOULES = "its runner has not said what energy the training took";
const REASONS = {
  "no-counter": "the site's machine has no energy counter",
  "no-library": "the library that reads the site's energy counter is not installed",
  "not-permitted": "the runner may not read the energy counter of the site's machine",
  "not-readable": "the energy counter of the site's machine could not be read",
};
const NO_ANSWER = "it has not answered in the rounds shown here";

export function ClientsTable({ view }) {
  const clients = Object.values(view.clients);
  const answers = byClient(Object.values(view.updates));
  const rows = clients.slice(0, MOST);
  return html`<${Panel} id="clients" title="Clients" note=${clients.length ? plural(clients.length, "client") : ""}>
    ${rows.length === 0 ? html`<${Empty} title="Nobody was offered a lease">
      <p>Clients whose tags match ${tags(view)} are offered one as soon as their agent asks for work.</p><//>`
    : html`<table class="table"><thead><tr><th>Client</th><th>Tags</th><th>Lease</th><th class="right">Epoch</th>
        <th class="right">Examples</th><th class="right">Tokens/s</th><th class="right">Watts</th><th>Joined</th><th>Last error</th></tr></thead>
      <tbody>${rows.map((one) => html`<${Row} key=${one.client_id} client=${one} names=${bothNames(view, one.client_id)}
        answers=${answers.get(one.client_id) || []} />`)}</tbody></table>`}
    ${clients.length > MOST && html`<p class="inner small quiet">The first ${MOST} of ${clients.length} are shown.</p>`}
  <//>`;
}

function tags(view) {
  const wanted = view.federation.spec?.spec?.client_selector?.tags || [];
  return wanted.length ? `“${wanted.join(", ")}”` : "the selector";
}

// Newest first.
function byClient(updates) {
  const found = new Map();
  for (const one of updates) found.set(one.client_id, [...(found.get(one.client_id) || []), one]);
  for (const mine of found.values()) {
    mine.sort((one, other) => other.round_number - one.round_number || other.attempt - one.attempt);
  }
  return found;
}

function Row({ client, names, answers }) {
  const trained = answers.find((one) => one.exchange === "train" && one.n_examples != null);
  const failed = answers.find((one) => ["failed", "rejected", "quarantined"].includes(one.status));
  return html`<tr data-client=${client.client_id}>
    <td data-label=""><span><span class="name">${names[0]}</span><span class="under mono">${names[1]}</span></span></td>
    <td data-label="Tags"><span>${(client.tags || []).map((one) => html`<span class="tag">${one}</span> `)}</span></td>
    <td data-label="Lease"><span><${Badge} status=${client.status} bare /></span></td>
    <td data-label="Epoch" class="right">${client.epoch}</td>
    <td data-label="Examples" class="right">${trained ? count(trained.n_examples) : html`<${Unknown} why=${NO_ANSWER} />`}</td>
    <td data-label="Tokens/s" class="right"><${Rate} update=${trained} field="n_tokens" why=${NO_TOKENS} /></td>
    <td data-label="Watts" class="right"><${Rate} update=${trained} field="joules" why=${NO_JOULES} /></td>
    <td data-label="Joined" class="nowrap"><${When} at=${client.joined_at} as="day" /></td>
    <td data-label="Last error" class="reason"><span>${trouble(client, failed)}</span></td></tr>`;
}

function Rate({ update, field, why }) {
  if (!update) return html`<${Unknown} why=${NO_ANSWER} />`;
  const amount = update[field];
  if (amount == null || !update.train_seconds) return html`<${Unknown} why=${because(update[`${field}_reason`]) || why} />`;
  return metric(amount / update.train_seconds);
}

function because(code) {
  return code && (REASONS[code] || code.replace(/-/g, " "));
}

function trouble(client, failed) {
  if (failed) {
    return html`<span class="errors">${[failed.code, failed.detail].filter(Boolean).join(": ")}</span>
      <span class="under">round ${failed.round_number}</span>`;
  }
  if (client.reason && client.status !== "released") return html`<span class="errors">${client.reason}</span>`;
  return html`<span class="quiet">none</span>`;
}
