// How the services do, replica by replica, and the events that some could not handle.
import { get, post } from "../data/api.js";
import { mayAnywhere } from "../data/who.js";
import { clock, count, plural } from "../format.js";
import { link } from "../router.js";
import { confirm } from "../ui/dialog.js";
import { Icon } from "../ui/icons.js";
import { Bones, Empty, Note, Panel, When } from "../ui/parts.js";
import { toast } from "../ui/toasts.js";
import { Badge } from "../ui/status.js";
import { html, useEffect, useState } from "../ui/view.js";

const AGAIN = 10_000; // health is not an event: it can only be asked for

export function useAsked(ask, every) {
  const [state, setState] = useState({ answer: null, error: "", at: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let stopped = false;
    const look = () => document.hidden || ask().then(
      (answer) => stopped || setState({ answer, error: "", at: new Date().toISOString() }),
      (error) => stopped || setState((before) => ({ ...before, error: error.message })));
    look();
    const timer = setInterval(look, every);
    return () => {
      stopped = true;
      clearInterval(timer);
    };
  }, [turn]);
  return { ...state, again: () => setTurn(turn + 1) };
}

export function ServicesPage() {
  const { answer, error, at, again } = useAsked(
    () => Promise.all([get("/services"), mayAnywhere("admin") ? get("/dead-letters") : null]), AGAIN);
  useEffect(() => { document.title = "Services · Flowerbed"; }, []);
  const services = answer?.[0].services;
  return html`
    <div class="page-head"><div><h1>Services</h1><p>${services && summary(services)}</p></div>
      <div class="page-head-end"><span class="small quiet">${at && `as of ${clock(at)}`}</span>
        <button type="button" class="button" onClick=${again}><${Icon} name="replay" />Look again</button></div></div>
    <div class="stack">
    ${error && html`<${Note} tone="bad" icon="cross">${error}<//>`}
    ${!services ? html`<section class="panel"><${Bones} /></section>` : html`
      <div class="cards">${services.map((one) => html`<${Card} key=${one.name} service=${one} />`)}</div>
      ${answer[1] && html`<${Letters} letters=${answer[1].dead_letters} unavailable=${answer[1].unavailable} again=${again} />`}`}</div>`;
}

function summary(services) {
  const ready = services.filter((one) => one.status === "ready").length;
  return ready === services.length ? `All ${ready} are ready.` : `${ready} of ${services.length} are ready.`;
}

const SHOWN = { degraded: "not ready", "not-ready": "not ready" };

function Card({ service }) {
  return html`<section class="panel" aria-labelledby="service-${service.name}" data-service=${service.name}>
    <div class="card-head"><h2 id="service-${service.name}">${service.name}</h2>
      <${Badge} status=${SHOWN[service.status] || service.status} word=${service.status} /></div>
    <div class="card-body">${service.replicas.map((one) => html`<${Replica} key=${one.replica} replica=${one} many=${service.replicas.length > 1} />`)}
      <div class="meter-row"><span>dead letters</span><span class="numbers ${service.dead_letters ? "errors" : ""}">${service.dead_letters ?? "not known"}</span></div></div></section>`;
}

function Replica({ replica, many }) {
  const wrong = [...Object.entries(replica.checks).filter(([, outcome]) => outcome !== "ok"), ...Object.entries(replica.failing)];
  const lags = Object.entries(replica.lags);
  const most = Math.max(0, ...lags.map(([, lag]) => lag));
  return html`<div class="replica">
    ${many && html`<div class="meter-row"><span>replica ${replica.replica}</span><${Badge} status=${SHOWN[replica.status] || replica.status} word=${replica.status} bare /></div>`}
    ${replica.detail && html`<p class="errors">${replica.detail}</p>`}
    ${Object.keys(replica.checks).length > 0 && html`<div class="meter-row"><span>checks</span><span class="checked">${wrong.length ? `${wrong.length} wrong` : html`<${Icon} name="check" />${Object.keys(replica.checks).join(", ")}`}</span></div>`}
    ${wrong.map(([name, outcome]) => html`<p class="errors">${name}: ${outcome}</p>`)}
    ${lags.length > 0 && html`<details class="lags"><summary class="meter-row"><span>lag, events</span><span class="numbers">${count(most)}</span></summary>
      ${lags.map(([name, lag]) => html`<div class="meter-row"><span>${name}</span><span class="numbers">${count(lag)}</span></div>`)}</details>`}
  </div>`;
}

// --- dead letters -----------------------------------------------------------

function Letters({ letters, unavailable, again }) {
  const all = html`<button type="button" class="button tight" onClick=${() => replay({}, "all of them", again)}><${Icon} name="replay" />Replay all</button>`;
  return html`<${Panel} id="dead-letters" title="Dead letters" note="Events that a consumer could not handle; what follows in the same federation waits behind them"
      more=${letters.length > 0 && all}>
    ${unavailable.length > 0 && html`<div class="inner"><${Note} tone="warn" icon="warn">${unavailable.join(", ")} did not answer: theirs are not known.<//></div>`}
    ${letters.length === 0 ? html`<${Empty} title="None"><p>Every event was handled.</p><//>` : html`
    <table class="table"><thead><tr><th>Service</th><th>Event</th><th>Federation</th><th>Error</th><th class="right">Tries</th><th>Since</th><th><span class="unseen">Commands</span></th></tr></thead>
      <tbody>${letters.map((one) => html`<tr key=${`${one.service}${one.id}`}>
        <td data-label="Service"><span>${one.service}<span class="under">${one.consumer}</span></span></td>
        <td data-label="Event" class="mono small"><span>${String(one.subject).split(".").slice(0, 3).join(".")}<span class="under">${one.stream}@${one.version}</span></span></td>
        <td data-label="Federation" class="mono small">${one.lane.startsWith("fed-") ? html`<a href=${link("federations", one.lane)}>${one.lane}</a>` : one.lane}</td>
        <td data-label="Error" class="reason"><span class="errors">${one.error}</span></td>
        <td data-label="Tries" class="right">${one.attempts}</td>
        <td data-label="Since"><${When} at=${one.parked_at} /></td>
        <td data-label=""><button type="button" class="button tight" onClick=${() => replay({ service: one.service, consumer: one.consumer, federation_id: one.lane }, `those of ${one.consumer} in ${one.lane}`, again)}>Replay</button></td></tr>`)}
      </tbody></table>`}<//>`;
}

function replay(which, what, again) {
  confirm({
    title: "Replay dead letters?", verb: "Replay",
    says: `The services handle ${what} again, in order. The first that fails again ends its lane and stays here.`,
    run: async () => {
      const { lanes } = await post("/dead-letters/replay", which);
      const failed = lanes.filter((one) => one.error);
      const handled = lanes.reduce((sum, one) => sum + one.replayed, 0);
      toast(failed.length ? "bad" : "ok", `${plural(handled, "event")} handled${failed.length ? `; ${failed[0].service}: ${failed[0].error}` : ""}`);
      again();
    },
  });
}
