// Thumbnails: their images, their size, and the choice of those that have room.

import { isServed, servedThumbnail } from "./server.js";
import { clamp } from "./sphere.js";

/** @typedef {{ left: number, top: number, right: number, bottom: number }} Box in CSS pixels */
/** @import { View } from "./sphere.js" */

const MOST_THUMBNAILS = 700; // on the screen
const MOST_IN_VAIN = 4000; // photos in sight, one after another, without room for their thumbnails
const LARGEST = 0.4; // of the window; no thumbnail is drawn larger
export const SHARP = 1.25; // thumbnails are enlarged so much; larger ones are drawn from the original
export const HIDDEN = 0.12; // nearness below which a thumbnail would be on the edge of the globe

/** Decodes thumbnails when they are needed. */
export class Thumbnails {
  /** Decoded images by photo, the least recently used first. */
  images = /** @type {Map<number, HTMLImageElement>} */ (new Map());

  /**
   * @param {string[]} jpegs base64, the most wanted first
   * @param {Int32Array} owners the photo of each
   * @param {() => void} onLoad called when a thumbnail can be drawn
   */
  constructor(jpegs, owners, onLoad) {
    this.order = owners;
    this.jpegs = new Map(isServed ? [] : Array.from(owners, (photo, i) => [photo, jpegs[i]]));
    this.missing = new Set();
    this.onLoad = onLoad;
  }

  /** @param {number} photo */
  has(photo) {
    return (isServed || this.jpegs.has(photo)) && !this.missing.has(photo);
  }

  /** @param {number} photo */
  source(photo) {
    return isServed ? servedThumbnail(photo) : `data:image/jpeg;base64,${this.jpegs.get(photo)}`;
  }

  /**
   * Return the thumbnail of a photo, or null if it has none or the browser is still decoding it.
   * @param {number} photo
   */
  get(photo) {
    let image = this.images.get(photo);
    if (!image) {
      if (!this.has(photo)) return null;
      image = new Image();
      image.src = this.source(photo);
      image.decode().then(this.onLoad, () => this.missing.add(photo));
      const [oldest] = this.images.keys();
      if (this.images.size > 3 * MOST_THUMBNAILS) this.images.delete(oldest);
    }
    this.images.delete(photo); // so that it moves to the end
    this.images.set(photo, image);
    return image.complete && image.naturalWidth ? image : null;
  }
}

/**
 * Return the side of the thumbnails in CSS pixels. It grows with the zoom, and shrinks with the number of photos.
 * @param {View} view
 * @param {number} n photos
 */
export function thumbnailSide(view, n) {
  const room = view.radius * Math.sqrt(3 / clamp(n, 1, 400));
  const most = LARGEST * Math.min(view.width, view.height);
  return Math.min(clamp(room, 34, 96) * Math.max(view.zoom, 1) ** 0.4, most);
}

/**
 * Return whether a thumbnail would touch what lies over the globe.
 * @param {Box[]} obstacles
 * @param {number} x CSS pixels
 * @param {number} y CSS pixels
 * @param {number} side of the thumbnail, in CSS pixels
 */
export function liesUnder(obstacles, x, y, side) {
  const [wide, high] = [0.45 * side, 0.36 * side];
  return obstacles.some(
    ({ left, top, right, bottom }) => x > left - wide && x < right + wide && y > top - high && y < bottom + high,
  );
}

/**
 * Choose the photos that are shown as thumbnails. Those that are shown already come first, so that they stay.
 * @param {View} view
 * @param {Float32Array} screen x, y and nearness of each photo
 * @param {Int32Array[]} orders photos that have a thumbnail: those that are shown already, and all, the most wanted first
 * @param {(photo: number) => boolean} isWanted
 * @param {number} side of a thumbnail, in CSS pixels
 * @param {Box[]} obstacles no thumbnail touches them
 * @param {number} [spacing] CSS pixels between two thumbnails, as far as their side if they shall not cover each other
 * @returns {Int32Array<ArrayBuffer>} photos whose thumbnails hardly cover each other
 */
export function chooseThumbnails(view, screen, orders, isWanted, side, obstacles, spacing = side) {
  const columns = Math.ceil((view.width + 2 * side) / spacing) + 4;
  const taken = new Int32Array(columns * (Math.ceil((view.height + 2 * side) / spacing) + 4)).fill(-1);
  const chosen = /** @type {number[]} */ ([]);
  let inVain = 0;
  const offer = (/** @type {number} */ photo) => {
    const [x, y, near] = [screen[3 * photo], screen[3 * photo + 1], screen[3 * photo + 2]];
    if (near < HIDDEN || x < -side || y < -side || x > view.width + side || y > view.height + side) return;
    inVain++;
    const cell = (Math.floor((y + side) / spacing) + 2) * columns + Math.floor((x + side) / spacing) + 2;
    if (taken[cell] >= 0 || !isWanted(photo)) return;
    for (let row = -columns; row <= columns; row += columns) {
      for (let neighbour = cell + row - 1; neighbour <= cell + row + 1; neighbour++) {
        const other = taken[neighbour];
        if (other < 0) continue;
        const [dx, dy] = [Math.abs(screen[3 * other] - x), Math.abs(screen[3 * other + 1] - y)];
        if (dx < 0.9 * spacing && dy < 0.72 * spacing) return;
      }
    }
    if (liesUnder(obstacles, x, y, side)) return;
    taken[cell] = photo;
    chosen.push(photo);
    inVain = 0;
  };
  for (const photos of orders) {
    for (let i = 0; i < photos.length && chosen.length < MOST_THUMBNAILS && inVain < MOST_IN_VAIN; i++)
      offer(photos[i]);
  }
  return Int32Array.from(chosen);
}
