// One dialog at a time. The browser's own: it keeps the focus inside, and Escape closes it.
import { Note } from "./parts.js";
import { html, signal, useEffect, useRef, useState } from "./view.js";

const open = signal(null);

export const isOpen = () => open.value !== null;

// `content({ close })` is drawn inside; `label` names it for a screen reader.
export function show(label, content, { wide = false } = {}) {
  open.value = { label, content, wide, back: document.activeElement };
}

export function close() {
  const back = open.value?.back;
  open.value = null;
  if (back?.isConnected) back.focus();
}

export function Dialogs() {
  const ref = useRef(null);
  const one = open.value;
  useEffect(() => {
    if (one && !ref.current.open) ref.current.showModal();
  }, [one]);
  if (!one) return null;
  const outside = (event) => event.target === ref.current && close();
  return html`<dialog ref=${ref} class=${one.wide ? "wide" : ""} aria-label=${one.label}
    onCancel=${(event) => { event.preventDefault(); close(); }} onMouseDown=${outside}>
    ${html`<${one.content} close=${close} />`}</dialog>`;
}

// Asks once before something is done, then says what came of it where it was asked.
export function confirm({ title, says, verb, danger = false, fields = null, run }) {
  show(title, () => html`<${Confirm} ...${{ title, says, verb, danger, fields, run }} />`);
}

function Confirm({ title, says, verb, danger, fields, run }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  async function submit(event) {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(event.target));
    setBusy(true);
    setError("");
    try {
      await run(given);
      close();
    } catch (failure) {
      setError(failure.message);
      setBusy(false);
    }
  }
  return html`<form onSubmit=${submit}>
    <h2>${title}</h2>
    <p>${says}</p>
    ${fields}
    ${error && html`<div role="alert"><${Note} tone="bad" icon="cross">${error}<//></div>`}
    <div class="dialog-end">
      <button type="button" class="button" onClick=${close}>Keep it as it is</button>
      <button type="submit" class="button primary ${danger ? "danger" : ""}" disabled=${busy}>
        ${busy ? "Working…" : verb}</button>
    </div>
  </form>`;
}

export function Reason() {
  return html`<label class="field">Reason, kept in the history
    <input class="input" name="reason" maxlength="1024" autocomplete="off" placeholder="optional" /></label>`;
}

export function Sheet({ title, children }) {
  return html`<div class="sheet"><h2>${title}</h2>${children}
    <div class="dialog-end"><button type="button" class="button" autofocus onClick=${close}>Close</button></div></div>`;
}
