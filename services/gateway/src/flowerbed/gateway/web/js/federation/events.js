// A federation's history in this browser: the newest some thousand events, in order, none missing.
import { get } from "../data/api.js";
import { plural } from "../format.js";
import { signal } from "../ui/view.js";

const PAGE = 1000;

export class History {
  constructor(path) {
    this.path = path;
    this.events = signal([]);
    this.hasOlder = signal(false);
    this.known = new Set();
    this.state = "new";
  }

  // `position`: what the view was made at. What comes later is told by the stream. Told again after
  // each connection, it looks for what came between the two.
  begin(position) {
    if (this.state === "new") this._load(() => this._newest(position + 1));
    else if (this.state === "loaded") this._load(() => this._behind(this.events.value.at(-1)?.position ?? 0));
  }

  async _load(read) {
    this.state = "loading";
    try {
      await read();
      this.state = "loaded";
    } catch (error) {
      if (error.status !== 401) setTimeout(() => this._load(read), 2000);
    }
  }

  async _newest(before) {
    const { events } = await get(`${this.path}/events`, { before, limit: PAGE });
    this.hasOlder.value = events.length === PAGE;
    this.add(events);
  }

  async _behind(after) {
    const { events } = await get(`${this.path}/events`, { after, limit: PAGE });
    this.add(events);
    if (events.length === PAGE) await this._behind(events.at(-1).position);
  }

  older() {
    return this._newest(this.events.value[0].position);
  }

  add(events) {
    const fresh = events.filter((one) => !this.known.has(one.position));
    if (!fresh.length) return;
    fresh.forEach((one) => this.known.add(one.position));
    const all = [...this.events.value, ...fresh];
    const sorted = all.length < 2 || fresh[0].position > (this.events.value.at(-1)?.position ?? 0);
    this.events.value = sorted ? all : all.sort((one, other) => one.position - other.position);
  }
}

// --- in plain words ---------------------------------------------------------

const KIND = [
  [/^fl\.federation/, "federation"], [/^fl\.round/, "round"], [/^fl\.client/, "client"],
  [/^fl\.update/, "update"], [/^fl\.aggregate/, "aggregate"], [/^fl\.artifact/, "artifact"],
  [/^fl\.(serverapp|message)/, "message"],
];

export function kindOf(type) {
  return (KIND.find(([pattern]) => pattern.test(type)) || [null, "other"])[1];
}

const TONES = { failed: "bad", rejected: "bad", dropped: "bad", revoked: "bad", quarantined: "warn",
  declined: "warn", paused: "warn", completed: "ok", accepted: "ok", promoted: "ok", joined: "ok" };

export function eventTone(type) {
  return TONES[type.split(".").at(-1)] || "idle";
}

// One line a person can read, from the event's own facts. `label` names a client.
export function sentence({ type, data, stream }, label) {
  const who = data.client_id ? label(data.client_id) : "";
  const round = data.round_number ? `round ${data.round_number}` : "";
  const again = data.attempt > 1 ? `, attempt ${data.attempt}` : "";
  const because = data.reason ? `: ${data.reason}` : "";
  const detail = [data.code, data.detail].filter(Boolean).join(": ");
  const say = {
    "fl.federation.created": () => "The spec was accepted",
    "fl.federation.rejected": () => `The spec was refused: ${plural(data.problems?.length ?? 0, "broken rule")}`,
    "fl.federation.started": () => `Training starts with ${plural(data.n_clients, "client")}`,
    "fl.federation.paused": () => `Paused${because}`,
    "fl.federation.resumed": () => "Resumed",
    "fl.federation.policy_changed": () => `Round policy changed: ${(data.changed || []).join(", ")}${because}`,
    "fl.federation.completed": () => `Completed after ${plural(data.n_rounds, "round")}`,
    "fl.federation.failed": () => `Failed${because}`,
    "fl.federation.cancelled": () => `Cancelled${because}`,
    "fl.round.started": () => `R${round.slice(1)}${again} starts with ${plural(data.cohort?.length ?? 0, "client")}`,
    "fl.round.member_replaced": () => `${who} left ${round}; another takes its place`,
    "fl.round.evaluation_started": () => `Evaluation of ${round} starts`,
    "fl.round.completed": () => `R${round.slice(1)} completed with ${plural(data.n_updates, "update")}`,
    "fl.round.failed": () => `R${round.slice(1)}${again} failed${because}`,
    "fl.client.lease_issued": () => `${who} was offered a lease, epoch ${data.epoch}`,
    "fl.client.joined": () => `${who} joined`,
    "fl.client.declined": () => `${who} declined: ${detail}`,
    "fl.client.dropped": () => `${who} was dropped${because}`,
    "fl.client.released": () => `${who} was released${because}`,
    "fl.update.submitted": () => `${who} reported its ${exchange(data)} of ${round}`,
    "fl.update.failed": () => `${who} failed in ${round}: ${detail}`,
    "fl.update.accepted": () => `Update of ${who} accepted in ${round} (${exchange(data)})`,
    "fl.update.rejected": () => `Update of ${who} rejected in ${round}: ${detail}`,
    "fl.update.quarantined": () => `Update of ${who} held back in ${round}: ${detail}`,
    "fl.aggregate.completed": () => aggregate(data, round, stream),
    "fl.aggregate.failed": () => `The fold of ${round || "the base"} failed${because}`,
    "fl.serverapp.started": () => `The app's main starts with ${plural(data.nodes?.length ?? 0, "node")}`,
    "fl.serverapp.extended": () => "The app's main may go on: it has sent messages since",
    "fl.serverapp.restarted": () => `The app's main runs again from its beginning${because}`,
    "fl.serverapp.completed": () => `The app's main has ended after ${plural(data.n_exchanges, "exchange")}`,
    "fl.message.pushed": () => `Exchange ${data.round_number}: ${plural(data.cohort?.length ?? 0, "message")} sent`,
    "fl.message.answered": () => `${who} ${detail ? `failed in exchange ${data.round_number}: ${detail}` : `answered in exchange ${data.round_number}`}`,
    "fl.message.pulled": () => `The app's main has ${plural(data.replies?.length ?? 0, "reply", "replies")} of ${answeredOf(data)}`,
    "fl.artifact.recorded": () => `${{ base: "Base checkpoint", checkpoint: "Checkpoint", state: "Strategy state" }[data.kind] || "Artifact"} ${data.artifact.sha256.slice(0, 12)} recorded`,
    "fl.artifact.promoted": () => `Checkpoint ${data.sha256.slice(0, 12)} promoted to ${data.channel}`,
    "fl.artifact.revoked": () => `Checkpoint ${data.sha256.slice(0, 12)} revoked${because}`,
  }[type];
  return say ? say() : type;
}

function answeredOf(data) {
  const numbers = [...new Set((data.replies ?? []).map((one) => one.round_number || data.round_number))].sort((a, b) => a - b);
  return numbers.length > 1 ? `exchanges ${numbers.join(", ")}` : `exchange ${numbers[0] ?? data.round_number}`;
}

function exchange(data) {
  return { train: "training", evaluate: "evaluation" }[data.exchange] || data.exchange;
}

function aggregate(data, round, stream) {
  if (data.exchange === "initialize") return "Base checkpoint made";
  if (stream.startsWith("serverapp-")) return "What the app's main gave is the model";
  const updates = data.updates?.length ?? 0;
  return data.exchange === "evaluate"
    ? `Evaluation of ${round} summed up from ${plural(updates, "client")}`
    : `${plural(updates, "update")} of ${round} folded`;
}
