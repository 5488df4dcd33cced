// The lasso and the rectangle, which select the photos inside.
import { n } from "./collection.js";
import { elements } from "./elements.js";
import { onScreen, redraw, state } from "./globe.js";
import { changeSelection, isIn } from "./marks.js";

const CORNER = 3; // CSS pixels between the corners of a lasso

/** @typedef {"lasso" | "rectangle"} Shape */

let drawn = /** @type {Shape} */ ("lasso");
/** Whether every drag selects, also without the Shift key. */
let isDrawing = false;

export const selectsOnDrag = () => isDrawing;

/**
 * Let every drag select with a shape, until this is called again.
 * @param {Shape} wanted
 */
function takeUp(wanted) {
  isDrawing = !(isDrawing && drawn === wanted);
  drawn = wanted;
  elements.lasso.setAttribute("aria-pressed", String(isDrawing && drawn === "lasso"));
  elements.rectangle.setAttribute("aria-pressed", String(isDrawing && drawn === "rectangle"));
  elements.overlay.classList.toggle("selects", isDrawing);
}

/** Return to dragging the globe. */
export const putAway = () => isDrawing && takeUp(drawn);

/**
 * @param {number} x CSS pixels
 * @param {number} y CSS pixels
 */
export function beginOutline(x, y) {
  state.outline = [x, y];
}

/**
 * @param {number} x CSS pixels
 * @param {number} y CSS pixels
 */
export function extendOutline(x, y) {
  const { outline } = state;
  if (drawn === "rectangle") {
    const [left, top] = outline;
    state.outline = [left, top, x, top, x, y, left, y];
  } else if (Math.hypot(x - outline[outline.length - 2], y - outline[outline.length - 1]) >= CORNER) outline.push(x, y);
  redraw();
}

/**
 * Select what is inside, and remove the outline.
 * @param {"replace" | "add" | "remove"} how
 */
export function closeOutline(how) {
  const { outline } = state;
  dropOutline();
  if (outline.length > 4) changeSelection(photosInside(outline), how);
}

export function dropOutline() {
  state.outline = [];
  redraw();
}

/**
 * Return the photos inside an outline, as of the last frame: in sight, and left in by the filters.
 * @param {number[]} outline x and y of each corner, in CSS pixels
 */
function photosInside(outline) {
  const xs = outline.filter((_, i) => i % 2 === 0);
  const ys = outline.filter((_, i) => i % 2 === 1);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const photos = [];
  for (let photo = 0; photo < n; photo++) {
    const [x, y, near] = [onScreen[3 * photo], onScreen[3 * photo + 1], onScreen[3 * photo + 2]];
    if (near <= 0 || x < left || x > right || y < top || y > bottom || !isIn(photo)) continue;
    if (isInside(x, y, xs, ys)) photos.push(photo);
  }
  return photos;
}

/**
 * Return whether a ray from a point to the right crosses an odd number of edges.
 * @param {number} x
 * @param {number} y
 * @param {number[]} xs of the corners
 * @param {number[]} ys of the corners
 */
function isInside(x, y, xs, ys) {
  let inside = false;
  for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
    if (ys[i] > y !== ys[j] > y && x < ((xs[j] - xs[i]) * (y - ys[i])) / (ys[j] - ys[i]) + xs[i]) inside = !inside;
  }
  return inside;
}

elements.lasso.onclick = () => takeUp("lasso");
elements.rectangle.onclick = () => takeUp("rectangle");
