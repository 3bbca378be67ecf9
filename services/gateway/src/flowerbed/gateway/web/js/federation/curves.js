// Loss and quality of each round's checkpoint, from the evaluations that were recorded.
import { metricName } from "../format.js";
import { Chart } from "../ui/chart.js";
import { Empty, Panel } from "../ui/parts.js";
import { html } from "../ui/view.js";
import { attempts } from "./store.js";

const isLoss = (key) => /loss|error|perplexity/i.test(key);
const COUNTS = /^(num|n)[-_]|examples|seconds|tokens|joules/i;

export function Curves({ view }) {
  const done = attempts(view).filter((one) => one.status === "completed");
  const xs = done.map((one) => one.round_number);
  const evaluation = seriesOf(done, "evaluation");
  const training = seriesOf(done, "training");
  const loss = [...evaluation.filter((one) => isLoss(one.key)), ...training.filter((one) => isLoss(one.key))];
  const quality = evaluation.filter((one) => !isLoss(one.key));
  return html`<div class="columns">
    <${Curve} id="quality" title="Quality" note="On rows that no site trains on" xs=${xs} series=${quality}
      empty="The first evaluation ends the first round." />
    <${Curve} id="loss" title="Loss" note="Evaluation of the checkpoint, and training at the sites" xs=${xs}
      series=${loss} empty="The first round reports the first loss." />
  </div>`;
}

function seriesOf(rounds, field) {
  const keys = [...new Set(rounds.flatMap((one) => Object.keys(one[field] || {})))].filter((key) => !COUNTS.test(key));
  return keys.slice(0, 4).map((key) => ({
    key: `${field}.${key}`, name: metricName(key),
    values: rounds.map((one) => one[field]?.[key] ?? null),
  }));
}

function Curve({ id, title, note, xs, series, empty }) {
  return html`<${Panel} id=${id} title=${title} note=${note}>
    ${series.length ? html`<div class="inner"><${Chart} label=${title} xs=${xs} series=${series} /></div>`
      : html`<${Empty} title="Nothing to draw yet"><p>${empty}</p><//>`}<//>`;
}
