// The list of federations: read once, then moved by events. Nothing is asked again on a timer.
import { notBefore } from "../clock.js";
import { batch, signal } from "../ui/view.js";
import { get, pages } from "./api.js";
import { Stream } from "./stream.js";

const TYPES = [
  ...["created", "rejected", "started", "paused", "resumed", "completed", "failed", "cancelled"]
    .map((fact) => `fl.federation.${fact}`),
  ...["started", "evaluation_started", "completed", "failed"].map((fact) => `fl.round.${fact}`),
  ...["joined", "dropped", "declined"].map((fact) => `fl.client.${fact}`),
];
const MOST = 500;
const STILL = 3000; // after this long without an event, a running federation is asked why
export const ENDED = ["rejected", "completed", "failed", "cancelled"];

export class FederationList {
  constructor() {
    this.rows = signal(null);
    this.error = signal("");
    this.timers = new Map();
    this.stopped = false;
  }

  async start() {
    try {
      const { position } = await get("/events/last");
      const found = await pages("/federations", "federations", { limit: 100 }, MOST);
      if (this.stopped) return;
      this.rows.value = found;
      for (const row of found) if (!ENDED.includes(row.status)) this._askSoon(row.federation_id, 0);
      this.stream = new Stream("/events", {
        query: { type: TYPES },
        after: position,
        on: (type, event) => this._told(type, event),
        failed: (error) => { this.error.value = error.message; },
      }).start();
    } catch (error) {
      this.error.value = error.message;
      if (!error.status && !this.stopped) this.again = setTimeout(() => this.start(), 2000);
    }
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.again);
    this.timers.forEach(clearTimeout);
    this.stream?.stop();
  }

  _told(type, event) {
    const id = event.federation_id;
    if (!id) return;
    notBefore(event.recorded_at);
    this.error.value = "";
    const row = this.rows.value.find((one) => one.federation_id === id);
    if (!row) return void this._add(id);
    const changes = folded(row, type, event);
    this._change(id, { ...changes, updated_at: event.recorded_at, position: event.position });
    if (type.startsWith("fl.client.")) this._askSoon(id, 600);
    else if (ENDED.includes(changes.status)) this._forget(id);
    else this._askSoon(id, type.startsWith("fl.federation.") ? 300 : STILL);
  }

  async _add(id) {
    const found = await get(`/federations/${id}`).catch(() => null);
    if (!found || this.stopped) return;
    if (!this.rows.value.some((one) => one.federation_id === id)) {
      this.rows.value = [found, ...this.rows.value];
    }
    if (!ENDED.includes(found.status)) this._askSoon(id, 300);
  }

  _change(id, changes) {
    this.rows.value = this.rows.value.map((one) =>
      one.federation_id === id ? { ...one, ...changes } : one);
  }

  _forget(id) {
    clearTimeout(this.timers.get(id));
    this.timers.delete(id);
  }

  // One question a federation at a time, and only after something has happened to it.
  _askSoon(id, wait) {
    this._forget(id);
    this.timers.set(id, setTimeout(() => this._ask(id), wait));
  }

  async _ask(id) {
    const found = await get(`/federations/${id}`).catch(() => null);
    if (!found || this.stopped) return;
    batch(() => this._change(id, {
      status: found.status,
      reason: found.reason,
      waiting_for: found.waiting_for,
      n_clients: found.n_clients,
      n_rounds_completed: found.n_rounds_completed,
      round_number: found.round_number,
    }));
  }
}

// What an event says of a row; pure.
export function folded(row, type, { data, recorded_at: at }) {
  switch (type) {
    case "fl.federation.started": return { status: "running", started_at: at, waiting_for: null };
    case "fl.federation.paused": return { status: "paused", reason: data.reason || "", waiting_for: null };
    case "fl.federation.resumed":
      return { status: row.started_at ? "running" : "created", reason: "", waiting_for: null };
    case "fl.federation.completed": return { status: "completed", ended_at: at, waiting_for: null };
    case "fl.federation.failed":
      return { status: "failed", code: data.code, reason: data.reason, ended_at: at, waiting_for: null };
    case "fl.federation.cancelled":
      return { status: "cancelled", reason: data.reason || "", ended_at: at, waiting_for: null };
    case "fl.round.started":
      return { round_number: data.round_number, doing: "training", waiting_for: null };
    case "fl.round.evaluation_started": return { doing: "evaluating", waiting_for: null };
    case "fl.round.completed":
      return { n_rounds_completed: data.round_number, doing: "", waiting_for: null };
    case "fl.round.failed": return { doing: "", waiting_for: `round ${data.round_number}: ${data.reason}` };
    default: return {};
  }
}
