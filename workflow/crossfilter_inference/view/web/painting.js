// From a colouring to the colours of the points and the rows of the legend.

/** @import { CategoryColouring, Colouring, NumberColouring } from "./colourings.js" */

const CATEGORIES = [
  "#4c8bd6",
  "#e8833a",
  "#3fa66b",
  "#d4526e",
  "#8f6cc9",
  "#b08055",
  "#d873b5",
  "#6d7f92",
  "#b3ad2b",
  "#2fb0bf",
];
/** Viridis, from low to high. */
const SCALE = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const OTHER = "#98a2ad";

/** @typedef {{ colour: string, name: string, photos: number[] }} Group photos of one category */
/** @typedef {{ colours: string[], low: string, high: string }} Scale from low to high */

/**
 * How the photos are painted.
 * @typedef {object} Painting
 * @property {Uint8Array<ArrayBuffer>} colours red, green, blue and 255 of each photo
 * @property {Group[]} groups of a colouring by category, the largest first; empty for one by number
 * @property {Scale | null} scale of a colouring by number
 */

/** @param {string} hex as `#rrggbb` */
export const rgb = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

/**
 * Paint all photos.
 * @param {Colouring} colouring
 * @param {number} n photos
 * @returns {Painting}
 */
export function paintPhotos(colouring, n) {
  return "category" in colouring ? paintCategories(colouring, n) : paintNumbers(colouring, n);
}

/**
 * @param {CategoryColouring} colouring
 * @param {number} n
 * @returns {Painting}
 */
function paintCategories({ category }, n) {
  /** @type {Map<string, number[]>} */
  const members = new Map();
  /** @type {number[]} */
  const others = [];
  for (let photo = 0; photo < n; photo++) {
    const name = category(photo);
    if (name === null) others.push(photo);
    else if (members.get(name)?.push(photo) === undefined) members.set(name, [photo]);
  }
  const sorted = [...members].sort((a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1));
  for (const [, photos] of sorted.splice(CATEGORIES.length)) for (const photo of photos) others.push(photo);
  const groups = sorted.map(([name, photos], i) => ({ colour: CATEGORIES[i], name, photos }));
  if (others.length) groups.push({ colour: OTHER, name: "other", photos: others });
  const colours = new Uint8Array(4 * n).fill(255);
  for (const { colour, photos } of groups) {
    const value = rgb(colour);
    for (const photo of photos) colours.set(value, 4 * photo);
  }
  return { colours, groups, scale: null };
}

/**
 * @param {NumberColouring} colouring
 * @param {number} n
 * @returns {Painting}
 */
function paintNumbers({ number, text, low, high }, n) {
  const values = Array.from({ length: n }, (_, photo) => number(photo));
  const known = values.filter((value) => value !== null);
  const least = low ?? known.reduce((a, b) => Math.min(a, b), Infinity);
  const most = high ?? known.reduce((a, b) => Math.max(a, b), -Infinity);
  const stops = SCALE.map(rgb);
  const other = rgb(OTHER);
  const colours = new Uint8Array(4 * n).fill(255);
  const between = (/** @type {number} */ value) => {
    const at = most > least ? ((value - least) / (most - least)) * (stops.length - 1) : 0;
    const first = Math.min(Math.floor(at), stops.length - 2);
    return stops[first].map((c, k) => c + (at - first) * (stops[first + 1][k] - c));
  };
  values.forEach((value, photo) => {
    colours.set(value === null ? other : between(value), 4 * photo);
  });
  return { colours, groups: [], scale: { colours: SCALE, low: text(least), high: text(most) } };
}
