// What became of each client's answer in the round, and why.
import { count, metric, metricName, seconds, short } from "../format.js";
import { Badge } from "../ui/status.js";
import { When } from "../ui/parts.js";
import { html } from "../ui/view.js";

const MOST = 100;
const WORDS = { train: "training", evaluate: "evaluation" };

export function Updates({ updates, label, attempts }) {
  const rows = [...updates].sort((one, other) => one.attempt - other.attempt
    || other.exchange.localeCompare(one.exchange) || (one.place ?? 1e9) - (other.place ?? 1e9));
  return html`<h3 class="inner-title">Update decisions</h3>
    <table class="table"><thead><tr><th>Client</th><th>For</th><th>Decision</th><th>Reason</th>
      <th class="right">Examples</th><th class="right">Trained</th><th>Metrics</th><th>Update</th><th>Decided</th></tr></thead>
    <tbody>${rows.slice(0, MOST).map((one) => html`<tr key=${`${one.attempt}.${one.exchange}.${one.client_id}`}>
      <td data-label="Client"><span class="nowrap">${label(one.client_id)}</span></td>
      <td data-label="For"><span>${WORDS[one.exchange]}${attempts > 1 ? `, attempt ${one.attempt}` : ""}</span></td>
      <td data-label="Decision"><span><${Badge} status=${one.status} bare /></span></td>
      <td data-label="Reason" class="reason"><span>${reason(one)}</span></td>
      <td data-label="Examples" class="right">${count(one.n_examples)}</td>
      <td data-label="Trained" class="right nowrap">${seconds(one.train_seconds)}</td>
      <td data-label="Metrics" class="small"><span>${metrics(one.metrics)}</span></td>
      <td data-label="Update" class="mono small">${one.sha256 ? html`<span title=${one.sha256}>${short(one.sha256, 10)}</span>` : "–"}</td>
      <td data-label="Decided" class="nowrap"><${When} at=${one.decided_at || one.reported_at} as="clock" /></td></tr>`)}
    </tbody></table>
    ${rows.length > MOST && html`<p class="inner small quiet">The first ${MOST} of ${rows.length} are shown.</p>`}`;
}

const PLAIN = {
  accepted: "passed screening", asked: "has not answered yet", submitted: "waits for screening",
  replaced: "left before it answered; another took its place",
};

function reason(update) {
  if (update.code || update.detail) {
    return html`<span class="errors">${[update.code, update.detail].filter(Boolean).join(": ")}</span>`;
  }
  return html`<span class="quiet">${PLAIN[update.status] || "–"}</span>`;
}

function metrics(given) {
  const entries = Object.entries(given || {}).slice(0, 3);
  if (!entries.length) return "–";
  return entries.map(([key, value]) => `${metricName(key)} ${metric(value)}`).join(" · ");
}

