// Do sites get to work, do rounds end in time, are checkpoints there soon: against what was promised.
import { get } from "../data/api.js";
import { clock, count, percent, seconds } from "../format.js";
import { route, setQuery } from "../router.js";
import { Badge, Bar } from "../ui/status.js";
import { Bones, Note } from "../ui/parts.js";
import { html, useEffect } from "../ui/view.js";
import { useAsked } from "./services.js";

const AGAIN = 30_000;
const NAMES = { joins: "Join success rate", rounds: "Rounds completed", artifacts: "Artifact availability" };
const WINDOWS = [[24, "Last day"], [24 * 7, "Last 7 days"], [24 * 28, "Last 28 days"], [24 * 90, "Last 90 days"]];

export function SlosPage() {
  useEffect(() => { document.title = "SLOs · Flowerbed"; }, []);
  const hours = Number(route.value.query.hours) || 24 * 28;
  return html`<div class="page-head"><div><h1>Service levels</h1>
      <p>What users feel, against what was promised, and how much may still go wrong.</p></div>
      <div class="page-head-end"><select class="input" aria-label="Window" value=${hours} onChange=${(event) => setQuery({ hours: event.target.value })}>
        ${WINDOWS.map(([value, name]) => html`<option value=${value} selected=${value === hours}>${name}</option>`)}</select></div></div>
    <${Levels} key=${hours} hours=${hours} />`;
}

function Levels({ hours }) {
  const { answer, error, at } = useAsked(() => get("/slo", { hours }), AGAIN);
  if (error && !answer) return html`<${Note} tone="bad" icon="cross">${error}<//>`;
  if (!answer) return html`<section class="panel"><${Bones} /></section>`;
  return html`<div class="stack">
    <dl class="figures">${answer.indicators.map((one) => html`<${Figure} key=${one.name} indicator=${one} />`)}</dl>
    <div class="cards wide-cards">${answer.indicators.map((one) => html`<${Card} key=${one.name} indicator=${one} />`)}</div>
    <p class="small quiet">Counted since ${new Date(answer.since).toLocaleDateString("en-GB")}, as of ${clock(at)}.</p></div>`;
}

// The figure that people ask for by name: the rate for joins, the time for rounds and artifacts.
function Figure({ indicator }) {
  const timed = indicator.p95_seconds != null;
  const titles = { joins: "Join success rate", rounds: "Round time, p95", artifacts: "Artifact there after, p95" };
  return html`<div class="figure"><dt>${titles[indicator.name] || indicator.name}</dt>
    <dd>${timed ? seconds(indicator.p95_seconds) : indicator.ratio == null ? "–" : percent(indicator.ratio, 1)}</dd>
    <dd class="below">${timed ? `median ${seconds(indicator.p50_seconds)}` : `${count(indicator.good)} of ${count(indicator.total)}`}</dd></div>`;
}

function state({ ratio, objective, budget_left: left }) {
  if (ratio == null) return "no data yet";
  if (ratio < objective) return "missed";
  return left < 0.25 ? "near" : "met";
}

const TONES = { met: "ok", near: "warn", missed: "bad", "no data yet": "idle" };

function Card({ indicator }) {
  const now = state(indicator);
  const left = indicator.budget_left;
  return html`<section class="panel" aria-labelledby="slo-${indicator.name}" data-slo=${indicator.name} data-state=${now}>
    <div class="card-head"><h2 id="slo-${indicator.name}">${NAMES[indicator.name] || indicator.name}</h2><${Badge} status=${now} /></div>
    <div class="card-body slo">
      <p class="slo-ratio numbers">${percent(indicator.ratio, 2)}<small> objective ${percent(indicator.objective, 1)}</small></p>
      <p class="small quiet">${indicator.means}: ${count(indicator.good)} of ${count(indicator.total)}</p>
      <div class="slo-budget"><div class="meter-row"><span>Error budget left</span><span class="numbers">${left == null ? "not known" : percent(left)}</span></div>
        <${Bar} share=${left ?? 0} tone=${TONES[now]} label="Error budget left: ${left == null ? "not known" : percent(left)}" /></div>
      ${indicator.total > 0 && html`<p class="small quiet">${allowed(indicator)}</p>`}
    </div></section>`;
}

function allowed({ total, good, objective }) {
  const may = +(total * (1 - objective)).toFixed(1);
  return `${count(total - good)} of ${count(total)} went wrong; the objective allows ${count(may)}.`;
}
