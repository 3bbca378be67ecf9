// Small parts that several pages use.
import { now } from "../clock.js";
import { ago, clock, dayAndClock, until } from "../format.js";
import { Icon } from "./icons.js";
import { toast } from "./toasts.js";
import { html, useEffect, useRef, useState } from "./view.js";

// A moment as a person says it; hover or a reader gives the exact one.
export function When({ at, as = "ago" }) {
  if (!at) return html`<span class="quiet">–</span>`;
  const words = { ago: () => ago(at, now.value), until: () => until(at, now.value),
    clock: () => clock(at), day: () => dayAndClock(at, now.value) };
  return html`<time datetime=${at} title=${new Date(at).toISOString()}>${words[as]()}</time>`;
}

export function Panel({ title, id, more = null, note = "", children }) {
  return html`<section class="panel" id=${id} aria-labelledby=${`${id}-title`}>
    <header><div><h2 id=${`${id}-title`}>${title}</h2>${note && html`<p>${note}</p>`}</div>${more}</header>
    ${children}
  </section>`;
}

export function Note({ tone = "info", icon = "info", children }) {
  return html`<div class="note tone-${tone}"><${Icon} name=${icon} /><div>${children}</div></div>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><h3>${title}</h3>${children}</div>`;
}

export function Bones({ lines = 3 }) {
  return html`<div class="empty stack" role="status"><span class="unseen">Loading</span>
    ${Array.from({ length: lines }, () => html`<div class="bones" />`)}</div>`;
}

// What nobody measured is said to be unknown, with the reason.
export function Unknown({ why }) {
  return html`<span class="unknown" title=${why} tabindex="0">not known<span class="unseen">: ${why}</span></span>`;
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast("ok", `${what} copied`);
  } catch {
    toast("warn", `The browser does not let this page copy. ${what}: ${text}`);
  }
}

export function Copied({ text, what }) {
  return html`<div class="copied"><span>${text}</span>
    <button type="button" class="button tight icon plain" aria-label="Copy ${what}" title="Copy"
      onClick=${() => copy(text, what)}><${Icon} name="copy" /></button></div>`;
}

export function Digest({ sha256, size = 12 }) {
  return html`<button type="button" class="digest mono" title="Copy ${sha256}"
    aria-label="${sha256.slice(0, size)}: copy the sha256"
    onClick=${() => copy(sha256, "The sha256")}>${sha256.slice(0, size)}</button>`;
}

// Marks what has changed for a moment, without moving anything.
export function useChanged(value) {
  const before = useRef(value);
  const [changed, setChanged] = useState(false);
  useEffect(() => {
    if (before.current === value) return undefined;
    before.current = value;
    setChanged(true);
    const timer = setTimeout(() => setChanged(false), 1400);
    return () => clearTimeout(timer);
  }, [value]);
  return changed ? "changed" : "";
}
