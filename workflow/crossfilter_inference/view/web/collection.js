// The photos of the page. A photo is a number from 0 to n - 1.
import { elements } from "./elements.js";
import { onSphere } from "./sphere.js";

/**
 * The JSON in the element `data`, as `view/page.py` writes it. Arrays of numbers are base64, little-endian.
 * @typedef {object} PageData
 * @property {string} type the embedding type
 * @property {string[]} uuids
 * @property {(string | null)[]} names file names; null stands for `<uuid>.jpg`
 * @property {string[]} folders
 * @property {string} folder int32: an index of `folders` for each photo
 * @property {Record<string, string | { texts: string[], index: string }>} facts by column of `<TYPE>_IMAGES`: float32,
 *   NaN is unknown; or texts and int32, an index of `texts` for each photo, -1 is unknown
 * @property {string} missing int32: the photos whose files were missing when the page was written
 * @property {string} places float32: latitude and longitude of each photo, in degrees
 * @property {string} neighbours int32: the most similar photos of each photo, best first; -1 is a photo that is not on the page
 * @property {string} similarities float32: their cosine similarities
 * @property {string} quality uint8: percentage of a photo's most similar photos that are near it on the map
 * @property {string} region int32: an index of `regions` for each photo; -1 is no region
 * @property {{ name: string, place: [number, number] }[]} regions with latitude and longitude in degrees
 * @property {string} [land] int16: outlines of land, closed rings of latitude and longitude in hundredths of a degree,
 *   with 32767 twice after each; it is missing if no photo has a place on Earth
 * @property {string[]} words that find photos; words of the same meaning are one text, one per line
 * @property {string} fits int32: the photos that fit each meaning, best first, one meaning after another
 * @property {string} nFits int32: how many these are; negative if none fits, and they are the most similar ones
 * @property {string} thumbnails int32: the photo of each line of the element `thumbnails`; on a served page, all photos
 * @property {boolean} [isServed] whether a server sends thumbnails and originals, and searches
 */

/** @typedef {{ photo: number, similarity: number }} Neighbour */

/** @type {PageData} */
export const data = JSON.parse(elements.data.textContent);

/**
 * Decode an array of numbers.
 * @template T
 * @param {string} text base64
 * @param {new (buffer: ArrayBuffer) => T} Kind
 */
export function numbers(text, Kind) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return new Kind(bytes.buffer);
}

export const n = data.uuids.length;
/** Unit vectors of the photos by likeness: x, y, z of each. */
export const places = onSphere(numbers(data.places, Float32Array));
const neighbours = numbers(data.neighbours, Int32Array);
const similarities = numbers(data.similarities, Float32Array);
export const nNeighbours = n ? neighbours.length / n : 0;
export const folders = numbers(data.folder, Int32Array);
export const regionOf = numbers(data.region, Int32Array);
export const quality = numbers(data.quality, Uint8Array);
const missing = new Set(numbers(data.missing, Int32Array));
/** Photos that have a thumbnail, the most wanted first. */
export const withThumbnail = numbers(data.thumbnails, Int32Array);
/** Regions that have a name, and their unit vectors. */
export const regions = data.regions.filter((region) => region.name);
export const regionPlaces = onSphere(regions.flatMap((region) => region.place));

/**
 * Return a function from a photo to a number that is recorded of it; null is unknown.
 * @param {string} column of `<TYPE>_IMAGES`
 * @returns {(photo: number) => number | null}
 */
export function recordedNumber(column) {
  const fact = data.facts[column];
  if (typeof fact !== "string") return () => null;
  const values = numbers(fact, Float32Array);
  return (photo) => (Number.isNaN(values[photo]) ? null : values[photo]);
}

/**
 * Return a function from a photo to a text that is recorded of it; null is unknown.
 * @param {string} column of `<TYPE>_IMAGES`
 * @returns {(photo: number) => string | null}
 */
export function recordedText(column) {
  const fact = data.facts[column];
  if (typeof fact !== "object") return () => null;
  const index = numbers(fact.index, Int32Array);
  return (photo) => fact.texts[index[photo]] ?? null;
}

/** The time when a photo was taken, or the day: ISO 8601 without a time zone. */
export const taken = recordedText("TAKEN");
export const camera = recordedText("CAMERA");
/** Where a photo was taken, in degrees. */
export const latitude = recordedNumber("LATITUDE");
export const longitude = recordedNumber("LONGITUDE");

/**
 * Return the time when a photo was taken, in milliseconds since 1970 as if it were UTC; null is unknown. If the day
 * alone is known, it is its midnight.
 * @param {number} photo
 */
export function takenTime(photo) {
  const text = taken(photo);
  return text ? Date.parse(text.includes("T") ? `${text}Z` : text) : null;
}

/**
 * Return the name of a photo's region; null is none.
 * @param {number} photo
 */
export function regionName(photo) {
  const region = data.regions[regionOf[photo]];
  return region ? region.name || `Region ${regionOf[photo] + 1}` : null;
}

/**
 * Return the name of a photo: that of its file, or its UUID if that is the name of the file.
 * @param {number} photo
 */
export const nameOf = (photo) => data.names[photo] ?? data.uuids[photo];

/**
 * Return the folder of a photo. One folder can have two spellings in Unicode; here they are equal.
 * @param {number} photo
 */
export const folderOf = (photo) => data.folders[folders[photo]].normalize("NFC");

/**
 * Return the path of a photo.
 * @param {number} photo
 */
export const path = (photo) => `${data.folders[folders[photo]]}/${data.names[photo] ?? `${data.uuids[photo]}.jpg`}`;

/**
 * Return whether the file of a photo was missing when the page was written.
 * @param {number} photo
 */
export const isMissing = (photo) => missing.has(photo);

/**
 * Return the base64 JPEG files of the thumbnails, in the order of `withThumbnail`.
 * @returns {string[]}
 */
export function readThumbnails() {
  const lines = elements.thumbnails.textContent.trim();
  return lines ? lines.split("\n") : [];
}

/**
 * Return the photos that are most similar to a photo, best first.
 * @param {number} photo
 * @returns {Neighbour[]}
 */
export function mostSimilar(photo) {
  const row = [];
  for (let i = photo * nNeighbours; i < (photo + 1) * nNeighbours; i++) {
    if (neighbours[i] >= 0) row.push({ photo: neighbours[i], similarity: similarities[i] });
  }
  return row;
}
