// The one place that knows which view library draws the page.
import { h, render } from "../../vendor/preact.module.js";
import htm from "../../vendor/htm.module.js";

export { render };
export { useEffect, useRef, useState, useMemo, useLayoutEffect } from "../../vendor/preact-hooks.module.js";
export { batch, computed, effect, signal } from "../../vendor/signals.module.js";
export const html = htm.bind(h);
