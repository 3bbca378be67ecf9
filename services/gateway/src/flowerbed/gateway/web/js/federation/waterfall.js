// One round as it went, on one axis of time: who trained when, what we did with it, what came of it.
import { fine, wantFine } from "../clock.js";
import { seconds, time } from "../format.js";
import { html, useEffect } from "../ui/view.js";
import { PHASES, ticks, waterfall } from "./spans.js";

const MOST_ROWS = 60;

export function Waterfall({ attempt, updates, label, then, events }) {
  const isOpen = !attempt.finished_at && !then;
  useEffect(() => (isOpen ? wantFine() : undefined), [isOpen]);
  const frozen = then ? time(events.findLast((one) => one.position <= then.at)?.recorded_at) : NaN;
  const end = isOpen ? Math.max(fine.value, time(attempt.started_at)) : frozen;
  const { rows, begin, until } = waterfall(attempt, updates, { end });
  if (!rows.length) return html`<p class="inner quiet">Nothing of this round was reported.</p>`;
  const span = until - begin;
  const place = (moment) => `${Math.max(0, Math.min(100, ((moment - begin) / span) * 100))}%`;
  const width = (from, to) => `${Math.max(0.25, ((to - from) / span) * 100)}%`;
  const shown = rows.slice(0, MOST_ROWS);
  const used = new Set(rows.flatMap((row) => row.bars.map((bar) => bar.phase)));
  return html`<div class="waterfall" role="group" aria-label="Waterfall of round ${attempt.round_number}">
    <div class="axis" aria-hidden="true"><span />
      <div>${ticks(span).map((tick) => html`<i style=${{ left: place(begin + tick) }}>${tick ? seconds(tick / 1000) : "0"}</i>`)}</div><span /></div>
    <ol>${shown.map((row, index) => html`<${Row} key=${row.key} ...${{ row, label, place, width, begin }}
      first=${index === 0 || shown[index - 1].group !== row.group} />`)}</ol>
    ${rows.length > MOST_ROWS && html`<p class="small quiet">The first ${MOST_ROWS} of ${rows.length} bars are drawn; the table below has them all.</p>`}
    <ul class="phases">${Object.keys(PHASES).filter((phase) => used.has(phase)).map((phase) => html`
      <li><i class="phase phase-${phase}" />${PHASES[phase]}</li>`)}</ul>
  </div>`;
}

const GROUPS = { train: "Training", own: "Control plane", evaluate: "Evaluation" };

function Row({ row, label, place, width, begin, first }) {
  const name = row.name || label(row.client);
  const total = row.bars.reduce((sum, bar) => sum + (bar.to - bar.from), 0) / 1000;
  const said = row.bars.map((bar) => `${PHASES[bar.phase]} ${seconds((bar.to - bar.from) / 1000)}`).join(", ");
  return html`<li class=${first ? "first" : ""} data-group=${GROUPS[row.group]}>
    <span class="row-name" title=${row.client || ""}>${first && html`<em>${GROUPS[row.group]}</em>`}${name}</span>
    <div class="track"><span class="unseen">${name}: ${said}</span>
      ${row.bars.map((bar) => html`<i class="phase phase-${bar.phase} ${bar.isOpen ? "open" : ""}"
        key=${bar.phase} title="${PHASES[bar.phase]}: ${seconds((bar.to - bar.from) / 1000)}, from ${seconds((bar.from - begin) / 1000)} on"
        style=${{ left: place(bar.from), width: width(bar.from, bar.to) }} />`)}</div>
    <span class="row-time numbers">${seconds(total)}</span></li>`;
}
