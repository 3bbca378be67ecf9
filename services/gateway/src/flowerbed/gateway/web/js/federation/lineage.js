// Checkpoints from the base to the newest, as a graph: each with its parents, its bytes, its worth.
import { post } from "../data/api.js";
import { may } from "../data/who.js";
import { bytes, metric, metricName, plural, seconds } from "../format.js";
import { Sheet, show } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { Bones, Copied, Digest, Empty, Note, Panel, When } from "../ui/parts.js";
import { html, useEffect, useState } from "../ui/view.js";
import { promote } from "./commands.js";
import { lanes } from "./lanes.js";
import { attempts } from "./store.js";

const FEW = 12;

export function LineagePanel({ store, view }) {
  const [all, setAll] = useState(false);
  const nodes = checkpoints(view);
  const note = nodes.length ? `${plural(nodes.length, "checkpoint")}, newest first; each made from the one its line leads to` : "";
  if (!nodes.length) {
    return html`<${Panel} id="lineage" title="Lineage"><${Empty} title="No checkpoint yet">
      <p>The base checkpoint is made as soon as the spec is accepted.</p><//><//>`;
  }
  const shown = all || nodes.length <= FEW + 2 ? nodes : [...nodes.slice(0, FEW), nodes.at(-1)];
  const past = store.then.value !== null;
  return html`<${Panel} id="lineage" title="Lineage" note=${note}>
    <ol class="lineage">${lanes(shown).map((row, place) => html`<${Node} key=${row.node.sha256 + row.node.round_number} row=${row} id=${store.id} past=${past}
      gap=${shown.length < nodes.length && place === FEW - 1} />`)}</ol>
    ${shown.length < nodes.length && html`<div class="inner"><button type="button" class="button" onClick=${() => setAll(true)}>
      Show the ${nodes.length - shown.length} between</button></div>`}
  <//>`;
}

// Newest first. What a checkpoint is worth is in its round's evaluation, not in its own record.
function checkpoints(view) {
  const scores = new Map(attempts(view).map((one) => [`${one.round_number}.${one.attempt}`, one.evaluation || {}]));
  return Object.values(view.artifacts)
    .filter((one) => one.kind !== "state")
    .map((one) => ({ ...one, scores: scores.get(`${one.round_number}.${one.attempt}`) || {} }))
    .sort((one, other) => other.round_number - one.round_number || other.attempt - one.attempt);
}

function Node({ row, id, past, gap }) {
  const { node } = row;
  const scores = Object.entries(node.scores).slice(0, 3);
  const operates = may("operator", node.tenant);
  return html`<li class="node ${gap ? "gap" : ""} ${node.revoked_at ? "revoked" : ""}" data-sha256=${node.sha256}>
    <${Rail} row=${row} />
    <div class="node-main">
      <div class="node-head"><b>${node.kind === "base" ? "Base" : `Round ${node.round_number}`}</b>
        <${Digest} sha256=${node.sha256} />
        ${node.channels.map((one) => html`<span class="tag strong">${one}</span>`)}
        ${node.revoked_at && html`<span class="tag">revoked${node.revoked_reason ? `: ${node.revoked_reason}` : ""}</span>`}</div>
      <div class="node-facts small quiet">
        <span>${bytes(node.size)}</span>
        ${node.parents.length > 0 && html`<span>from <span class="mono">${node.parents.map((one) => one.slice(0, 8)).join(", ")}</span></span>`}
        ${scores.map(([key, value]) => html`<span>${metricName(key)} <b class="numbers">${metric(value)}</b></span>`)}
        <span>recorded <${When} at=${node.recorded_at} as="clock" /></span></div>
    </div>
    <div class="node-end">
      <button type="button" class="button tight plain" disabled=${!operates} onClick=${() => verify(id, node)}><${Icon} name="check" />Verify</button>
      <button type="button" class="button tight plain" onClick=${() => download(node)}><${Icon} name="download" />Download</button>
      <button type="button" class="button tight plain" disabled=${!operates || past || node.kind === "base" || Boolean(node.revoked_at)}
        onClick=${() => promote(id, node)}><${Icon} name="star" />Promote</button>
    </div></li>`;
}

const LANE = 14;

function Rail({ row }) {
  const x = (lane) => 10 + lane * LANE;
  const wide = 20 + row.width * LANE;
  return html`<div class="rail" style=${{ width: `${wide}px` }}><svg aria-hidden="true" focusable="false">
    ${row.through.map((lane) => html`<line x1=${x(lane)} x2=${x(lane)} y1="0" y2="100%" />`)}
    ${row.above.map((lane) => html`<line x1=${x(lane)} x2=${x(row.lane)} y1="0" y2="22" />`)}
    ${row.below.map((lane) => html`<line x1=${x(row.lane)} x2=${x(lane)} y1="22" y2="100%" />`)}
    <circle cx=${x(row.lane)} cy="22" r=${row.node.channels.length ? 6.5 : 5}
      class=${row.node.kind === "base" ? "base" : row.node.channels.length ? "promoted" : ""} /></svg></div>`;
}

// --- what can be done with one ----------------------------------------------

function verify(id, node) {
  show("Verify a checkpoint", () => html`<${Verification} id=${id} node=${node} />`, { wide: true });
}

function Verification({ id, node }) {
  const [result, setResult] = useState(null);
  const [error, setError] = useState("");
  useEffect(() => {
    post(`/artifacts/${encodeURIComponent(id)}/${node.round_number}/verify`).then(setResult, (one) => setError(one.message));
  }, []);
  const base = node.kind === "base";
  return html`<${Sheet} title="Verify ${base ? "the base" : `round ${node.round_number}`}">
    <p>${base ? "The app makes its first weights again" : "The round’s accepted updates are folded again, in cohort order"}; the bytes must be those that were recorded.</p>
    ${error ? html`<${Note} tone="bad" icon="cross">${error}<//>` : !result ? html`<${Bones} lines=${2} />` : html`
      <div data-verified=${result.identical}><${Note} tone=${result.identical ? "ok" : "bad"} icon=${result.identical ? "check" : "cross"}>
        ${result.identical ? "The same bytes" : "These are not the same bytes"}, from ${plural(result.n_updates, "update")} in ${seconds(result.seconds)}.<//></div>
      <dl class="terms"><dt>recorded</dt><dd class="mono small">${result.expected}</dd><dt>made again</dt><dd class="mono small">${result.actual}</dd></dl>`}
  <//>`;
}

function download(node) {
  const file = `${node.kind === "base" ? "base" : `round-${node.round_number}`}.safetensors`;
  show("Download a checkpoint", () => html`<${Sheet} title="Download ${file}">
    <p>Weights go between S3 and you, never through this page. The command checks the sha256 before the file appears:</p>
    <${Copied} what="The command" text="flowerbed artifact download ${node.sha256} --to ${file}" />
    <dl class="terms"><dt>sha256</dt><dd class="mono small">${node.sha256}</dd>
      <dt>size</dt><dd>${bytes(node.size)}</dd><dt>where</dt><dd class="mono small">${node.uri}</dd></dl><//>`, { wide: true });
}
