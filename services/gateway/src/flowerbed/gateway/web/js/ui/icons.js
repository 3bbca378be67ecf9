// Line icons of 16 by 16, drawn here so that nothing is fetched. Always beside words, so hidden from readers.
import { html } from "./view.js";

const PATHS = {
  federations: "M8 1.8v4M8 10.2v4M1.8 8h4M10.2 8h4M8 5.8a2.2 2.2 0 1 1 0 4.4 2.2 2.2 0 0 1 0-4.4",
  clients: "M2 3.5h12v7H2zM5.5 13.5h5M8 10.5v3",
  services: "M2.5 2.5h11v4h-11zM2.5 9.5h11v4h-11zM5 4.5h.01M5 11.5h.01",
  slos: "M2 13.5h12M4 11V8M8 11V3.5M12 11V6",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6M8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M13 3l-1.2 1.2M4.2 11.8 3 13",
  moon: "M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1Z",
  help: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13M6.2 6.2A1.9 1.9 0 0 1 8 5c1 0 1.9.7 1.9 1.7C9.9 8 8 8.2 8 9.4M8 11.5h.01",
  leave: "M6 2.5H3v11h3M10 5l3 3-3 3M13 8H6.5",
  pause: "M5.5 3v10M10.5 3v10",
  play: "M4.5 2.5 13 8l-8.5 5.5z",
  stop: "M3.5 3.5h9v9h-9z",
  star: "m8 1.8 1.9 3.9 4.3.6-3.1 3 .7 4.3L8 11.6l-3.8 2 .7-4.3-3.1-3 4.3-.6z",
  check: "m2.8 8.5 3.4 3.4 7-7.8",
  cross: "m3.5 3.5 9 9M12.5 3.5l-9 9",
  warn: "M8 1.9 15 13.8H1zM8 6.3v3.5M8 11.8h.01",
  info: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13M8 7.4v3.8M8 4.9h.01",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  download: "M8 2v8.5M4.5 7.3 8 10.8l3.5-3.5M2.5 13.5h11",
  clock: "M8 14.5a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13M8 4.3V8l2.5 1.7",
  left: "M10 3 5 8l5 5",
  right: "m6 3 5 5-5 5",
  plus: "M8 3v10M3 8h10",
  replay: "M13.5 8a5.5 5.5 0 1 1-1.7-4M13.7 1.5v3h-3",
};

export function Icon({ name }) {
  return html`<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} /></svg>`;
}

export function Flower() {
  return html`<svg viewBox="0 0 32 32" aria-hidden="true" focusable="false">
    <g fill="currentColor">
      <ellipse cx="16" cy="8.2" rx="4.6" ry="6.2" /><ellipse cx="16" cy="23.8" rx="4.6" ry="6.2" />
      <ellipse cx="8.2" cy="16" rx="6.2" ry="4.6" /><ellipse cx="23.8" cy="16" rx="6.2" ry="4.6" />
    </g>
    <circle cx="16" cy="16" r="4.4" fill="#f6c453" />
  </svg>`;
}
