// A status is told three ways at once: by its colour, by its word and by its shape.
import { html } from "./view.js";

const SHAPES = {
  ring: html`<circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="2" />`,
  half: html`<circle cx="6" cy="6" r="4.2" fill="none" stroke="currentColor" stroke-width="1.6" /><path d="M6 1.8a4.2 4.2 0 0 1 0 8.4z" fill="currentColor" />`,
  dot: html`<circle cx="6" cy="6" r="4.5" fill="currentColor" />`,
  check: html`<path d="m1.8 6.4 2.8 2.8 5.6-6.2" fill="none" stroke="currentColor" stroke-width="2.2" />`,
  cross: html`<path d="m2.2 2.2 7.6 7.6M9.8 2.2 2.2 9.8" fill="none" stroke="currentColor" stroke-width="2.2" />`,
  pause: html`<path d="M4 2v8M8 2v8" fill="none" stroke="currentColor" stroke-width="2.4" />`,
  square: html`<rect x="2" y="2" width="8" height="8" fill="currentColor" />`,
  triangle: html`<path d="M6 1.2 11.2 10.5H.8z" fill="currentColor" />`,
  diamond: html`<path d="M6 .8 11.2 6 6 11.2.8 6z" fill="currentColor" />`,
};

const STATUSES = {
  submitted: ["info", "ring"], created: ["info", "ring"], running: ["accent", "half"],
  training: ["accent", "half"], evaluating: ["accent", "half"],
  paused: ["warn", "pause"], completed: ["ok", "check"], failed: ["bad", "cross"],
  rejected: ["bad", "cross"], cancelled: ["idle", "square"],
  asked: ["info", "ring"], replaced: ["idle", "square"], accepted: ["ok", "check"],
  quarantined: ["warn", "triangle"],
  issued: ["info", "ring"], joined: ["ok", "dot"], dropped: ["bad", "cross"], released: ["idle", "square"],
  invited: ["info", "ring"], enrolled: ["ok", "dot"], revoked: ["bad", "cross"], expired: ["bad", "cross"],
  ready: ["ok", "check"], "not ready": ["bad", "cross"], away: ["bad", "cross"],
  met: ["ok", "check"], missed: ["bad", "cross"], "no data yet": ["idle", "ring"], near: ["warn", "triangle"],
  base: ["idle", "diamond"], checkpoint: ["accent", "dot"],
};

export function toneOf(status) {
  return (STATUSES[status] || ["idle"])[0];
}

export function Badge({ status, word = status, bare = false }) {
  const [tone, shape] = STATUSES[status] || ["idle", "ring"];
  return html`<span class="badge tone-${tone} ${bare ? "bare" : ""}">
    <svg viewBox="0 0 12 12" aria-hidden="true" focusable="false">${SHAPES[shape]}</svg>${word}</span>`;
}

export function Bar({ share, tone = "", label }) {
  const full = Math.max(0, Math.min(1, share || 0));
  return html`<div class="bar ${tone ? `tone-${tone}` : ""}" role="progressbar" aria-label=${label}
    aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(full * 100)}>
    <i style=${{ width: `${full * 100}%` }} /></div>`;
}
