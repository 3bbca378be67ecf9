// Which page is shown: `#/federations/fed-1?round=3&at=120`. The address says all of it.
import { signal } from "./ui/view.js";

export const route = signal(read());

function read() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return {
    page: parts[0] || "federations",
    id: parts[1] || null,
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

addEventListener("hashchange", () => {
  const before = route.value;
  route.value = read();
  const samePlace = before.page === route.value.page && before.id === route.value.id;
  if (!samePlace) {
    scrollTo(0, 0);
    requestAnimationFrame(() => document.getElementById("main")?.focus({ preventScroll: true }));
  }
});

export function link(page, id = null, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== "");
  const asked = new URLSearchParams(kept).toString();
  return `#/${page}${id ? `/${encodeURIComponent(id)}` : ""}${asked ? `?${asked}` : ""}`;
}

export function go(page, id = null, query = {}) {
  location.hash = link(page, id, query);
}

// Changes what the address says of this page; without `keep`, the way back skips it.
export function setQuery(changes, { keep = false } = {}) {
  const { page, id, query } = route.value;
  const next = link(page, id, { ...query, ...changes });
  if (next === location.hash) return;
  if (keep) {
    location.hash = next;
  } else {
    history.replaceState(null, "", next);
    route.value = read();
  }
}
