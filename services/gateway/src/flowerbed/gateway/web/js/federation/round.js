// All rounds at a glance, and one of them in detail: its waterfall and what became of each update.
import { ENDED } from "../data/list.js";
import { metric, metricName, plural, seconds, short } from "../format.js";
import { route, setQuery } from "../router.js";
import { useKeys } from "../shell.js";
import { Badge } from "../ui/status.js";
import { Bones, Empty, Panel } from "../ui/parts.js";
import { Icon } from "../ui/icons.js";
import { html } from "../ui/view.js";
import { labels } from "./labels.js";
import { attempts } from "./store.js";
import { Updates } from "./updates.js";
import { Waterfall } from "./waterfall.js";

export function RoundPanel({ store, view }) {
  const rounds = attempts(view);
  const numbers = [...new Set(rounds.map((one) => one.round_number))];
  const newest = numbers.at(-1);
  const asked = Number(route.value.query.round);
  const number = numbers.includes(asked) ? asked : newest;
  const choose = (next) => numbers.includes(next) && setQuery({ round: next === newest ? null : next });
  useKeys({ ArrowLeft: () => choose(number - 1), ArrowRight: () => choose(number + 1) });
  if (!newest) {
    return html`<${Panel} id="rounds" title="Rounds"><${Empty} title="No round has started">
      <p>${ENDED.includes(view.federation.status) ? "It ended before its first round."
        : "The first one starts as soon as the base checkpoint is recorded and enough clients have joined."}</p><//><//>`;
  }
  const mine = rounds.filter((one) => one.round_number === number);
  return html`<${Panel} id="rounds" title="Rounds" more=${html`<${Picker} ...${{ numbers, number, newest, choose }} />`}
      note="Time of each round; the darker part is training at the slowest site">
    <${Strip} rounds=${rounds} number=${number} choose=${choose} />
    <${Facts} attempt=${mine.at(-1)} n=${mine.length} />
    <${Detail} store=${store} view=${view} number=${number} attempts=${mine} />
  <//>`;
}

function Picker({ numbers, number, newest, choose }) {
  return html`<div class="picker">
    <button type="button" class="button tight icon" aria-label="The round before" disabled=${number === numbers[0]}
      onClick=${() => choose(number - 1)}><${Icon} name="left" /></button>
    <select class="input" aria-label="Round" value=${number} onChange=${(event) => choose(Number(event.target.value))}>
      ${numbers.map((one) => html`<option value=${one} selected=${one === number}>Round ${one}${one === newest ? " (newest)" : ""}</option>`)}</select>
    <button type="button" class="button tight icon" aria-label="The round after" disabled=${number === newest}
      onClick=${() => choose(number + 1)}><${Icon} name="right" /></button></div>`;
}

// A picture for the mouse; the picker above does the same by keyboard and says it to readers.
function Strip({ rounds, number, choose }) {
  const last = new Map(rounds.map((one) => [one.round_number, one]));
  const shown = [...last.values()].slice(-160);
  const longest = Math.max(...shown.map((one) => one.total_seconds || 0), 0.001);
  const height = (value) => `${Math.max(2, (value / longest) * 100)}%`;
  return html`<div class="strip" aria-hidden="true">${shown.map((one) => {
    const train = Math.min(one.train_seconds || 0, one.total_seconds || 0);
    const tall = one.total_seconds ?? longest * 0.25;
    return html`<div class="strip-bar ${one.status} ${one.round_number === number ? "chosen" : ""}"
      key=${one.round_number} onClick=${() => choose(one.round_number)}
      title="Round ${one.round_number}: ${one.status}, ${seconds(one.total_seconds)}">
      <i style=${{ height: height(tall) }}><b style=${{ height: `${(train / (tall || 1)) * 100}%` }} /></i></div>`;
  })}</div>`;
}

function Facts({ attempt, n }) {
  const { train_updates: updates } = attempt;
  const answered = Object.entries(updates || {}).filter(([, value]) => value > 0);
  const scores = Object.entries(attempt.evaluation || {}).slice(0, 3);
  return html`<div class="round-facts" data-round=${attempt.round_number} data-status=${attempt.status}>
    <h3>Round ${attempt.round_number}${attempt.attempt > 1 ? `, attempt ${attempt.attempt}` : ""}</h3>
    <${Badge} status=${attempt.status} />
    <span>${answered.map(([status, value]) => `${value} ${status}`).join(", ")} of ${plural(attempt.n_cohort, "client")}, ${attempt.n_required} required</span>
    ${scores.map(([key, value]) => html`<span>${metricName(key)} <b class="numbers">${metric(value)}</b></span>`)}
    ${attempt.total_seconds != null && html`<span>took <b class="numbers">${seconds(attempt.total_seconds)}</b></span>`}
    ${attempt.base_sha256 && html`<span class="quiet">from <span class="mono">${short(attempt.base_sha256, 8)}</span>${
      attempt.checkpoint_sha256 ? html` to <span class="mono">${short(attempt.checkpoint_sha256, 8)}</span>` : ""}</span>`}
    ${attempt.reason && html`<p class="errors">${attempt.code}: ${attempt.reason}</p>`}
    ${attempt.evaluation_error && html`<p class="errors">Evaluation: ${attempt.evaluation_error}</p>`}
    ${n > 1 && html`<span class="quiet">${n} attempts, the newest is shown</span>`}
  </div>`;
}

function Detail({ store, view, number, attempts: mine }) {
  const updates = store.updatesOf(number);
  if (updates === null) return html`<${Bones} lines=${4} />`;
  const attempt = mine.at(-1);
  const ofAttempt = updates.filter((one) => one.attempt === attempt.attempt);
  const label = labels(view);
  return html`<${Waterfall} attempt=${attempt} updates=${ofAttempt} label=${label} then=${store.then.value}
      events=${store.history.events.value} />
    <${Updates} updates=${updates} label=${label} attempts=${mine.length} />`;
}
