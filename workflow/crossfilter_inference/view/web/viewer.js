// The viewer: one photo as large as the window, its original where the browser can show it.
import { isMissing, mostSimilar, nameOf, path } from "./collection.js";
import { create, elements, wheelFactor } from "./elements.js";
import { goTo, state, thumbnails } from "./globe.js";
import { address, isOfBrowsers } from "./originals.js";
import { describe, setCurrent } from "./panel.js";
import { clamp } from "./sphere.js";

const NEAREST_IMAGE = 4; // screen pixels to a pixel of the original, at the largest zoom
const SWIPE = 60; // CSS pixels

/** The photos that the arrow keys step through, and the position of the one shown. */
let series = { photos: /** @type {number[]} */ ([]), at: 0 };
/** How the image is magnified and moved, in CSS pixels from the middle. */
const pose = { scale: 1, x: 0, y: 0 };
/** Positions of the pointers that are down, by their id. */
const touches = /** @type {Map<number, { x: number, y: number }>} */ (new Map());
let swiped = 0;

/**
 * Open a photo.
 * @param {number} photo
 * @param {number[]} [photos] those to step through; by default, the photo and the most similar ones
 */
export function look(photo, photos) {
  const similar = () => [photo, ...mostSimilar(photo).map((neighbour) => neighbour.photo)];
  const all = photos?.includes(photo) ? photos : similar();
  series = { photos: all, at: all.indexOf(photo) };
  elements.viewer.showModal();
  show();
  elements.viewer.focus(); // not the first button
}

/** Show the current photo: its thumbnail at once, and the original as soon as it is loaded. */
function show() {
  const photo = series.photos[series.at];
  const { large, preview, story } = elements;
  preview.hidden = !thumbnails.has(photo);
  if (!preview.hidden) preview.src = thumbnails.source(photo);
  large.hidden = true;
  large.removeAttribute("src");
  elements.viewer.classList.remove("failed");
  const source = isMissing(photo) ? "" : address(photo);
  if (source) large.src = source;
  else fail(photo);
  large.alt = `photo ${nameOf(photo)}`;
  const { at, photos } = series;
  story.replaceChildren(...describe(photo), create("div", `${at + 1} of ${photos.length}`, "count"));
  elements.previous.disabled = at === 0;
  elements.next.disabled = at === photos.length - 1;
  if (document.activeElement instanceof HTMLButtonElement && document.activeElement.disabled) elements.viewer.focus();
  magnify(0);
}

/** @param {number} photo whose original cannot be shown */
function fail(photo) {
  elements.viewer.classList.add("failed");
  const format = /\.([^./]+)$/.exec(path(photo))?.[1].toUpperCase();
  let reason = "Cannot open the file at its path";
  if (isMissing(photo)) reason = "The file is missing";
  else if (format && !isOfBrowsers(photo)) reason = `This browser cannot show ${format} files`;
  elements.excuse.textContent = `${reason}${elements.preview.hidden ? "" : "; showing the thumbnail instead"}.`;
}

/** @param {number} by */
function stepInSeries(by) {
  const at = series.at + by;
  if (at < 0 || at >= series.photos.length) return;
  series.at = at;
  show();
}

/**
 * Magnify the image by a factor, so that a position stays where it is.
 * @param {number} factor
 * @param {number} [x] CSS pixels from the middle
 * @param {number} [y] CSS pixels from the middle
 */
function magnify(factor, x = 0, y = 0) {
  const { large } = elements;
  const fitted = Math.max(large.offsetWidth, 1);
  const most = Math.max((NEAREST_IMAGE * large.naturalWidth) / fitted / devicePixelRatio, 1);
  const scale = clamp(pose.scale * factor, 1, most);
  const by = scale / pose.scale;
  Object.assign(pose, { scale, x: x - by * (x - pose.x), y: y - by * (y - pose.y) });
  move(0, 0);
}

/**
 * Move the image, but not out of the window.
 * @param {number} dx CSS pixels
 * @param {number} dy CSS pixels
 */
function move(dx, dy) {
  const { large } = elements;
  const most = (/** @type {number} */ side, /** @type {number} */ room) => Math.max((pose.scale * side - room) / 2, 0);
  const [wide, high] = [most(large.offsetWidth, innerWidth), most(large.offsetHeight, innerHeight)];
  pose.x = clamp(pose.x + dx, -wide, wide);
  pose.y = clamp(pose.y + dy, -high, high);
  large.style.transform = `translate(${pose.x}px, ${pose.y}px) scale(${pose.scale})`;
  elements.viewer.classList.toggle("magnified", pose.scale > 1);
}

/** Make the original as large as the window, but no larger than it may be magnified. */
function fit() {
  const { naturalWidth: width, naturalHeight: height } = elements.large;
  if (!width) return;
  const share = Math.min(innerWidth / width, innerHeight / height, NEAREST_IMAGE / devicePixelRatio);
  Object.assign(elements.large.style, { width: `${share * width}px`, height: `${share * height}px` });
  move(0, 0);
}

/** @param {{ clientX: number, clientY: number }} event */
const fromMiddle = ({ clientX, clientY }) =>
  /** @type {[number, number]} */ ([clientX - innerWidth / 2, clientY - innerHeight / 2]);

/** Return the distance of the first two pointers that are down; 0 if there is only one. */
function pinch() {
  const [first, second] = touches.values();
  return second ? Math.hypot(second.x - first.x, second.y - first.y) : 0;
}

const { viewer: dialog, large: image, table: desk } = elements;

image.onload = () => {
  image.hidden = false;
  elements.preview.hidden = true;
  fit();
};
image.onerror = () => {
  if (image.hasAttribute("src")) fail(series.photos[series.at]);
};

desk.onpointerdown = (event) => {
  desk.setPointerCapture(event.pointerId);
  touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
  swiped = 0;
};
desk.onpointermove = (event) => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  const apart = pinch();
  touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (apart) magnify(pinch() / apart, ...fromMiddle(event));
  const [dx, dy] = [(event.clientX - before.x) / touches.size, (event.clientY - before.y) / touches.size];
  swiped += dx;
  move(dx, dy);
};
desk.onpointerup = desk.onpointercancel = (event) => {
  touches.delete(event.pointerId);
  if (pose.scale > 1 || touches.size || event.type === "pointercancel") return;
  if (Math.abs(swiped) > SWIPE) stepInSeries(swiped < 0 ? 1 : -1);
};
desk.ondblclick = (event) => {
  const original = image.naturalWidth / Math.max(image.offsetWidth, 1) / devicePixelRatio;
  magnify(pose.scale > 1 ? 0 : Math.max(original, 2), ...fromMiddle(event));
};
desk.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    magnify(wheelFactor(event), ...fromMiddle(event));
  },
  { passive: false },
);

/** @type {Record<string, () => void>} */
const KEYS_OF_VIEWER = {
  ArrowLeft: () => stepInSeries(-1),
  ArrowRight: () => stepInSeries(1),
  "+": () => magnify(1.5),
  "=": () => magnify(1.5),
  "-": () => magnify(1 / 1.5),
  0: () => magnify(0),
};
dialog.onkeydown = (event) => {
  event.stopPropagation(); // the keys of the globe rest
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS_OF_VIEWER, event.key)) return;
  event.preventDefault();
  KEYS_OF_VIEWER[event.key]();
};
dialog.onclose = () => {
  if (dialog.open) return; // this event comes late; another photo has been opened since
  image.removeAttribute("src");
  const photo = series.photos[series.at];
  if (photo === state.current) return;
  setCurrent(photo);
  goTo(photo);
};
elements.previous.onclick = () => stepInSeries(-1);
elements.next.onclick = () => stepInSeries(1);
elements.back.onclick = () => dialog.close();
addEventListener("resize", fit);
