// What is marked: the photos that the filters leave in, and those that are selected.
import { n } from "./collection.js";

/** @typedef {"filters" | "selection"} Mark */

/** A bit of each filter that leaves a photo out. */
const outBy = new Uint16Array(n);
let nIn = n;
const selected = new Uint8Array(n);
const listeners = /** @type {((what: Mark) => void)[]} */ ([]);
let nFilters = 0;

/**
 * Be told whenever the marks change.
 * @param {(what: Mark) => void} listener is given what has changed
 */
export const whenMarked = (listener) => listeners.push(listener);

/** @param {Mark} what */
function tell(what) {
  for (const listener of listeners) listener(what);
}

/** @param {(photo: number) => boolean} test */
function photosWhere(test) {
  const photos = [];
  for (let photo = 0; photo < n; photo++) if (test(photo)) photos.push(photo);
  return photos;
}

/** @param {number} photo */
export const isIn = (photo) => outBy[photo] === 0;

/** @param {number} photo */
export const isSelected = (photo) => selected[photo] === 1;

/** Return the number of photos that every filter leaves in. */
export const countIn = () => nIn;

/** Return the photos that every filter leaves in. */
export const photosIn = () => photosWhere(isIn);

/** Return the selected photos. */
export const selectedPhotos = () => photosWhere(isSelected);

/** One of several filters; each leaves photos out. */
export class Filter {
  bit = 1 << nFilters++;
  isActive = false;

  /**
   * Leave out the photos for which a test is false.
   * @param {((photo: number) => boolean) | null} test null ends the filter
   */
  apply(test) {
    this.isActive = test !== null;
    for (let photo = 0; photo < n; photo++) {
      const others = outBy[photo] & ~this.bit;
      const now = test === null || test(photo) ? others : others | this.bit;
      nIn += Number(now === 0) - Number(outBy[photo] === 0);
      outBy[photo] = now;
    }
    tell("filters");
  }

  /**
   * Count the photos that the other filters leave in.
   * @param {Int32Array} binOf the bin of each photo
   * @param {Int32Array} counts of each bin
   */
  countOthers(binOf, counts) {
    const others = ~this.bit;
    counts.fill(0);
    for (let photo = 0; photo < n; photo++) if ((outBy[photo] & others) === 0) counts[binOf[photo]]++;
  }
}

/**
 * Change which photos are selected.
 * @param {Iterable<number>} photos
 * @param {"replace" | "add" | "remove"} [how]
 */
export function changeSelection(photos, how = "replace") {
  if (how === "replace") selected.fill(0);
  for (const photo of photos) selected[photo] = how === "remove" ? 0 : 1;
  tell("selection");
}
