// One federation: as it is now, kept by a stream, or as it was at a position, folded by the gateway.
//
// `shown` is what the page draws. It has the same shape in both cases.
import { notBefore } from "../clock.js";
import { get } from "../data/api.js";
import { Stream } from "../data/stream.js";
import { computed, signal } from "../ui/view.js";
import { History } from "./events.js";

const KEPT_MOMENTS = 60;

export class FederationStore {
  constructor(id) {
    this.id = id;
    this.path = `/federations/${encodeURIComponent(id)}`;
    this.live = signal(null);
    this.then = signal(null); // a moment of the past: { at, view }
    this.error = signal("");
    this.history = new History(this.path);
    this.details = signal({}); // rounds that the stream does not hold any more
    this.moments = new Map();
    this.shown = computed(() => this.then.value?.view || this.live.value);
  }

  start() {
    this.stream = new Stream(`${this.path}/live`, {
      on: (event, data) => this._told(event, data),
      began: () => { this.error.value = ""; },
      failed: (error) => { this.error.value = error.message; },
    }).start();
  }

  stop() {
    this.stream.stop();
    this.travelling?.abort();
  }

  _told(event, data) {
    if (event === "view") {
      const { position: at, ...view } = data;
      this.live.value = { ...view, position: at };
      this.history.begin(at);
    } else if (event === "patch") {
      this.live.value = merged(this.live.value, data);
    } else if (event === "events") {
      notBefore(data.events.at(-1).recorded_at);
      this.history.add(data.events);
    }
  }

  // --- time travel ----------------------------------------------------------

  // Shows the page as it was when `position` had just been recorded; null comes back to now.
  async travel(position) {
    this.travelling?.abort();
    if (position === null) {
      this.then.value = null;
      return;
    }
    const kept = this.moments.get(position);
    if (kept) {
      this.then.value = kept;
      return;
    }
    this.travelling = new AbortController();
    const options = { signal: this.travelling.signal };
    try {
      const [federation, why] = await Promise.all([
        get(this.path, { at: position }, options),
        get(`${this.path}/why`, { at: position }, options),
      ]);
      const newest = federation.round_number;
      const round = newest ? await get(`${this.path}/rounds/${newest}`, { at: position }, options) : null;
      this._keep({ at: position, view: asView(federation, why, round, position) });
    } catch (error) {
      if (error.name !== "AbortError") this.error.value = error.message;
    }
  }

  _keep(moment) {
    this.moments.set(moment.at, moment);
    if (this.moments.size > KEPT_MOMENTS) this.moments.delete(this.moments.keys().next().value);
    this.then.value = moment;
    this.error.value = "";
  }

  // The answers of one round: from the view if it holds them, or asked for once.
  updatesOf(number) {
    const view = this.shown.value;
    const held = Object.values(view.updates).filter((one) => one.round_number === number);
    if (held.length) return held;
    const key = `${this.then.value?.at ?? "now"}/${number}`;
    if (key in this.details.value) return this.details.value[key];
    this._detail(key, number);
    return null;
  }

  async _detail(key, number) {
    if (this.asking === key) return;
    this.asking = key;
    const at = this.then.value?.at ?? null;
    const found = await get(`${this.path}/rounds/${number}`, { at }).catch(() => ({ updates: [] }));
    const updates = found.updates.map((one) => ({ round_number: number, ...one }));
    this.details.value = { ...this.details.value, [key]: updates };
    this.asking = null;
  }
}

// What the gateway answers about a moment, in the shape that its stream has.
export function asView(federation, why, round, position) {
  const { rounds, clients, artifacts, ...rest } = federation;
  const by = (items, key) => Object.fromEntries(items.map((one) => [key(one), one]));
  const updates = (round?.updates || []).map((one) => ({ round_number: round.attempts[0].round_number, ...one }));
  return {
    position,
    federation: rest,
    why,
    rounds: by(rounds, (one) => `${one.round_number}.${one.attempt}`),
    clients: by(clients, (one) => one.client_id),
    artifacts: by(artifacts, (one) => `${one.round_number}.${one.attempt}.${one.exchange}.${one.kind}`),
    updates: by(updates, (one) => `${one.round_number}.${one.attempt}.${one.exchange}.${one.client_id}`),
  };
}

// A JSON merge patch, RFC 7386. What did not change is the same object as before.
export function merged(before, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = before && typeof before === "object" && !Array.isArray(before) ? { ...before } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}

export function attempts(view) {
  return Object.values(view.rounds).sort((one, other) =>
    one.round_number - other.round_number || one.attempt - other.attempt);
}
