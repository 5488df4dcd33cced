// Mouse, touch, keys and buttons; the start of the page.
import { n } from "./collection.js";
import { elements, wheelFactor } from "./elements.js";
import {
  CALM,
  flatten,
  go,
  goTo,
  halt,
  photoAt,
  redraw,
  release,
  reset,
  resize,
  setTheme,
  startGlobe,
  state,
  view,
} from "./globe.js";
import { nextColours, startColours } from "./legend.js";
import { hover, select } from "./panel.js";
import { foundPhotos } from "./search.js";
import { FARTHEST } from "./sphere.js";
import { look } from "./viewer.js";

/** @import { Speed } from "./globe.js" */

const DOUBLE = 400; // milliseconds between the clicks of a double click
const REACH_OF_DOUBLE = 12; // CSS pixels
const LIGHT = matchMedia("(prefers-color-scheme: light)");
const stage = elements.overlay;
/** Positions of the pointers that are down, by their id. */
const pointers = /** @type {Map<number, { x: number, y: number }>} */ (new Map());
/** @type {{ x: number, y: number, speed: Speed, time: number } | null} a single pointer that is down, and where it began */
let pressed = null;
/** The last click. The globe moves aside for the panel, so a second one there means the same photo. */
let clicked = { x: 0, y: 0, time: Number.NEGATIVE_INFINITY, photo: -1 };

/** Return the sum of the distances from the first pointer to the others. */
function spread() {
  const [first, ...others] = pointers.values();
  return others.reduce((sum, { x, y }) => sum + Math.hypot(x - first.x, y - first.y), 0);
}

stage.onpointerdown = (event) => {
  const [x, y] = [event.clientX, event.clientY];
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, { x, y });
  pressed = pointers.size === 1 ? { x, y, speed: { x: 0, y: 0 }, time: event.timeStamp } : null;
  halt();
};

stage.onpointermove = (event) => {
  const [x, y] = [event.clientX, event.clientY];
  const before = pointers.get(event.pointerId);
  if (!before) return hover(photoAt(x, y), x, y);
  const apart = spread();
  pointers.set(event.pointerId, { x, y });
  if (apart) view.approach(spread() / apart);
  const [dx, dy] = [x - before.x, y - before.y];
  view.drag(dx / pointers.size, dy / pointers.size);
  if (pressed) Object.assign(pressed, { speed: { x: dx, y: dy }, time: event.timeStamp });
  hover(-1);
  stage.classList.add("dragged");
  redraw();
};

stage.onpointerup = stage.onpointercancel = (event) => {
  pointers.delete(event.pointerId);
  stage.classList.remove("dragged");
  if (!pressed || event.type === "pointercancel") return;
  const [x, y] = [event.clientX, event.clientY];
  if (Math.hypot(x - pressed.x, y - pressed.y) < 5) click(event);
  else if (event.timeStamp - pressed.time < 50 && !CALM.matches) release(pressed.speed);
  pressed = null;
  redraw();
};

/** @param {PointerEvent} event of a click or a tap */
function click({ clientX: x, clientY: y, timeStamp: time, pointerType }) {
  const isDouble = time - clicked.time < DOUBLE && Math.hypot(x - clicked.x, y - clicked.y) < REACH_OF_DOUBLE;
  const photo = isDouble ? clicked.photo : photoAt(x, y);
  const opens = photo >= 0 && (isDouble || (pointerType === "touch" && photo === state.selected));
  clicked = { x, y, time: opens ? Number.NEGATIVE_INFINITY : time, photo };
  if (photo !== state.selected) select(photo);
  if (opens) look(photo, foundPhotos());
}

stage.onpointerleave = () => hover(-1);

stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    halt();
    const [x, y] = view.middle;
    view.approach(wheelFactor(event), event.clientX - x, event.clientY - y);
    redraw();
  },
  { passive: false },
);

/** @param {number} photo */
function step(photo) {
  select((photo + n) % n);
  goTo(state.selected);
}

const angle = () => 0.35 / view.zoom;
const zoomIn = () => go({ zoom: Math.min(view.zoom * 1.5, view.nearest) }, 200);
const switchTheme = () => setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light");
const ask = () => elements.help.showModal();
const close = () => select(-1);
const open = () => state.selected >= 0 && look(state.selected, foundPhotos());

/** @type {Record<string, () => void>} */
const KEYS = {
  ArrowLeft: () => go({ longitude: view.longitude - angle() }, 200),
  ArrowRight: () => go({ longitude: view.longitude + angle() }, 200),
  ArrowUp: () => go({ latitude: Math.min(view.latitude + angle(), Math.PI / 2) }, 200),
  ArrowDown: () => go({ latitude: Math.max(view.latitude - angle(), -Math.PI / 2) }, 200),
  "+": zoomIn,
  "=": zoomIn,
  "-": () => go({ zoom: Math.max(view.zoom / 1.5, FARTHEST) }, 200),
  0: reset,
  f: flatten,
  c: nextColours,
  n: () => step(state.selected + 1),
  p: () => step(state.selected - 1),
  t: switchTheme,
  "/": () => elements.search.focus(),
  "?": ask,
  Enter: open,
  Escape: close,
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !n) return;
  const { target } = event;
  if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (elements.help.open || !Object.hasOwn(KEYS, event.key)) return;
  if (event.key === "Enter" && target !== stage && target !== document.body) return; // a button
  event.preventDefault();
  KEYS[event.key]();
});

elements.flat.onclick = flatten;
elements.home.onclick = reset;
elements.theme.onclick = switchTheme;
elements.ask.onclick = ask;
elements.photo.onclick = (event) => event.target instanceof HTMLImageElement && open();
elements.close.onclick = close;
LIGHT.onchange = () => setTheme(LIGHT.matches ? "light" : "dark");
addEventListener("resize", resize);

try {
  startGlobe();
  setTheme(LIGHT.matches ? "light" : "dark");
  startColours();
  resize();
} catch (error) {
  elements.trouble.hidden = false;
  const reason = error instanceof Error ? error.message : error;
  elements.trouble.textContent = `Cannot draw the map: ${reason}. Open this page in a current version of another browser.`;
}
