// A line chart by uPlot, in the page's own colours. Beside it always stand the newest figures as
// text, and its label says what it shows: a canvas alone tells a screen reader nothing.
import uPlot from "../../vendor/uPlot.esm.js";
import { metric } from "../format.js";
import { colour, theme } from "./theme.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./view.js";

const LOOKS = [
  { stroke: "accent", dash: undefined, width: 2 },
  { stroke: "ink-3", dash: [5, 4], width: 1.5 },
  { stroke: "accent-2", dash: undefined, width: 1.5 },
  { stroke: "ink-2", dash: [2, 3], width: 1.5 },
];

// `xs`: numbers; `series`: [{ key, name, values }] of the same length, null where not known.
export function Chart({ label, xs, series, height = 196 }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const keys = series.map((one) => one.key).join();
  const data = [xs, ...series.map((one) => one.values)];

  useLayoutEffect(() => {
    const made = new uPlot(options(box.current.clientWidth, height, series, setAt), data, box.current);
    plot.current = made;
    const watch = new ResizeObserver(([entry]) => {
      made.setSize({ width: Math.floor(entry.contentRect.width), height });
    });
    watch.observe(box.current);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [keys, theme.value]);

  useEffect(() => plot.current.setData(data), [JSON.stringify(data)]);

  const index = at ?? xs.length - 1;
  return html`<figure class="chart">
    <figcaption class="legend">${series.map((one, place) => html`<span key=${one.key}>
      <i class="stroke stroke-${place}" />${one.name}<b class="numbers">${metric(one.values[index])}</b></span>`)}
      <span class="quiet">${xs.length ? `round ${xs[index]}` : ""}</span></figcaption>
    <div ref=${box} role="img" aria-label="${label}. ${spoken(xs, series)}" />
  </figure>`;
}

function spoken(xs, series) {
  return series.map((one) => {
    const known = one.values.map((value, place) => [xs[place], value]).filter(([, value]) => value !== null);
    if (!known.length) return `${one.name}: nothing yet`;
    const [first, last] = [known[0], known.at(-1)];
    return `${one.name}: ${metric(first[1])} in round ${first[0]}, ${metric(last[1])} in round ${last[0]}`;
  }).join(". ");
}

function options(width, height, series, setAt) {
  const font = "12px Inter, sans-serif";
  const axis = { stroke: colour("ink-3"), font, ticks: { show: false }, gap: 8 };
  return {
    width,
    height,
    padding: [10, 12, 0, 0],
    legend: { show: false },
    scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
      y: { range: around } },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 } },
    hooks: { setCursor: [(plot) => setAt(plot.cursor.idx ?? null)] },
    axes: [
      { ...axis, size: 30, grid: { show: false }, space: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] },
      { ...axis, size: 54, grid: { stroke: colour("line"), width: 1 }, space: 38,
        values: (_, splits) => splits.map((value) => (Math.abs(value) < 1000 ? String(+value.toFixed(4)) : metric(value))) },
    ],
    series: [{}, ...series.map((one, place) => {
      const look = LOOKS[place % LOOKS.length];
      const stroke = colour(look.stroke);
      return { label: one.name, stroke, width: look.width, dash: look.dash, spanGaps: true,
        points: { show: one.values.length < 40, size: 5, width: look.width, fill: colour("panel") } };
    })],
  };
}

// Some air above and below, so that a flat line is not on the edge.
function around(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const air = (high - low || Math.abs(high) || 1) * 0.12;
  return [low - air, high + air];
}
