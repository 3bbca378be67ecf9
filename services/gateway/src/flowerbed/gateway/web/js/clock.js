// One ticking clock for the whole page, as the server's clock goes.
import { signal } from "./ui/view.js";

let ahead = 0;

export const now = signal(Date.now());
// Finer, for bars that grow; moves only while somebody has asked for it.
export const fine = signal(Date.now());

let wanting = 0;

function tick() {
  if (document.hidden) return;
  now.value = Date.now() + ahead;
}

setInterval(tick, 1000);

setInterval(() => {
  if (wanting && !document.hidden) fine.value = Date.now() + ahead;
}, 200);

export function wantFine() {
  wanting += 1;
  fine.value = Date.now() + ahead;
  return () => {
    wanting -= 1;
  };
}

// What was recorded cannot lie ahead of us: a browser whose clock is slow is moved on.
export function notBefore(moment) {
  const gap = Date.parse(moment) - (Date.now() + ahead);
  if (gap > 0) {
    ahead += gap;
    tick();
  }
}
