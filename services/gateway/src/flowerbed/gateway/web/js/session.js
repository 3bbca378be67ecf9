// Who looks: the token in this tab's session storage, and nowhere else.
import { signal } from "./ui/view.js";

const KEY = "flowerbed.token";

export const token = signal(handedOver() || sessionStorage.getItem(KEY) || "");
export const refused = signal("");

// `#token=…` in the address is taken once, and is gone from the address before anything is drawn.
function handedOver() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return "";
  history.replaceState(null, "", location.pathname + location.search);
  const given = decodeURIComponent(found[1]);
  sessionStorage.setItem(KEY, given);
  return given;
}

export function signIn(given) {
  sessionStorage.setItem(KEY, given);
  refused.value = "";
  token.value = given;
}

export function signOut(why = "") {
  sessionStorage.removeItem(KEY);
  refused.value = why;
  token.value = "";
}
