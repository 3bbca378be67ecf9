// The event history, and the cursor in it that moves the whole page back to any moment.
import { clock, dayAndClock, plural } from "../format.js";
import { now } from "../clock.js";
import { route, setQuery } from "../router.js";
import { useKeys } from "../shell.js";
import { Bones, Panel } from "../ui/parts.js";
import { Icon } from "../ui/icons.js";
import { html, useEffect, useRef, useState } from "../ui/view.js";
import { eventTone, kindOf, sentence } from "./events.js";
import { labels } from "./labels.js";

const KINDS = ["federation", "round", "client", "update", "aggregate", "artifact", "message"];
const FEW = 80;

// The address holds the moment: `?at=POSITION`. Here it is turned into what the page shows.
export function useTravel(store) {
  const asked = route.value.query.at ? Number(route.value.query.at) : null;
  useEffect(() => {
    const timer = setTimeout(() => store.travel(asked), asked === null ? 0 : 90);
    return () => clearTimeout(timer);
  }, [store, asked]);
  useKeys({ "[": () => step(store, -1), "]": () => step(store, 1), l: () => goTo(null) });
}

function goTo(position) {
  setQuery({ at: position });
}

function step(store, by) {
  const events = store.history.events.value;
  if (!events.length) return;
  const at = route.value.query.at ? Number(route.value.query.at) : null;
  const index = at === null ? events.length - 1 : events.findLastIndex((one) => one.position <= at);
  const next = index + by;
  if (next < 0) return;
  goTo(next >= events.length - 1 && by > 0 ? null : events[next].position);
}

// Says in so many words that this is not now, with the way back.
export function TravelMark({ store }) {
  const then = store.then.value;
  if (!then) return null;
  const events = store.history.events.value;
  const event = events.findLast((one) => one.position <= then.at);
  const newer = event ? events.length - 1 - events.lastIndexOf(event) : 0;
  return html`<div class="travel" role="status" data-at=${then.at}><${Icon} name="clock" />
    <div><b>You are looking at ${event ? dayAndClock(event.recorded_at, now.value) : `position ${then.at}`}, not now.</b>
      <span> ${newer ? `Since then: ${plural(newer, "event")}.` : "It is the newest event."}</span></div>
    <div class="travel-end">
      <button type="button" class="button tight icon" aria-label="One event back" onClick=${() => step(store, -1)}><${Icon} name="left" /></button>
      <button type="button" class="button tight icon" aria-label="One event forward" onClick=${() => step(store, 1)}><${Icon} name="right" /></button>
      <button type="button" class="button tight primary" onClick=${() => goTo(null)}>Back to live</button></div></div>`;
}

export function HistoryPanel({ store }) {
  const [kind, setKind] = useState("");
  const [shown, setShown] = useState(FEW);
  const { history } = store;
  const events = history.events.value;
  const at = store.then.value?.at ?? null;
  const label = labels(store.live.value || store.shown.value);
  if (!events.length) return html`<${Panel} id="history" title="History"><${Bones} /><//>`;
  const wanted = kind ? events.filter((one) => kindOf(one.type) === kind) : events;
  const around = windowOf(wanted, at, shown);
  return html`<${Panel} id="history" title="History" note="${plural(events.length, "event")}${history.hasOlder.value ? ", the newest" : ""}; choose one to see the page as it was then"
      more=${html`<select class="input" aria-label="Kind of event" value=${kind} onChange=${(event) => setKind(event.target.value)}>
        <option value="">All events</option>${KINDS.map((one) => html`<option value=${one}>${one}</option>`)}</select>`}>
    <${Slider} events=${events} at=${at} />
    <ol class="events" reversed>${around.map((one) => html`<${Entry} key=${one.position} event=${one} label=${label} chosen=${one.position === at} />`)}</ol>
    <div class="inner history-end">
      ${wanted.length > shown && html`<button type="button" class="button" onClick=${() => setShown(shown + 200)}>Show more</button>`}
      ${history.hasOlder.value && html`<button type="button" class="button" onClick=${() => history.older()}>Load what came before</button>`}
    </div><//>`;
}

// Newest first; around the moment that is looked at, where there is one.
function windowOf(events, at, size) {
  const index = at === null ? events.length - 1 : events.findLastIndex((one) => one.position <= at);
  const end = Math.min(events.length, Math.max(index + 1 + (at === null ? 0 : 12), size));
  return events.slice(Math.max(0, end - size), end).reverse();
}

function Slider({ events, at }) {
  const ref = useRef(null);
  const index = at === null ? events.length - 1 : Math.max(0, events.findLastIndex((one) => one.position <= at));
  const move = (event) => {
    const next = Number(event.target.value);
    goTo(next >= events.length - 1 ? null : events[next].position);
  };
  const said = at === null ? "now" : clock(events[index].recorded_at);
  return html`<div class="slider">
    <span class="small quiet">${clock(events[0].recorded_at)}</span>
    <input ref=${ref} type="range" min="0" max=${events.length - 1} step="1" value=${index} onInput=${move}
      aria-label="Moment shown" aria-valuetext=${said} style=${{ "--done": `${(index / Math.max(1, events.length - 1)) * 100}%` }} />
    <span class="small ${at === null ? "quiet" : ""}">${said}</span></div>`;
}

function Entry({ event, label, chosen }) {
  return html`<li><button type="button" class="event tone-${eventTone(event.type)} ${chosen ? "chosen" : ""}"
      aria-pressed=${chosen} data-position=${event.position} data-type=${event.type} onClick=${() => goTo(event.position)}>
    <time datetime=${event.recorded_at} title=${event.recorded_at}>${clock(event.recorded_at)}</time>
    <i /><span class="event-what">${sentence(event, label)}${event.actor && html`<span class="tag">by ${event.actor}</span>`}</span>
    <span class="event-type mono">${event.type.replace(/^fl\./, "")}</span><span class="event-at mono">${event.position}</span></button></li>`;
}
