// Server-sent events by fetch, because an EventSource cannot send a token.
//
// connecting -> live -> reconnecting (since when) -> live ...
//
// It goes on behind the last position that it has seen, so a cut connection loses nothing.
import { signal } from "../ui/view.js";
import { address, ask } from "./api.js";

export const connection = signal({ state: "off", since: null });

const FIRST_WAIT = 250;
const LONGEST_WAIT = 8000;
const SILENCE = 35_000; // the server shows a sign of life every 10 s
const HIDDEN = 60_000;

export class Stream {
  // `on(event, data, position)`; `began()`: after each connection, before its first event.
  constructor(path, { query = {}, after = null, on, began = () => {}, failed = () => {} }) {
    Object.assign(this, { path, query, on, began, failed });
    this.last = after;
    this.wait = FIRST_WAIT;
    this.stopped = false;
    this.abort = null;
    this.onVisible = () => this._whenVisible();
    this.onOnline = () => this._hurry();
  }

  start() {
    document.addEventListener("visibilitychange", this.onVisible);
    addEventListener("online", this.onOnline);
    connection.value = { state: "connecting", since: null };
    this._run();
    return this;
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.onVisible);
    removeEventListener("online", this.onOnline);
    clearTimeout(this.hiding);
    this._hurry();
    this.abort?.abort();
    connection.value = { state: "off", since: null };
  }

  async _run() {
    while (!this.stopped) {
      try {
        await this._follow();
      } catch (error) {
        if (this.stopped) return;
        if ([401, 403, 404, 422].includes(error.status)) {
          connection.value = { state: "off", since: null };
          this.failed(error);
          return;
        }
        if (error.retryAfter) this.wait = Math.max(this.wait, error.retryAfter * 1000);
      }
      if (this.stopped) return;
      this._lost();
      await this._pause();
    }
  }

  async _follow() {
    this.abort = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.last !== null) headers["Last-Event-ID"] = String(this.last);
    const watchdog = () => {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => this.abort.abort(), SILENCE);
    };
    watchdog();
    try {
      const answer = await ask(address(this.path, this.query), { headers, signal: this.abort.signal });
      connection.value = { state: "live", since: null };
      this.began();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const frames = new Frames((frame) => this._take(frame));
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        watchdog();
        this.wait = FIRST_WAIT;
        frames.push(part.value);
      }
    } finally {
      clearTimeout(this.silence);
    }
  }

  _take({ id, event, data }) {
    if (this.stopped) return;
    this.on(event, JSON.parse(data), id === null ? null : Number(id));
    if (id !== null) this.last = Number(id);
  }

  _lost() {
    const since = connection.value.since || Date.now();
    connection.value = { state: this.asleep ? "asleep" : "reconnecting", since };
  }

  _pause() {
    const wait = this.asleep ? 2 ** 31 - 1 : this.wait * (0.75 + Math.random() / 2);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
    return new Promise((resolve) => {
      this.wake = resolve;
      this.timer = setTimeout(resolve, wait);
    });
  }

  _hurry() {
    clearTimeout(this.timer);
    this.wake?.();
  }

  // A page that nobody looks at gives its connection back, and catches up when it is looked at.
  _whenVisible() {
    clearTimeout(this.hiding);
    if (document.hidden) {
      this.hiding = setTimeout(() => {
        this.asleep = true;
        this.abort?.abort();
      }, HIDDEN);
    } else if (this.asleep) {
      this.asleep = false;
      this.wait = FIRST_WAIT;
      this._hurry();
    }
  }
}

// Cuts a text stream into frames, wherever the network has cut it.
export class Frames {
  constructor(take) {
    this.take = take;
    this.rest = "";
  }

  push(text) {
    this.rest += text;
    for (let end = this.rest.search(/\r?\n\r?\n/); end >= 0; end = this.rest.search(/\r?\n\r?\n/)) {
      const frame = this.rest.slice(0, end);
      this.rest = this.rest.slice(end).replace(/^\r?\n\r?\n/, "");
      this._read(frame);
    }
  }

  _read(frame) {
    const read = { id: null, event: "message", data: [] };
    for (const line of frame.split(/\r?\n/)) {
      const colon = line.indexOf(":");
      if (colon <= 0) continue; // a comment, or nothing
      const [field, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
      if (field === "data") read.data.push(value);
      else if (field in read) read[field] = value;
    }
    if (read.data.length) this.take({ ...read, data: read.data.join("\n") });
  }
}
