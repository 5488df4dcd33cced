// The server of `crossfilter-inference serve`, for what a file cannot do; map.html has none.
import { data } from "./collection.js";

/** @typedef {{ uuids: string[], isFit: boolean }} Answer the photos that fit best, the best one first */

export const isServed = data.isServed === true;

/**
 * Return the address of a photo on the server.
 * @param {number} photo
 * @param {number} [side] pixels of the long side; without it, the original in a format that browsers show
 */
export const servedPhoto = (photo, side) => `photos/${data.uuids[photo]}${side ? `?side=${side}` : ""}`;

/** @param {number} photo */
export const servedThumbnail = (photo) => `thumbnails/${data.uuids[photo]}`;

/**
 * Ask for the photos that fit a text or an image.
 * @param {string | Blob} query
 * @returns {Promise<Answer>}
 */
export async function askServer(query) {
  const response = await (typeof query === "string"
    ? fetch(`search?${new URLSearchParams({ text: query })}`)
    : fetch("search", { method: "POST", body: query }));
  if (!response.ok) throw new Error((await response.text()) || response.statusText);
  return response.json();
}
