// The strip of pictures below the globe: what a search has found, or else the selected photos.
import { data, isMissing, mostSimilar, n, nameOf, nNeighbours, path, places, taken } from "./collection.js";
import { counted, create, elements, printable, wheelPixels } from "./elements.js";
import { beforeFrame, goTo, redraw, resize, state, thumbnails } from "./globe.js";
import { changeSelection, isIn, isSelected, selectedPhotos, whenMarked } from "./marks.js";
import { setCurrent } from "./panel.js";
import { copy, listPaths, listUuids, makeCsv, makeJson, save } from "./takeaway.js";
import { look } from "./viewer.js";

const MORE = 8; // pictures on both sides of those in sight
const WIDTH = 92; // CSS pixels of a picture, with the gap to the next

/** What a search has found; null is no search. */
let found = /** @type {number[] | null} */ (null);
/** All that was found or selected, in the order of the strip. */
let ordered = /** @type {number[]} */ ([]);
/** The photos of the strip: those of them that the filters leave in, if they were found. */
let inStrip = /** @type {number[]} */ ([]);
let isStripStale = false;
let isOrderStale = false;
/** The order that was chosen before a search by a word. */
let orderBefore = elements.order.value;
/** The current photo when the pictures were made. */
let rolledFor = -1;

/** Return the photos of the strip, in its order. */
export function stripPhotos() {
  updateStrip();
  return inStrip;
}

/**
 * Show what a search has found.
 * @param {number[] | null} hits null shows the selected photos again
 * @param {boolean} [isRanked] whether the best hit comes first
 */
export function showFound(hits, isRanked = false) {
  found = hits;
  const { order, byFit } = elements;
  byFit.hidden = byFit.disabled = !isRanked;
  if (isRanked && order.value !== "fit") [orderBefore, order.value] = [order.value, "fit"];
  else if (!isRanked && order.value === "fit") order.value = orderBefore;
  outdateOrder();
}

function outdateOrder() {
  elements.reel.scrollLeft = 0;
  isOrderStale = true;
  outdateStrip();
}

function outdateStrip() {
  isStripStale = true;
  redraw();
}

function updateStrip() {
  if (!isStripStale) {
    if (state.current !== rolledFor) roll();
    return;
  }
  isStripStale = false;
  if (isOrderStale) ordered = inOrder(found ?? selectedPhotos());
  isOrderStale = false;
  inStrip = found ? ordered.filter(isIn) : ordered;
  const { strip, many, reel } = elements;
  const wasHidden = strip.hidden;
  strip.hidden = !inStrip.length;
  many.textContent = `${inStrip.length.toLocaleString("en")} ${found ? "found" : "selected"}`;
  elements.chooseFound.hidden = !found;
  elements.unselect.hidden = found !== null;
  elements.similar.hidden = found !== null || !nNeighbours;
  reel.style.setProperty("--long", `${inStrip.length * WIDTH}px`);
  roll();
  if (strip.hidden !== wasHidden) resize();
}

/** @param {number[]} unordered */
function inOrder(unordered) {
  const by = elements.order.value;
  if (by === "fit") return unordered;
  if (by === "likeness") return byLikeness(unordered);
  ranks[by] ??= rank(by === "time" ? (photo) => taken(photo) ?? "9999" : nameOf, by === "name");
  const { photos, rankOf } = ranks[by];
  return Array.from(Int32Array.from(unordered, (photo) => rankOf[photo]).sort(), (number) => photos[number]);
}

/** All photos in an order, and the rank of each photo; made when an order is chosen for the first time. */
const ranks = /** @type {Record<string, { photos: Int32Array, rankOf: Int32Array }>} */ ({});

/**
 * Order all photos.
 * @param {(photo: number) => string} key
 * @param {boolean} isNatural whether IMG_2 comes before IMG_10
 */
function rank(key, isNatural) {
  const keys = Array.from({ length: n }, (_, photo) => key(photo));
  const { compare } = new Intl.Collator("en", { numeric: true });
  const order = (/** @type {string} */ a, /** @type {string} */ b) =>
    isNatural ? compare(a, b) : Number(a > b) - Number(a < b);
  const photos = Int32Array.from(keys.keys()).sort((a, b) => order(keys[a], keys[b]) || a - b);
  const rankOf = new Int32Array(n);
  photos.forEach((photo, number) => {
    rankOf[photo] = number;
  });
  return { photos, rankOf };
}

/**
 * Order photos by their distance on the map from the current photo, or else from the first one.
 * @param {number[]} unordered
 */
function byLikeness(unordered) {
  const vector = (/** @type {number} */ photo) => places.subarray(3 * photo, 3 * photo + 3);
  const from = vector(state.current >= 0 ? state.current : (unordered[0] ?? 0));
  const likeness = (/** @type {number} */ photo) => vector(photo).reduce((sum, side, i) => sum + side * from[i], 0);
  const values = new Map(unordered.map((photo) => [photo, likeness(photo)]));
  return unordered.toSorted((a, b) => (values.get(b) ?? 0) - (values.get(a) ?? 0));
}

/** Fill the part of the strip that is in sight; the focus stays on its photo. */
function roll() {
  const { reel, pictures } = elements;
  const focused = document.activeElement;
  const uuid = focused instanceof HTMLElement && pictures.contains(focused) ? focused.dataset.uuid : undefined;
  rolledFor = state.current;
  const first = Math.max(Math.floor(reel.scrollLeft / WIDTH) - MORE, 0);
  const last = Math.min(first + Math.ceil(innerWidth / WIDTH) + 2 * MORE, inStrip.length);
  pictures.replaceChildren(...inStrip.slice(first, last).map((photo, i) => picture(photo, first + i)));
  for (const button of uuid ? pictures.querySelectorAll("button") : []) {
    if (button.dataset.uuid === uuid) button.focus({ preventScroll: true });
  }
}

/**
 * @param {number} photo
 * @param {number} at its number in the strip
 */
function picture(photo, at) {
  const button = create("button", "");
  button.dataset.uuid = data.uuids[photo];
  button.title = printable(path(photo));
  if (isMissing(photo)) button.classList.add("missing");
  if (photo === state.current) button.setAttribute("aria-current", "true");
  if (thumbnails.has(photo)) {
    const image = new Image();
    image.src = thumbnails.source(photo);
    image.alt = `photo ${printable(nameOf(photo))}`;
    button.append(image);
  } else button.append(create("span", nameOf(photo)));
  button.onclick = (event) => {
    if (event.ctrlKey || event.metaKey) return changeSelection([photo], isSelected(photo) ? "remove" : "add");
    setCurrent(photo);
    goTo(photo);
    roll();
  };
  button.ondblclick = () => look(photo, inStrip);
  const item = create("li", "");
  item.style.left = `${at * WIDTH}px`;
  item.append(button);
  return item;
}

function addSimilar() {
  const most = Number(elements.nSimilar.value);
  changeSelection(
    selectedPhotos().flatMap((photo) =>
      mostSimilar(photo)
        .slice(0, most)
        .map((neighbour) => neighbour.photo),
    ),
    "add",
  );
}

/** @type {Record<string, () => Promise<string> | string>} what the menu takes away, and the sentence that says so */
const WAYS = {
  paths: async () => {
    await copy(listPaths(inStrip));
    return `Copied ${counted(inStrip.length, "path")}.`;
  },
  uuids: async () => {
    await copy(listUuids(inStrip));
    return `Copied ${counted(inStrip.length, "UUID")}.`;
  },
  csv: () => {
    save("photos.csv", makeCsv(inStrip), "text/csv");
    return "Saved photos.csv.";
  },
  json: () => {
    save("photos.json", makeJson(inStrip), "application/json");
    return "Saved photos.json.";
  },
};

elements.take.onchange = async () => {
  const way = elements.take.value;
  elements.take.selectedIndex = 0;
  elements.tookAway.textContent = await WAYS[way]();
};
elements.order.onchange = outdateOrder;
elements.reel.onscroll = roll;
elements.reel.onwheel = (event) => {
  if (Math.abs(event.deltaY) <= Math.abs(event.deltaX)) return;
  event.preventDefault();
  elements.reel.scrollLeft += wheelPixels(event);
};
elements.chooseFound.onclick = () => {
  changeSelection(inStrip, "add");
  elements.search.value = "";
  elements.search.dispatchEvent(new Event("input"));
};
elements.unselect.onclick = () => changeSelection([]);
elements.addSimilar.onclick = addSimilar;
elements.nSimilar.max = String(nNeighbours);
if (!Array.from({ length: n }, (_, photo) => taken(photo)).some(Boolean)) elements.order.remove(1);
whenMarked((what) => {
  elements.tookAway.textContent = "";
  if (found) outdateStrip();
  else if (what === "selection") outdateOrder();
});
beforeFrame(updateStrip);
addEventListener("resize", roll);
