// The top of the page: state, the sentence that says why, the figures that matter.
import { now } from "../clock.js";
import { ENDED } from "../data/list.js";
import { between, metric, metricName, percent, plural, seconds, short, shortLabel, time, whole } from "../format.js";
import { Badge, Bar, toneOf } from "../ui/status.js";
import { Copied, When } from "../ui/parts.js";
import { Icon } from "../ui/icons.js";
import { html } from "../ui/view.js";
import { Buttons } from "./commands.js";
import { attempts } from "./store.js";

export function Head({ store, view }) {
  const { federation } = view;
  return html`
    <div class="page-head federation-head">
      <div><h1>${federation.name || short(federation.federation_id)}</h1>
        <div class="federation-line">
          <${Badge} status=${federation.status} />
          <span class="mono small quiet">${federation.federation_id}</span>
          <span class="small quiet">tenant ${federation.tenant}</span>
          <span class="small quiet">submitted <${When} at=${federation.created_at} as="day" /></span>
        </div></div>
      <${Buttons} store=${store} view=${view} />
    </div>
    <${WhySentence} why=${view.why} federation=${federation} past=${store.then.value !== null} />
    ${federation.status !== "rejected" && html`<${Figures} store=${store} view=${view} />`}`;
}

// --- why --------------------------------------------------------------------

const WHY_TONE = { completed: "ok", failed: "bad", rejected: "bad", cancelled: "idle" };

const MOVES = 5000; // a running federation that has waited for less than this only says its sentence

function WhySentence({ why, federation, past }) {
  if (!why) return null;
  const ended = ENDED.includes(why.status);
  const moves = federation.status === "running" && !why.is_overdue && why.waits.code !== "parked"
    && (past || now.value - time(why.since) < MOVES);
  const tone = WHY_TONE[why.status] || (why.is_overdue || why.waits.code === "parked" ? "bad"
    : why.status === "paused" || why.waits.code.includes("clients-") && !federation.round_number ? "warn" : "accent");
  return html`<section class="why tone-${tone}" aria-label="Why" data-code=${why.waits.code}>
    <p class="why-sentence">${ended ? sentenceCase(why.waits.what) : `Waits for ${withoutIds(why.waits.what)}`}
      ${why.is_overdue && html`<span class="badge tone-bad"><${Icon} name="warn" />overdue</span>`}</p>
    ${!moves && why.on?.length > 0 && html`<ul class="why-on">${why.on.slice(0, 6).map((one) => html`
      <li><strong>${one.kind === "client" ? shortLabel(one.label) || one.id : one.id}</strong> ${one.doing}</li>`)}
      ${why.on.length > 6 && html`<li class="quiet">and ${plural(why.on.length - 6, "more", "more")}</li>`}</ul>`}
    ${!moves && !ended && html`<${Then} why=${why} past=${past} />`}
    ${why.last_error && html`<${LastError} error=${why.last_error} />`}
    ${!moves && why.hints?.length > 0 && html`<details class="why-more"><summary>What you can run next</summary>
      <div class="stack tight-stack">${why.hints.map((hint) => html`<${Copied} text=${hint} what="The command" />`)}</div></details>`}
  </section>`;
}

function Then({ why, past }) {
  if (!why.since && !why.until) return null;
  return html`<p class="why-then small">
    ${why.since && html`since <${When} at=${why.since} as="clock" />${past ? "" : html` (<${When} at=${why.since} />)`}`}
    ${why.until && html`${why.since ? ", " : ""}at the latest <${When} at=${why.until} as=${past ? "day" : "until"} />`}
    ${why.then && html`, then ${why.then}`}</p>`;
}

function LastError({ error }) {
  const who = error.client_id ? shortLabel(error.label) || error.client_id : error.where;
  return html`<details class="why-more"><summary>Last error: ${error.detail || error.code}
      <span class="quiet"> ${who}, <${When} at=${error.at} /></span></summary>
    <pre class="traceback" tabindex="0">${error.traceback || `${error.code}: ${error.detail}`}</pre></details>`;
}

// Who they are stands below, by the names that people know them by.
function withoutIds(text) {
  return text.replace(/ \((client-[0-9a-f]+(, )?)+\)/g, "");
}

function sentenceCase(text) {
  return text.replace(/^./, (first) => first.toUpperCase());
}

// --- figures ----------------------------------------------------------------

function Figures({ store, view }) {
  const { federation } = view;
  const rounds = attempts(view);
  const done = rounds.filter((one) => one.status === "completed");
  const clients = Object.values(view.clients);
  const joined = clients.filter((one) => one.status === "joined").length;
  const share = federation.n_rounds ? federation.n_rounds_completed / federation.n_rounds : 0;
  const what = federation.spec?.spec?.server_app === "whole" ? "exchanges" : "rounds";
  return html`<dl class="figures">
    <div class="figure"><dt>${sentenceCase(what)} done</dt>
      <dd>${federation.n_rounds_completed}<small> of ${federation.n_rounds || "?"}</small></dd>
      <dd class="below"><${Bar} share=${share} label="${percent(share)} of the ${what} are done"
        tone=${federation.status === "running" ? "" : toneOf(federation.status)} /></dd></div>
    ${measured(done).map((one) => html`<div class="figure" data-metric=${one.key}><dt>${metricName(one.key)}</dt>
      <dd>${metric(one.value)}</dd><dd class="below">${one.change}</dd></div>`)}
    <div class="figure"><dt>Clients</dt>
      <dd>${ENDED.includes(federation.status) ? clients.length : joined}<small> ${ENDED.includes(federation.status)
        ? "took part" : `joined of ${clients.length}`}</small></dd>
      <dd class="below">at least ${federation.spec?.spec?.min_clients ?? "?"} needed</dd></div>
    <${RoundTime} done=${done} />
    <${Lasted} federation=${federation} then=${store.then.value} events=${store.history.events.value} />
  </dl>`;
}

// The two that tell most: how good it is, and its loss; each with its change since the round before.
function measured(done) {
  const latest = done.filter((one) => Object.keys(one.evaluation || {}).length).slice(-2);
  if (!latest.length) return [];
  const newest = latest.at(-1).evaluation;
  const before = latest.length > 1 ? latest[0].evaluation : {};
  const keys = [Object.keys(newest).find((key) => !/loss/i.test(key)), Object.keys(newest).find((key) => /loss/i.test(key))];
  return keys.filter(Boolean).map((key) => ({ key, value: newest[key], change: change(before[key], newest[key]) }));
}

function change(before, after) {
  if (before === undefined) return "first evaluation";
  const by = after - before;
  if (Math.abs(by) < 0.00005) return "as in the round before";
  return `${by > 0 ? "+" : "−"}${Math.abs(by).toFixed(4)} since the round before`;
}

function RoundTime({ done }) {
  const times = done.map((one) => one.total_seconds).filter((one) => one !== null && one !== undefined)
    .sort((one, other) => one - other);
  if (!times.length) return html`<div class="figure"><dt>Round time</dt><dd>–</dd><dd class="below">no round is done</dd></div>`;
  const middle = times[Math.floor(times.length / 2)];
  const last = done.at(-1);
  const overhead = last.total_seconds - (last.train_seconds || 0) - (last.evaluate_seconds || 0);
  return html`<div class="figure"><dt>Round time, median</dt><dd>${seconds(middle)}</dd>
    <dd class="below">${seconds(Math.max(0, overhead))} of the last beside training</dd></div>`;
}

function Lasted({ federation, then, events }) {
  const from = federation.started_at || federation.created_at;
  const frozen = then && events.findLast((one) => one.position <= then.at)?.recorded_at;
  const to = federation.ended_at || frozen || new Date(now.value).toISOString();
  const word = federation.started_at ? (federation.ended_at ? "Ran for" : "Running for") : "Waiting for";
  return html`<div class="figure"><dt>${word}</dt><dd>${whole(Math.max(0, between(from, to) || 0))}</dd>
    <dd class="below">since <${When} at=${from} as="clock" /></dd></div>`;
}

