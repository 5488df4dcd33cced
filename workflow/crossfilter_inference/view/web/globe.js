// The globe: what it shows, how it is drawn, and how it moves.
import { mostSimilar, n, places, readThumbnails, regionPlaces, regions, withThumbnail } from "./collection.js";
import { canShowEarth, hasPlaceOnEarth, land, placeBetween } from "./earth.js";
import { elements } from "./elements.js";
import { Ground, Overlay } from "./layers.js";
import { countIn, Filter, isIn, isSelected, whenMarked } from "./marks.js";
import { Originals } from "./originals.js";
import { rgb } from "./painting.js";
import { Points } from "./points.js";
import { clamp, fullestSide, shortestLine, View } from "./sphere.js";
import { chooseThumbnails, HIDDEN, liesUnder, Thumbnails, thumbnailSide } from "./thumbnails.js";

/** @import { NameBox, Theme, ThumbnailBox } from "./layers.js" */
/** @import { Pose } from "./sphere.js" */

/** @typedef {{ x: number, y: number }} Speed CSS pixels a frame */
/** @typedef {{ key: keyof Pose, from: number, to: number }} Change */

const CLOSE_UP = 40; // photos in sight, of which originals are loaded
const MOST_IN_PILES = 100; // photos that the filters leave in, which are all shown, one over the other
const DIM = 36; // opacity of a photo that filters leave out, of 255
const REACH = 14; // CSS pixels from a point to the pointer
const OBSTACLES = [elements.title, elements.bar, elements.filters, elements.legend, elements.panel];
const PHONE = matchMedia("(max-width: 700px)");
export const CALM = matchMedia("(prefers-reduced-motion: reduce)");

export const view = new View(n);
/** Unit vectors of the photos, as they are shown: by likeness, on Earth, or on the way. */
export const shownPlaces = places.slice();
let shownEarth = 0;
/** Leaves out, on Earth, the photos of which nobody knows where they were taken. */
const earthFilter = new Filter();
/** x, y and nearness of each photo, as of the last frame. */
export const onScreen = new Float32Array(3 * n);
export const thumbnails = new Thumbnails(readThumbnails(), withThumbnail, () => redraw());
const ground = new Ground(elements.ground);
const originals = new Originals(() => redraw());
const overlay = new Overlay(elements.overlay, thumbnails, originals);

export const state = {
  hovered: -1, // a photo; -1 is none
  current: -1, // a photo; -1 is none
  shown: new Int32Array(0), // photos with a thumbnail
  obstacles: /** @type {DOMRect[]} */ ([]), // what lies over the globe; no thumbnail and no name is under it
  boxes: /** @type {ThumbnailBox[]} */ ([]), // the topmost is the last
  names: /** @type {NameBox[]} */ ([]),
  left: 0, // where view.left moves to
  right: 0, // where view.right moves to
  top: 0, // where view.top moves to
  bottom: 0, // where view.bottom moves to
  outline: /** @type {number[]} */ ([]), // x and y of each corner of the lasso, in CSS pixels
  frames: 0,
};
let theme = readTheme();
/** Of the colouring. */
let colours = new Uint8Array(4 * n);
/** Of the points: the colouring, with what is marked. */
const painted = new Uint8Array(4 * n);
let isPaintStale = false;
/** What is brought up to date before a frame is drawn. */
const updates = /** @type {(() => void)[]} */ ([]);
/** @type {Points | null} */
let points = null;
/** The request for the next frame; 0 is none. */
let pending = 0;
/** @type {{ changes: Change[], start: number | null, milliseconds: number } | null} */
let flight = null;
/** @type {Speed | null} */
let spin = null;

/** The position at the start: the fullest side. */
export const home = fullestSide(places);

/** Show the globe. */
export function startGlobe() {
  points = new Points(elements.points, shownPlaces);
  elements.earth.hidden = !canShowEarth;
  Object.assign(view, home);
}

/** @returns {Theme} */
function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const value = (/** @type {string} */ key) => style.getPropertyValue(`--${key}`).trim();
  return {
    ink: value("ink"),
    halo: value("halo"),
    accent: value("accent"),
    middle: value("middle"),
    edge: value("edge"),
    lines: value("lines"),
    land: value("land"),
    coast: value("coast"),
  };
}

/** @param {"dark" | "light"} name */
export function setTheme(name) {
  document.documentElement.dataset.theme = name;
  theme = readTheme();
  repaint();
}

/**
 * Set the colours of all photos.
 * @param {Uint8Array<ArrayBuffer>} wanted red, green, blue and 255 of each
 */
export function setColours(wanted) {
  colours = wanted;
  repaint();
}

/** Paint the points anew in the next frame. */
function repaint() {
  isPaintStale = true;
  redraw();
}
whenMarked(repaint);

function paint() {
  const accent = rgb(theme.accent);
  painted.set(colours);
  for (let photo = 0; photo < n; photo++) {
    if (isSelected(photo)) painted.set(accent, 4 * photo);
    if (!isIn(photo)) painted[4 * photo + 3] = view.earth && !hasPlaceOnEarth(photo) ? 0 : DIM;
  }
  points?.paint(painted);
  isPaintStale = false;
}

/**
 * Bring something up to date before each frame.
 * @param {() => void} update
 */
export const beforeFrame = (update) => updates.push(update);

/** @param {number} photo */
const colour = (photo) => `rgb(${painted.subarray(4 * photo, 4 * photo + 3).join()})`;

// ---- drawing

export function redraw() {
  if (!pending && points) pending = requestAnimationFrame(draw);
}

/** @param {number} now milliseconds */
function draw(now) {
  pending = 0;
  for (const update of updates) update();
  if (flight) fly(flight, now);
  if (spin) turn(spin);
  const isMoving = stepAside() || flight || spin;
  if (view.earth !== shownEarth) movePlaces();
  if (isPaintStale) paint();
  view.project(shownPlaces, onScreen);
  const pointSize = clamp(90 / Math.sqrt(n + 1), 2.2, 9) * view.zoom ** 0.3;
  ground.draw(view, theme, land);
  points?.draw(view, pointSize);
  overlay.clear(view);
  overlay.graticule(view, theme);
  const side = thumbnailSide(view, n);
  choosePictures(side);
  state.boxes = [];
  overlay.isCloseUp = state.shown.length <= CLOSE_UP;
  const apart = state.current < 0 ? [] : [state.current, ...mostSimilar(state.current).map(({ photo }) => photo)];
  const byNearness = [...state.shown]
    .filter((photo) => !apart.includes(photo))
    .sort((a, b) => onScreen[3 * a + 2] - onScreen[3 * b + 2]);
  for (const photo of byNearness) {
    drawThumbnail(photo, side * (0.55 + 0.45 * Math.min(1, onScreen[3 * photo + 2] + 0.1)));
  }
  if (state.current >= 0) drawCurrent(Math.max(side, 56));
  overlay.names(state.names, theme);
  if (state.hovered >= 0 && state.hovered !== state.current) {
    if (!drawThumbnail(state.hovered, Math.max(side * 1.25, 64))) drawRing(state.hovered, 8);
  }
  overlay.outline(state.outline, theme);
  state.frames++;
  if (isMoving) redraw();
}

/** Place the photos on the way from likeness to Earth. */
function movePlaces() {
  isPaintStale ||= !view.earth !== !shownEarth; // photos without a place on Earth come or go
  shownEarth = view.earth;
  placeBetween(shownEarth, shownPlaces);
  points?.move(shownPlaces);
}

/**
 * Return the unit vector of a photo, as it is shown: x, y, z.
 * @param {number} photo
 */
const place = (photo) => shownPlaces.subarray(3 * photo, 3 * photo + 3);

/**
 * Choose the thumbnails and the names of regions. If the filters leave few photos in, these come first.
 * @param {number} side of a thumbnail, in CSS pixels
 */
function choosePictures(side) {
  const names = overlay.nameBoxes(view.earth ? [] : regions, view.project(regionPlaces), view, state.obstacles);
  const orders = [state.shown, thumbnails.order];
  if (countIn() < n && countIn() <= MOST_IN_PILES) {
    state.shown = chooseThumbnails(view, onScreen, orders, isIn, side, state.obstacles, side / 2);
    const isUnder = (/** @type {NameBox} */ { x, y, half }, /** @type {number} */ photo) =>
      Math.abs(onScreen[3 * photo] - x) < half + side / 2 && Math.abs(onScreen[3 * photo + 1] - y) < 9 + side / 2;
    state.names = names.filter((box) => !state.shown.some((photo) => isUnder(box, photo)));
    return;
  }
  state.names = names;
  state.shown = chooseThumbnails(view, onScreen, orders, isIn, side, [
    ...names.map(({ x, y, half }) => ({ left: x - half, top: y - 9, right: x + half, bottom: y + 9 })),
    ...state.obstacles,
  ]);
}

/**
 * @param {number} photo
 * @param {number} side CSS pixels
 * @param {number} [frame] its width, in CSS pixels
 * @param {string} [tint] of the frame
 * @returns {boolean} false if the browser has no image yet
 */
function drawThumbnail(photo, side, frame = 2, tint = colour(photo)) {
  const box = overlay.thumbnail(photo, onScreen[3 * photo], onScreen[3 * photo + 1], side, tint, frame);
  if (box) state.boxes.push(box);
  return box !== null;
}

/**
 * @param {number} photo
 * @param {number} radius CSS pixels
 */
function drawRing(photo, radius) {
  if (onScreen[3 * photo + 2] > 0) overlay.ring(onScreen[3 * photo], onScreen[3 * photo + 1], radius, theme.accent);
}

/**
 * Draw the current photo, the most similar photos, and lines to them.
 * @param {number} side CSS pixels
 */
function drawCurrent(side) {
  const isShown = (/** @type {number} */ photo) => !view.earth || hasPlaceOnEarth(photo);
  if (!isShown(state.current)) return;
  const similar = mostSimilar(state.current).filter(({ photo }) => isShown(photo));
  for (const { photo } of similar) {
    overlay.line(view.project(shortestLine(place(state.current), place(photo))), view, theme.accent, 2);
  }
  for (const { photo } of [...similar.reverse(), { photo: state.current }]) {
    if (onScreen[3 * photo + 2] <= HIDDEN) continue;
    const size = photo === state.current ? side * 1.1 : side * 0.9;
    const [x, y] = onScreen.subarray(3 * photo);
    if (photo !== state.current && liesUnder(state.obstacles, x, y, size)) drawRing(photo, 7);
    else if (!drawThumbnail(photo, size, photo === state.current ? 4 : 2, theme.accent)) drawRing(photo, 7);
  }
}

/** Fit the globe into the window, between the filters, the panel, the buttons and the strip. */
export function resize() {
  const { panel, strip, filters } = elements;
  const below = PHONE.matches
    ? Math.max(panel.offsetHeight, strip.offsetHeight, filters.offsetHeight)
    : strip.offsetHeight;
  document.body.style.setProperty("--below", `${strip.offsetHeight}px`);
  view.width = innerWidth;
  view.height = innerHeight - below;
  state.left = PHONE.matches || filters.hidden ? 0 : filters.getBoundingClientRect().right;
  state.right = PHONE.matches || panel.hidden ? 0 : innerWidth - panel.offsetLeft;
  state.top = elements.bar.getBoundingClientRect().bottom;
  state.bottom = roomForLegend();
  state.obstacles = OBSTACLES.map((element) => element.getBoundingClientRect()).filter(({ width }) => width);
  for (const canvas of [elements.ground, elements.points, elements.overlay]) {
    const width = Math.round(view.width * devicePixelRatio);
    const height = Math.round(view.height * devicePixelRatio);
    canvas.style.height = `${view.height}px`;
    // A changed size clears the canvas.
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  }
  redraw();
}

/** On a phone the legend is below the globe, and beside it elsewhere. */
function roomForLegend() {
  const { height, top } = elements.legend.getBoundingClientRect();
  return PHONE.matches && height ? Math.max(view.height - top, 0) : 0;
}

// ---- moving

/**
 * Animate a change of the view.
 * @param {Partial<Pose>} target
 * @param {number} [milliseconds]
 */
export function go(target, milliseconds = 650) {
  const wanted = /** @type {Partial<Pose>} */ ({
    ...Object.fromEntries(unfinished().map(({ key, to }) => [key, to])),
    ...target,
  });
  const changes = /** @type {(keyof Pose)[]} */ (Object.keys(wanted)).map((key) => {
    const from = view[key];
    let to = wanted[key] ?? from;
    if (key === "longitude") to -= Math.round((to - from) / (2 * Math.PI)) * 2 * Math.PI; // the short way round
    return { key, from, to };
  });
  spin = null;
  flight = { changes, start: null, milliseconds: CALM.matches ? 0 : milliseconds };
  redraw();
}

/**
 * Go to a photo.
 * @param {number} photo
 */
export function goTo(photo) {
  const [x, y, z] = place(photo);
  if (!(x || y || z)) return; // it has no place on Earth
  const latitude = Math.asin(clamp(z, -1, 1));
  go({ longitude: Math.atan2(y, x), latitude, zoom: Math.max(view.zoom, 2.2) });
}

/** Return the position that shows most photos. */
const fullest = () => (view.earth < 0.5 ? home : fullestSide(locatedPlaces(1)));

/**
 * Return the unit vectors of the photos that have a place on Earth.
 * @param {number} share as for `placeBetween`
 */
function locatedPlaces(share) {
  const all = new Float32Array(3 * n);
  placeBetween(share, all);
  return all.filter((_, i) => hasPlaceOnEarth(Math.floor(i / 3)));
}

/** Show the whole globe again. */
export const reset = () => go({ ...fullest(), zoom: 1 });

/** Move all photos to where they were taken, or back to where they are by likeness. */
export function toggleEarth() {
  if (!canShowEarth) return;
  const isEarth = view.earth < 0.5;
  showEarth(isEarth);
  go({ ...(isEarth ? fullestSide(locatedPlaces(1)) : home), zoom: 1, earth: isEarth ? 1 : 0 }, 1000);
}

/**
 * Mark that Earth is shown, or not.
 * @param {boolean} isEarth
 */
export function showEarth(isEarth) {
  elements.earth.setAttribute("aria-pressed", String(isEarth));
  if (isEarth !== earthFilter.isActive) earthFilter.apply(isEarth ? hasPlaceOnEarth : null);
}

/** Switch between the globe and the flat map, and show all of it. */
export function flatten() {
  const isGlobe = view.flatness < 0.5;
  elements.flat.setAttribute("aria-pressed", String(isGlobe));
  go({ flatness: isGlobe ? 1 : 0, zoom: 1 });
}

/**
 * Zoom, and keep the position under the pointer where it is. Zooming in ends when no photo would be left in sight.
 * @param {number} factor above 1 zooms in
 * @param {number} [x] of the pointer from the middle of the sphere, in CSS pixels
 * @param {number} [y]
 */
export function zoom(factor, x = 0, y = 0) {
  const { longitude, latitude, zoom: before } = view;
  view.approach(factor, x, y);
  if (factor > 1 && !isAnyInSight()) Object.assign(view, { longitude, latitude, zoom: before });
  redraw();
}

/**
 * Return whether a photo is in sight: one of those that the filters leave in, or of others.
 * @param {(photo: number) => boolean} [isWanted]
 */
export function isAnyInSight(isWanted = isIn) {
  const screen = view.project(shownPlaces);
  for (let i = 0; i < n; i++) {
    const [x, y, near] = screen.subarray(3 * i, 3 * i + 3);
    if (
      near > 0 &&
      x > view.left &&
      x < view.width - view.right &&
      y > view.top &&
      y < view.height - view.bottom &&
      isWanted(i)
    )
      return true;
  }
  return false;
}

/** Return the changes of the flight that are never left half-way: to the flat map or Earth, and back. */
const unfinished = () => (flight?.changes ?? []).filter(({ key }) => key === "flatness" || key === "earth");

/**
 * Stop moving.
 * @param {boolean} [atOnce] whether even a change to the flat map or to Earth ends half-way
 */
export function halt(atOnce = false) {
  const changes = atOnce ? [] : unfinished();
  flight = flight && changes.length ? { ...flight, changes } : null;
  spin = null;
}

/**
 * Keep rotating, and slow down.
 * @param {Speed} speed
 */
export function release(speed) {
  spin = { ...speed };
}

/**
 * Make one step of a flight.
 * @param {NonNullable<typeof flight>} current
 * @param {number} now milliseconds
 */
function fly(current, now) {
  current.start ??= now;
  const t = current.milliseconds ? Math.min(1, (now - current.start) / current.milliseconds) : 1;
  const share = t * t * (3 - 2 * t);
  for (const { key, from, to } of current.changes) view[key] = from + share * (to - from);
  view.limit();
  if (t === 1) flight = null;
}

/**
 * Make one step of a spin.
 * @param {Speed} speed
 */
function turn(speed) {
  view.drag(speed.x, speed.y);
  speed.x *= 0.94;
  speed.y *= 0.94;
  if (Math.hypot(speed.x, speed.y) < 0.15) spin = null;
}

/**
 * Make one step to the position between the filters and the panel.
 * @returns {boolean} whether the globe moved
 */
function stepAside() {
  let moved = false;
  for (const side of /** @type {("left" | "right" | "top" | "bottom")[]} */ (["left", "right", "top", "bottom"])) {
    const distance = state[side] - view[side];
    if (CALM.matches || Math.abs(distance) < 0.5) view[side] = state[side];
    else view[side] += 0.25 * distance;
    moved ||= distance !== 0;
  }
  return moved;
}

/**
 * Find the photo at a position of the screen: the topmost thumbnail, or else the nearest point.
 * @param {number} x CSS pixels
 * @param {number} y CSS pixels
 * @returns {number} -1 is none
 */
export function photoAt(x, y) {
  const isUnder = (/** @type {ThumbnailBox} */ box) =>
    Math.abs(box.x - x) <= box.halfWidth && Math.abs(box.y - y) <= box.halfHeight;
  const topmost = state.boxes.findLast(isUnder);
  if (topmost) return topmost.photo;
  let [found, least] = [-1, REACH * REACH];
  for (let i = 0; i < n; i++) {
    const [dx, dy] = [onScreen[3 * i] - x, onScreen[3 * i + 1] - y];
    const distance = dx * dx + dy * dy;
    if (distance < least && onScreen[3 * i + 2] > 0 && isIn(i)) [found, least] = [i, distance];
  }
  return found;
}
