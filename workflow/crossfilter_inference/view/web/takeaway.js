// What can be taken away of some photos: lists of paths or UUIDs, CSV, JSON.
import { camera, data, latitude, longitude, path, taken } from "./collection.js";

/** @type {Record<string, (photo: number) => string | number | null>} the columns of CSV, and the keys of JSON */
const COLUMNS = {
  path,
  uuid: (photo) => data.uuids[photo],
  taken,
  latitude: (photo) => rounded(latitude(photo)),
  longitude: (photo) => rounded(longitude(photo)),
  camera,
};

/**
 * Round degrees to a centimetre's tenth, more than the page's float32 hold.
 * @param {number | null} degrees
 */
const rounded = (degrees) => (degrees === null ? null : Number(degrees.toFixed(5)));

/** @param {number[]} photos */
export const listPaths = (photos) => lines(photos.map(path));

/** @param {number[]} photos */
export const listUuids = (photos) => lines(photos.map((photo) => data.uuids[photo]));

/** @param {string[]} texts */
const lines = (texts) => texts.map((text) => `${text}\n`).join("");

/** @param {number[]} photos */
export function makeCsv(photos) {
  const rows = photos.map((photo) => Object.values(COLUMNS).map((value) => value(photo) ?? ""));
  const cell = (/** @type {string | number} */ value) =>
    /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : value;
  return [Object.keys(COLUMNS), ...rows].map((row) => `${row.map(cell).join()}\r\n`).join("");
}

/** @param {number[]} photos */
export function makeJson(photos) {
  const records = photos.map((photo) =>
    Object.fromEntries(Object.entries(COLUMNS).map(([name, value]) => [name, value(photo)])),
  );
  return `${JSON.stringify(records, null, 1)}\n`;
}

/**
 * Copy a text to the clipboard.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea"); // where the page may not write to the clipboard by itself
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

/**
 * Save a text as a file.
 * @param {string} name
 * @param {string} text
 * @param {string} type
 */
export function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
