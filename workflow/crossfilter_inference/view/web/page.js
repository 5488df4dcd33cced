// Mouse, touch, keys and buttons; the start of the page.
import { restore } from "./address.js";
import { n } from "./collection.js";
import { elements, wheelFactor } from "./elements.js";
import { selectLeft, toggleFilters } from "./filters.js";
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
  toggleEarth,
  view,
  zoom,
} from "./globe.js";
import { beginOutline, closeOutline, dropOutline, extendOutline, putAway, selectsOnDrag } from "./lasso.js";
import { nextColours, startColours } from "./legend.js";
import { changeSelection, isSelected } from "./marks.js";
import { hover, setCurrent } from "./panel.js";
import { FARTHEST } from "./sphere.js";
import { stripPhotos } from "./strip.js";
import { look } from "./viewer.js";

/** @import { Speed } from "./globe.js" */

const DOUBLE = 400; // milliseconds between the clicks of a double click
const REACH_OF_DOUBLE = 12; // CSS pixels
const THEME = "crossfilter-inference-theme";
const LIGHT = matchMedia("(prefers-color-scheme: light)");
const stage = elements.overlay;
/** Positions of the pointers that are down, by their id. */
const pointers = /** @type {Map<number, { x: number, y: number }>} */ (new Map());
/** @type {{ x: number, y: number, speed: Speed, time: number, selects: boolean } | null} a single pointer that is down, and where it began */
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
  const selects = event.shiftKey || selectsOnDrag();
  pressed = pointers.size === 1 ? { x, y, speed: { x: 0, y: 0 }, time: event.timeStamp, selects } : null;
  if (pressed?.selects) beginOutline(x, y);
  else dropOutline();
  halt();
};

stage.onpointermove = (event) => {
  const [x, y] = [event.clientX, event.clientY];
  const before = pointers.get(event.pointerId);
  if (!before) return hover(photoAt(x, y), x, y);
  const apart = spread();
  pointers.set(event.pointerId, { x, y });
  if (pressed?.selects) {
    hover(-1);
    return extendOutline(x, y);
  }
  if (apart) zoom(spread() / apart);
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
  if (!pressed || event.type === "pointercancel") return dropOutline();
  const [x, y] = [event.clientX, event.clientY];
  const isClick = Math.hypot(x - pressed.x, y - pressed.y) < 5 && state.outline.length <= 4;
  if (pressed.selects && !isClick)
    closeOutline(event.altKey ? "remove" : event.ctrlKey || event.metaKey ? "add" : "replace");
  else dropOutline();
  if (isClick) click(event);
  else if (pressed.selects) stage.focus();
  else if (event.timeStamp - pressed.time < 50 && !CALM.matches) release(pressed.speed);
  pressed = null;
  redraw();
};

/** @param {PointerEvent} event of a click or a tap */
function click({ clientX: x, clientY: y, timeStamp: time, pointerType, ctrlKey, metaKey }) {
  if (ctrlKey || metaKey) {
    const photo = photoAt(x, y);
    if (photo >= 0) changeSelection([photo], isSelected(photo) ? "remove" : "add");
    return;
  }
  const isDouble = time - clicked.time < DOUBLE && Math.hypot(x - clicked.x, y - clicked.y) < REACH_OF_DOUBLE;
  const photo = isDouble ? clicked.photo : photoAt(x, y);
  const opens = photo >= 0 && (isDouble || (pointerType === "touch" && photo === state.current));
  clicked = { x, y, time: opens ? Number.NEGATIVE_INFINITY : time, photo };
  if (photo !== state.current) setCurrent(photo);
  if (opens) look(photo, stripPhotos());
}

stage.onpointerleave = () => hover(-1);

stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    halt();
    const [x, y] = view.middle;
    zoom(wheelFactor(event), event.clientX - x, event.clientY - y);
  },
  { passive: false },
);

/** @param {number} photo */
function step(photo) {
  setCurrent((photo + n) % n);
  goTo(state.current);
}

const angle = () => 0.35 / view.zoom;

function zoomIn() {
  const before = view.zoom;
  zoom(1.5);
  const target = view.zoom;
  view.zoom = before;
  go({ zoom: target }, 200);
}

function ask() {
  elements.help.showModal();
  elements.help.scrollTop = 0; // the browser scrolls to the first button
}

const close = () => setCurrent(-1);
const open = () => state.current >= 0 && look(state.current, stripPhotos());

function switchTheme() {
  const theme = document.documentElement.dataset.theme === "light" ? "dark" : "light";
  setTheme(theme);
  try {
    localStorage.setItem(THEME, theme);
  } catch {} // the browser keeps nothing
}

/** Return the theme that was chosen last, or else the system's. */
function preferredTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem(THEME);
  } catch {}
  return chosen === "light" || (chosen !== "dark" && LIGHT.matches) ? "light" : "dark";
}

/** Leave what was entered last: selecting by drags, the current photo, then the selection. */
function leave() {
  if (selectsOnDrag()) putAway();
  else if (state.current >= 0) close();
  else changeSelection([]);
}

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
  e: toggleEarth,
  c: nextColours,
  n: () => step(state.current + 1),
  p: () => step(Math.max(state.current, 0) - 1),
  t: switchTheme,
  "/": () => elements.search.focus(),
  "?": ask,
  Enter: open,
  x: toggleFilters,
  l: () => elements.lasso.click(),
  r: () => elements.rectangle.click(),
  Escape: leave,
};

addEventListener("keydown", (event) => {
  const { target } = event;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key; // with Shift or Caps Lock, too
  if ((event.ctrlKey || event.metaKey) && key === "a" && !(target instanceof HTMLInputElement)) {
    event.preventDefault();
    return selectLeft();
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !n) return;
  if (target instanceof HTMLInputElement || target instanceof HTMLSelectElement) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (elements.help.open || !Object.hasOwn(KEYS, key)) return;
  if (key === "Enter" && target !== stage && target !== document.body) return; // a button
  event.preventDefault();
  KEYS[key]();
});

elements.flat.onclick = flatten;
elements.earth.onclick = toggleEarth;
elements.home.onclick = reset;
elements.theme.onclick = switchTheme;
elements.ask.onclick = ask;
elements.photo.onclick = (event) => event.target instanceof HTMLImageElement && open();
elements.close.onclick = close;
LIGHT.onchange = () => setTheme(preferredTheme());
addEventListener("resize", resize);

try {
  startGlobe();
  setTheme(preferredTheme());
  startColours();
  resize();
  Object.assign(view, { top: state.top, bottom: state.bottom }); // nothing moves at the start
  restore();
} catch (error) {
  elements.trouble.hidden = false;
  const reason = error instanceof Error ? error.message : error;
  elements.trouble.textContent = `Cannot draw the globe: ${reason}. Open this page in a current version of another browser.`;
}
