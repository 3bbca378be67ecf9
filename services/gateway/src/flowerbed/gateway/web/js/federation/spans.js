// From what was recorded of a round to the bars of its waterfall. Pure.
//
//   client   |--asked--|download|====train====|upload|·screened
//   fold                                              |--|
//   artifact                                             |-|
//
// What a site did not report apart is one bar with a name that says so; nothing is guessed.
import { time } from "../format.js";

export const PHASES = {
  wait: "waiting for the order", download: "download", train: "training", upload: "upload",
  rest: "download, upload and waiting (not reported apart)", screening: "screening", open: "not answered yet",
  fold: "fold", artifact: "read back and recorded", evaluate: "evaluation", settle: "waiting for the others, then the fold",
};

export function waterfall(attempt, updates, { end }) {
  const rows = [];
  const of = (exchange) => updates.filter((one) => one.exchange === exchange)
    .sort((one, other) => (one.place ?? 1e9) - (other.place ?? 1e9));
  for (const update of of("train")) rows.push(clientRow(update, "train", attempt, end));
  rows.push(foldRow(of("train"), attempt, end));
  rows.push(ownRow("Artifact", "artifact", time(attempt.aggregated_at), attempt.recorded_at,
    attempt.status === "training" ? end : NaN));
  for (const update of of("evaluate")) rows.push(clientRow(update, "evaluate", attempt, end));
  const shown = rows.filter((row) => row.bars.length);
  const begin = time(attempt.started_at);
  const ends = shown.flatMap((row) => row.bars.map((bar) => bar.to));
  const until = Math.max(begin + 1, time(attempt.finished_at) || 0, ...ends);
  return { rows: shown, begin, until };
}

function clientRow(update, exchange, attempt, end) {
  const [asked, reported, decided] = [time(update.asked_at), time(update.reported_at), time(update.decided_at)];
  const row = { key: `${exchange}.${update.client_id}`, client: update.client_id, group: exchange,
    status: update.status, bars: [] };
  const closed = time(exchange === "train" ? attempt.aggregated_at || attempt.finished_at : attempt.finished_at);
  if (Number.isNaN(reported)) {
    if (update.status === "replaced" || Number.isNaN(asked)) return row;
    add(row, "open", asked, Number.isNaN(closed) ? end : closed);
    return row;
  }
  const from = Number.isNaN(asked) ? time(attempt.started_at) : asked;
  answered(row, update, exchange, Math.min(from, reported), reported);
  add(row, "screening", reported, decided);
  return row;
}

// Backwards from the report: upload, work, download; before that it waited for its order.
function answered(row, update, exchange, from, reported) {
  const work = exchange === "train" ? "train" : "evaluate";
  const [down, up] = [update.download_seconds, update.upload_seconds];
  const worked = (update.train_seconds || 0) * 1000;
  if (down == null && up == null) {
    const begun = Math.max(from, reported - worked);
    add(row, "rest", from, begun);
    add(row, work, begun, reported);
    return;
  }
  const uploading = Math.max(from, reported - (up || 0) * 1000);
  const working = Math.max(from, uploading - worked);
  const downloading = Math.max(from, working - (down || 0) * 1000);
  add(row, "wait", from, downloading);
  add(row, "download", downloading, working);
  add(row, work, working, uploading);
  add(row, "upload", uploading, reported);
}

// The fold begins with the last verdict, if all gave one. If not, how long it waited for the others
// before it folded is not recorded apart.
function foldRow(answers, attempt, end) {
  const verdict = latest(answers.map((one) => one.decided_at));
  const isWhole = answers.every((one) => one.decided_at || one.status === "replaced");
  const phase = isWhole ? "fold" : "settle";
  const open = isWhole && attempt.status === "training" ? end : NaN;
  return { ...ownRow("Fold", phase, verdict, attempt.aggregated_at, open), key: "fold" };
}

function ownRow(name, phase, from, toMoment, end) {
  const row = { key: phase, name, group: "own", bars: [] };
  const to = toMoment ? time(toMoment) : end;
  add(row, phase, from, to, !toMoment);
  return row;
}

function add(row, phase, from, to, isOpen = phase === "open") {
  if (Number.isNaN(from) || Number.isNaN(to) || to < from) return;
  row.bars.push({ phase, from, to, isOpen });
}

function latest(moments) {
  const known = moments.map(time).filter((one) => !Number.isNaN(one));
  return known.length ? Math.max(...known) : NaN;
}

// Round steps for the axis: some 4 to 7 of them.
export function ticks(span) {
  const raw = span / 5;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((one) => one >= raw);
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, place) => place * step);
}
