// The address says what the page shows: view, current photo, filters, search, colours and selection. So a link can be
// kept, Back works, and reloading changes nothing.
import { data, n } from "./collection.js";
import { MENU } from "./colourings.js";
import { canShowEarth } from "./earth.js";
import { elements } from "./elements.js";
import { filters } from "./filters.js";
import { beforeFrame, halt, home, redraw, showEarth, state, view } from "./globe.js";
import { paintChosen } from "./legend.js";
import { changeSelection, selectedPhotos, whenMarked } from "./marks.js";
import { setCurrent } from "./panel.js";
import { search } from "./search.js";
import { clamp, FARTHEST } from "./sphere.js";

const REST = 400; // milliseconds without a change before the address is written
const BURST = 1500; // milliseconds; of the changes within, Back undoes all at once
const MOST_SELECTED = 4000; // selected photos in the address; more are kept in the browser's history alone
const DIGITS = 12; // hexadecimal digits of a UUID that stand for a photo

/** @typedef {import("./sphere.js").Pose} Pose */

/** @type {Pose} */
const START = { ...home, zoom: 1, flatness: 0, earth: 0 };

let writing = 0;
let lastPush = 0;
/** What the address said last, apart from the view. */
let lastText = shownContents().text;
let isRestoring = false;

/** @param {number} photo */
const shortUuid = (photo) => data.uuids[photo].replaceAll("-", "").slice(0, DIGITS);

/** @type {Map<string, number> | null} */
let photoOf = null;

/** @param {string} name as `shortUuid` returns it */
function findPhoto(name) {
  if (!name) return -1;
  photoOf ??= new Map(Array.from({ length: n }, (_, photo) => [shortUuid(photo), photo]));
  return photoOf.get(name) ?? -1;
}

/** Return what the page shows, apart from the view. */
function shownContents() {
  const parts = new URLSearchParams();
  if (state.current >= 0) parts.set("photo", shortUuid(state.current));
  if (elements.search.value.trim()) parts.set("search", elements.search.value.trim());
  for (const filter of filters) for (const word of filter.words) parts.append(filter.name, word);
  if (elements.colour.value !== MENU[0]) parts.set("colour", elements.colour.value);
  const selection = selectedPhotos();
  if (selection.length && selection.length <= MOST_SELECTED) parts.set("selected", selection.map(shortUuid).join(""));
  return { parts, selection, text: `${parts} ${selection.length}` };
}

/** Return the view in degrees; empty if it is that of the start. */
function viewText() {
  const degrees = (/** @type {number} */ angle) => ((angle * 180) / Math.PI).toFixed(3);
  const text = (/** @type {Pose} */ pose) =>
    [
      degrees(pose.latitude),
      degrees(pose.longitude),
      pose.zoom.toFixed(3),
      Math.round(pose.flatness),
      Math.round(pose.earth),
    ].join();
  const now = text(view);
  return now === text(START) ? "" : now;
}

/**
 * Read a view, as `viewText` writes it.
 * @param {string} text
 * @returns {Pose}
 */
function readView(text) {
  const [latitude, longitude, zoom, flatness, earth] = text.split(",").map(Number);
  if (!Number.isFinite(latitude + longitude + zoom + flatness + earth)) return START;
  return {
    latitude: (latitude * Math.PI) / 180,
    longitude: (longitude * Math.PI) / 180,
    zoom: clamp(zoom, FARTHEST, view.nearest),
    flatness: clamp(Math.round(flatness), 0, 1),
    earth: canShowEarth ? clamp(Math.round(earth), 0, 1) : 0,
  };
}

/** Write the address. */
function writeAddress() {
  writing = 0;
  const { parts, selection, text } = shownContents();
  const pose = viewText();
  if (pose) parts.set("view", pose);
  const hash = parts.size ? `#${parts}` : location.pathname + location.search;
  const memory = { selected: selection.length > MOST_SELECTED ? selection : null };
  const isNew = text !== lastText && performance.now() - lastPush > BURST;
  lastText = text;
  if (isNew) {
    lastPush = performance.now();
    history.pushState(memory, "", hash);
  } else if (hash !== (location.hash || location.pathname + location.search) || memory.selected) {
    history.replaceState(memory, "", hash);
  }
}

/** Write the address when the page has been at rest for a while. */
function remember() {
  if (isRestoring) return;
  clearTimeout(writing);
  writing = setTimeout(writeAddress, REST);
}

/** Show what the address says. */
export function restore() {
  isRestoring = true;
  const parts = new URLSearchParams(location.hash.slice(1));
  for (const filter of filters) filter.words = parts.getAll(filter.name);
  elements.search.value = parts.get("search") ?? "";
  search();
  const colour = parts.get("colour") ?? MENU[0];
  if (MENU.includes(colour) && colour !== elements.colour.value) {
    elements.colour.value = colour;
    paintChosen();
  }
  const names = (parts.get("selected") ?? "").match(RegExp(`.{${DIGITS}}`, "g")) ?? [];
  changeSelection(history.state?.selected ?? names.map(findPhoto).filter((photo) => photo >= 0));
  const photo = findPhoto(parts.get("photo") ?? "");
  if (photo !== state.current) setCurrent(photo);
  const pose = readView(parts.get("view") ?? "");
  halt(true);
  Object.assign(view, pose);
  view.limit();
  showEarth(view.earth === 1);
  elements.flat.setAttribute("aria-pressed", String(view.flatness > 0.5));
  lastText = shownContents().text;
  isRestoring = false;
  redraw();
}

addEventListener("popstate", restore);
whenMarked(remember);
beforeFrame(remember);
