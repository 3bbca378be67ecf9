// What surrounds every page: navigation, whether it is live, the theme, the keys.
import { now } from "./clock.js";
import { connection } from "./data/stream.js";
import { tenant } from "./data/tenant.js";
import { tenants, who } from "./data/who.js";
import { clock, seconds } from "./format.js";
import { go, link, route } from "./router.js";
import { signOut } from "./session.js";
import { Dialogs, isOpen, Sheet, show } from "./ui/dialog.js";
import { Flower, Icon } from "./ui/icons.js";
import { theme, toggleTheme } from "./ui/theme.js";
import { Toasts } from "./ui/toasts.js";
import { html, useEffect } from "./ui/view.js";

const PAGES = [
  ["federations", "Federations", "1"], ["clients", "Clients", "2"],
  ["services", "Services", "3"], ["slos", "SLOs", "4"],
];

export function Shell({ children }) {
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <div class="frame">
      <header class="side">
        <a class="brand" href=${link("federations")}><${Flower} /><span>Flowerbed</span></a>
        <nav class="nav" aria-label="Pages">${PAGES.map(([page, name]) => html`
          <a href=${link(page)} aria-current=${route.value.page === page ? "page" : null}>
            <${Icon} name=${page} />${name}</a>`)}</nav>
        <div class="side-end">
          <${Who} />
          <${Live} />
          <div class="side-tools">
            <${Tool} icon=${theme.value === "dark" ? "sun" : "moon"} run=${toggleTheme}
              name=${theme.value === "dark" ? "Light colours" : "Dark colours"} />
            <${Tool} icon="help" name="Keyboard shortcuts" run=${help} />
            <${Tool} icon="leave" name="Sign out" run=${() => signOut()} />
          </div>
        </div>
      </header>
      <main class="page" id="main" tabindex="-1">${children}</main>
    </div>
    <${Toasts} /><${Dialogs} />`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function Who() {
  const mine = tenants(who.value);
  return html`${who.value.subject && html`<span class="who" title="Signed in as ${who.value.subject}">${who.value.subject}</span>`}
    ${mine.length > 1 && html`<select class="input" aria-label="Tenant" value=${tenant.value}
      onChange=${(event) => { tenant.value = event.target.value; }}>
      ${mine.map((one) => html`<option value=${one}>${one}</option>`)}</select>`}`;
}

function Tool({ icon, name, run }) {
  return html`<button type="button" class="button plain icon tight" aria-label=${name} title=${name}
    onClick=${run}><${Icon} name=${icon} /></button>`;
}

// "live", or since when it is not: a page that stands still must not look as if all were quiet.
function Live() {
  const { state, since } = connection.value;
  if (state === "live") return html`<div class="live" role="status"><i />live</div>`;
  if (state === "reconnecting") {
    const lasted = seconds(Math.max(0, Math.round((now.value - since) / 1000)));
    return html`<div class="live lost" role="status" title="for ${lasted}">
      <i /><span>reconnecting since ${clock(new Date(since).toISOString())}</span></div>`;
  }
  if (state === "off") return null; // a page of what can only be asked for says itself how old it is
  const words = { connecting: "connecting", asleep: "asleep" };
  return html`<div class="live off" role="status"><i />${words[state]}</div>`;
}

// --- keys -------------------------------------------------------------------

const actions = new Map();

// A page's own keys, while it is shown.
export function useKeys(keys) {
  useEffect(() => {
    for (const [key, run] of Object.entries(keys)) actions.set(key, run);
    return () => Object.keys(keys).forEach((key) => actions.delete(key));
  });
}

function onKey(event) {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || isOpen()) return;
  const page = PAGES.find(([, , key]) => key === event.key);
  const run = page ? () => go(page[0]) : { "?": help, d: toggleTheme }[event.key] || actions.get(event.key);
  if (!run) return;
  event.preventDefault();
  run();
}

const KEYS = [
  ["1 2 3 4", "Federations, Clients, Services, SLOs"],
  ["/", "Search the federations"],
  ["← →", "In a federation: the round before, the round after"],
  ["[ ]", "In a federation: one event back in time, one forward"],
  ["l", "In a federation: back to live"],
  ["p r c", "In a federation: pause, resume, cancel (each asks first)"],
  ["d", "Light or dark colours"],
  ["?", "This sheet"],
  ["Esc", "Close what is open"],
];

export function help() {
  show("Keyboard shortcuts", () => html`<${Sheet} title="Keyboard shortcuts">
    <dl class="keys">${KEYS.map(([keys, what]) => html`
      <dt>${keys.split(" ").map((key) => html`<kbd>${key}</kbd> `)}</dt><dd>${what}</dd>`)}</dl><//>`, { wide: true });
}
