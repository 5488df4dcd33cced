// The colourings of the points. The menu, the legend and the painting follow from this list.
//
// To add one, add an entry to COLOURINGS and its legend to LEGENDS in tests/workflow/test_page.py, in the same order.
// `recordedNumber` and `recordedText` in collection.js give every fact that the database records.
import { camera, data, folderOf, n, nNeighbours, quality, regionName, taken, takenTime } from "./collection.js";

/**
 * A colouring by category: the ten largest categories have a colour each.
 * @typedef {object} CategoryColouring
 * @property {string} title in the menu
 * @property {boolean} isOffered whether the photos differ in it
 * @property {(photo: number) => string | null} category of a photo; null is unknown
 */

/**
 * A colouring by number, on a continuous scale.
 * @typedef {object} NumberColouring
 * @property {string} title in the menu
 * @property {boolean} isOffered whether the photos differ in it
 * @property {(photo: number) => number | null} number of a photo; null is unknown
 * @property {(number: number) => string} text at an end of the scale
 * @property {number} [low] an end of the scale; without it, the smallest number
 * @property {number} [high] an end of the scale; without it, the largest number
 */

/** @typedef {CategoryColouring | NumberColouring} Colouring */

/**
 * Return whether the photos differ in a category or a number.
 * @param {(photo: number) => string | number | null} value
 */
function differ(value) {
  let first = null;
  for (let photo = 0; photo < n; photo++) {
    const other = value(photo);
    first ??= other;
    if (other !== null && other !== first) return true;
  }
  return false;
}

/** @type {Record<string, Colouring>} */
export const COLOURINGS = {
  folder: {
    title: "Folder",
    isOffered: data.folders.length > 1,
    category: (photo) => folderOf(photo).split("/").pop() || "/",
  },
  region: {
    title: "Region",
    isOffered: data.regions.length > 1,
    category: regionName,
  },
  time: {
    title: "Time",
    isOffered: differ(taken),
    number: takenTime,
    text: (time) => new Date(time).toISOString().slice(0, 10),
  },
  camera: {
    title: "Camera",
    isOffered: differ(camera),
    category: camera,
  },
  quality: {
    title: "Placement quality",
    isOffered: nNeighbours > 0,
    number: (photo) => quality[photo],
    text: (share) => `${Math.round(share)}%`,
    low: 0,
    high: 100,
  },
};

/** Names of the colourings in the menu; there is always one. */
const offered = Object.keys(COLOURINGS).filter((name) => COLOURINGS[name].isOffered);
export const MENU = offered.length ? offered : ["folder"];
