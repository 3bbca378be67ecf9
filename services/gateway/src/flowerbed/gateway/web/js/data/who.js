// Who looks and what they may do: the gateway says it. What they may not do is not offered.
import { effect, signal } from "../ui/view.js";
import { token } from "../session.js";
import { get } from "./api.js";
import { tenant } from "./tenant.js";

const RANKS = ["viewer", "operator", "admin"];
const ANYWHERE = "*";

export const who = signal(null);

// A gateway that does not tell lets the commands say no themselves.
const UNTOLD = { subject: "", roles: { [ANYWHERE]: "admin" } };

effect(() => {
  who.value = null;
  if (token.value) learn(token.value);
});

async function learn(shown) {
  const found = await get("/whoami", { tenant: null }).catch((error) => (error.status === 404 ? UNTOLD : error));
  if (token.peek() !== shown) return;
  if (found instanceof Error) {
    if (found.status !== 401) setTimeout(() => token.peek() === shown && learn(shown), 2000);
    return;
  }
  const mine = tenants(found);
  if (mine.length > 1 && !mine.includes(tenant.peek())) tenant.value = mine[0];
  if (mine.length <= 1) tenant.value = "";
  who.value = found;
}

// Those that must be chosen between; none where all are seen at once.
export function tenants(one) {
  return ANYWHERE in one.roles ? [] : Object.keys(one.roles).sort();
}

export function may(role, ofTenant = ANYWHERE) {
  const roles = who.value?.roles || {};
  const held = [roles[ANYWHERE], roles[ofTenant]].map((one) => RANKS.indexOf(one));
  return Math.max(...held) >= RANKS.indexOf(role);
}

export function mayAnywhere(role) {
  return Object.values(who.value?.roles || {}).some((one) => RANKS.indexOf(one) >= RANKS.indexOf(role));
}
