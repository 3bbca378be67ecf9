// How figures, times and names are written. Pure: what is not known is said to be, never guessed.

export const NONE = "–";

export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 99.5) return `${Math.round(value)} s`;
  if (value < 5400) return `${trim(value / 60)} min`;
  if (value < 129_600) return `${trim(value / 3600)} h`;
  return `${trim(value / 86_400)} days`;
}

// As a clock that ticks says it: no tenths of a second.
export function whole(value) {
  return value < 99.5 ? `${Math.floor(value)} s` : seconds(value);
}

function trim(value) {
  return value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value));
}

export function between(from, to) {
  return from && to ? (time(to) - time(from)) / 1000 : null;
}

export function time(moment) {
  return moment ? Date.parse(moment) : NaN;
}

export function ago(moment, now) {
  const passed = (now - time(moment)) / 1000;
  if (Number.isNaN(passed)) return NONE;
  return passed < 1.5 ? "just now" : `${whole(passed)} ago`;
}

export function until(moment, now) {
  const left = (time(moment) - now) / 1000;
  if (Number.isNaN(left)) return NONE;
  return left >= 0 ? `in ${whole(left)}` : `${whole(-left)} ago`;
}

const clockTime = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const dayOnly = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric",
});

export function clock(moment) {
  return moment ? clockTime.format(new Date(moment)) : NONE;
}

export function day(moment) {
  return moment ? dayOnly.format(new Date(moment)) : NONE;
}

export function dayAndClock(moment, now) {
  if (!moment) return NONE;
  const sameDay = new Date(moment).toDateString() === new Date(now).toDateString();
  return sameDay ? clock(moment) : `${day(moment)}, ${clock(moment)}`;
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let [size, unit] = [value, 0];
  while (size >= 999.5 && unit < units.length - 1) [size, unit] = [size / 1000, unit + 1];
  return `${unit === 0 ? size : size.toPrecision(3).replace(/\.?0+$/, "")} ${units[unit]}`;
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en-GB");
}

export function metric(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10_000 || size < 0.0001) return value.toExponential(2);
  return size >= 100 ? value.toFixed(1) : value.toFixed(4);
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? NONE : `${(share * 100).toFixed(digits)} %`;
}

export function short(digest, size = 12) {
  return digest ? digest.slice(0, size) : NONE;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// A dataset's label is `<task>-<uuid>`: the task and the start of the uuid tell sites apart.
export function shortLabel(label) {
  const found = /^(.*)-([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/.exec(label || "");
  return found ? `${found[1]}-${found[2]}` : label || "";
}

const WORDS = {
  "eval-loss": "Evaluation loss", "train-loss": "Training loss", accuracy: "Accuracy", auroc: "AUROC",
};

export function metricName(key) {
  return WORDS[key] || key.replace(/[-_]/g, " ").replace(/^./, (first) => first.toUpperCase());
}
