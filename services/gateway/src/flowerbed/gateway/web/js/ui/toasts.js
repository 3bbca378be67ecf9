// Short messages about what came of a command. They go by themselves; errors stay longer.
import { Icon } from "./icons.js";
import { html, signal } from "./view.js";

const shown = signal([]);
let last = 0;

export function toast(tone, words) {
  const id = (last += 1);
  shown.value = [...shown.value.slice(-3), { id, tone, words }];
  setTimeout(() => dismiss(id), tone === "bad" ? 12_000 : 5000);
}

function dismiss(id) {
  shown.value = shown.value.filter((one) => one.id !== id);
}

const ICONS = { ok: "check", bad: "cross", warn: "warn", info: "info" };

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.value.map((one) => html`<div key=${one.id} class="toast tone-${one.tone}">
      <${Icon} name=${ICONS[one.tone]} /><span>${one.words}</span></div>`)}
  </div>`;
}
