// Light or dark: as the system has it, until a person chooses.
import { signal } from "./view.js";

const KEY = "flowerbed.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export const theme = signal(document.documentElement.dataset.theme || "light");

function set(name) {
  document.documentElement.dataset.theme = name;
  theme.value = name;
}

export function toggleTheme() {
  const next = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem(KEY, next);
  set(next);
}

system.addEventListener("change", (change) => {
  if (!localStorage.getItem(KEY)) set(change.matches ? "dark" : "light");
});

// A colour as the style sheet has it now; for what is drawn on a canvas.
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
