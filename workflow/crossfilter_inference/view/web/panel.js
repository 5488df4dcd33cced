// The facts about a photo: the card at the pointer, and the panel of the current photo.
import {
  camera,
  data,
  folders,
  isMissing,
  latitude,
  longitude,
  mostSimilar,
  n,
  nameOf,
  nNeighbours,
  path,
  quality,
  regionOf,
  taken,
} from "./collection.js";
import { create, elements, printable } from "./elements.js";
import { goTo, redraw, resize, state, thumbnails } from "./globe.js";
import { changeSelection } from "./marks.js";
import { address } from "./originals.js";
import { clamp } from "./sphere.js";

/** @import { Neighbour } from "./collection.js" */

const NEAR = 0.001; // degrees

/**
 * Show the card of a photo at the pointer.
 * @param {number} photo -1 hides the card
 * @param {number} [x] CSS pixels
 * @param {number} [y] CSS pixels
 */
export function hover(photo, x = 0, y = 0) {
  const { card } = elements;
  card.hidden = photo < 0;
  if (photo >= 0) {
    card.replaceChildren(...describe(photo));
    const isTooFarRight = x + 18 + card.offsetWidth > innerWidth;
    card.style.left = `${Math.max(8, isTooFarRight ? x - 18 - card.offsetWidth : x + 18)}px`;
    card.style.top = `${clamp(y + 18, 8, innerHeight - card.offsetHeight - 8)}px`;
  }
  if (photo !== state.hovered) redraw();
  state.hovered = photo;
}

/**
 * Make a photo the current one, and show it in the panel.
 * @param {number} photo -1 is none
 */
export function setCurrent(photo) {
  state.current = photo;
  elements.panel.hidden = photo < 0;
  document.body.classList.toggle("has-panel", photo >= 0);
  if (photo >= 0) {
    const facts = [data.regions[regionOf[photo]]?.name, camera(photo), placeOnEarth(photo)];
    if (nNeighbours) facts.push(`${quality[photo]}% of its most similar photos are near it on the map`);
    elements.photo.replaceChildren(...portrait(photo), ...describe(photo));
    elements.facts.textContent = facts.filter(Boolean).join(" · ");
    const here = takenWhere(photo);
    elements.here.hidden = here.length < 2;
    elements.here.textContent = `Select all ${here.length.toLocaleString("en")} photos taken here`;
    elements.here.onclick = () => changeSelection(here);
    elements.open.hidden = isMissing(photo) || !address(photo);
    elements.open.href = address(photo);
    elements.neighbours.replaceChildren(...mostSimilar(photo).map(neighbourItem));
  }
  hover(-1);
  resize();
}

/**
 * Describe a photo: one element for each fact.
 * @param {number} photo
 */
export function describe(photo) {
  const name = data.names[photo];
  const lines = name ? [create("div", name, "name")] : [];
  lines.push(create("div", data.folders[folders[photo]], "path"));
  const time = taken(photo);
  if (time) lines.push(create("div", time.replace("T", " "), "taken"));
  if (isMissing(photo)) lines.push(create("div", "file missing", "missing"));
  lines.push(create("div", data.uuids[photo], "uuid"));
  return lines;
}

/**
 * Describe where a photo was taken, such as `48.137° N, 11.575° E`; empty if it is not known.
 * @param {number} photo
 */
function placeOnEarth(photo) {
  const [north, east] = [latitude(photo), longitude(photo)];
  if (north === null || east === null) return "";
  const side = (/** @type {number} */ degrees, /** @type {string} */ plus, /** @type {string} */ minus) =>
    `${Math.abs(degrees).toFixed(3)}° ${degrees < 0 ? minus : plus}`;
  return `${side(north, "N", "S")}, ${side(east, "E", "W")}`;
}

/**
 * Return the photos that were taken where one was, to a hundred metres: on Earth, they lie on top of each other.
 * @param {number} photo
 */
function takenWhere(photo) {
  const [north, east] = [latitude(photo), longitude(photo)];
  if (north === null || east === null) return [];
  const isHere = (/** @type {number} */ other) =>
    Math.abs((latitude(other) ?? 999) - north) < NEAR && Math.abs((longitude(other) ?? 999) - east) < NEAR;
  return Array.from({ length: n }, (_, other) => other).filter(isHere);
}

/**
 * @param {number} photo
 * @returns {HTMLImageElement[]} none if the photo has no thumbnail
 */
function portrait(photo) {
  if (!thumbnails.has(photo)) return [];
  const image = new Image();
  image.src = thumbnails.source(photo);
  image.alt = `photo ${nameOf(photo)}`;
  return [image];
}

/** @param {Neighbour} neighbour */
function neighbourItem({ photo, similarity }) {
  const button = create("button", "");
  button.dataset.uuid = data.uuids[photo];
  button.title = `${printable(path(photo))}\n${printable(data.uuids[photo])}${isMissing(photo) ? "\nfile missing" : ""}`;
  if (isMissing(photo)) button.classList.add("missing");
  button.append(...portrait(photo), create("span", similarity.toFixed(2)));
  button.onclick = () => {
    setCurrent(photo);
    goTo(photo);
  };
  const item = create("li", "");
  item.append(button);
  return item;
}
