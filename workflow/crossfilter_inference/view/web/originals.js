// Originals of a few photos in sight, where thumbnails would be blurred.
import { isMissing, path } from "./collection.js";
import { isServed, servedPhoto } from "./server.js";

const MOST_KEPT = 80;
const MOST_AT_ONCE = 4;
const MOST_FAILED = 5; // in a row: this page is not on the machine of the photos
const SIDE = 640; // pixels of what is kept; more is never drawn
const OF_BROWSERS = /\.(jpe?g|png|webp|gif|avif|bmp)$/i; // formats that every browser shows

/**
 * Return the address of a photo's file; empty if no file is on record.
 * @param {number} photo
 */
export function address(photo) {
  if (isServed) return servedPhoto(photo);
  if (!path(photo).startsWith("/")) return "";
  return new URL(path(photo).replace(/^\/+/, "/").split("/").map(encode).join("/"), location.href).href;
}

/**
 * Encode a file name for a link. A byte that is not UTF-8 comes as a code from U+DC80 to U+DCFF.
 * @param {string} name
 */
function encode(name) {
  const encoded = [...name].map((c) =>
    /[\udc80-\udcff]/.test(c) ? `%${(c.charCodeAt(0) - 0xdc00).toString(16)}` : encodeURIComponent(c),
  );
  return encoded.join("");
}

/**
 * Return whether a browser shows the format of a photo; the server converts others.
 * @param {number} photo
 */
export const isOfBrowsers = (photo) => isServed || OF_BROWSERS.test(path(photo));

/** Loads originals when they are needed, and keeps them reduced. */
export class Originals {
  /** Reduced originals by photo, the least recently used first; null is one that is loading, or cannot be shown. */
  images = /** @type {Map<number, ImageBitmap | null>} */ (new Map());
  nLoading = 0;
  nFailed = 0;

  /** @param {() => void} onLoad called when an original can be drawn */
  constructor(onLoad) {
    this.onLoad = onLoad;
  }

  /**
   * Return the original of a photo; null if it cannot be drawn yet.
   * @param {number} photo
   */
  get(photo) {
    const image = this.images.get(photo);
    if (image === undefined) this.load(photo);
    else if (image) {
      this.images.delete(photo); // so that it moves to the end
      this.images.set(photo, image);
    }
    return image ?? null;
  }

  /** @param {number} photo */
  async load(photo) {
    if (this.nLoading >= MOST_AT_ONCE || this.nFailed >= MOST_FAILED) return;
    if ((location.protocol !== "file:" && !isServed) || isMissing(photo) || !isOfBrowsers(photo) || !address(photo))
      return;
    this.images.set(photo, null);
    this.nLoading++;
    try {
      const image = new Image();
      image.src = isServed ? servedPhoto(photo, SIDE) : address(photo);
      await image.decode();
      const scale = Math.min(1, SIDE / Math.max(image.naturalWidth, image.naturalHeight));
      const size = { resizeWidth: Math.ceil(image.naturalWidth * scale), resizeQuality: /** @type {const} */ ("high") };
      this.images.set(photo, await createImageBitmap(image, size));
      this.nFailed = 0;
      this.limit();
    } catch {
      this.nFailed++;
    }
    this.nLoading--;
    this.onLoad();
  }

  /** Forget those that were not drawn for the longest time. */
  limit() {
    for (const [photo, image] of this.images) {
      if (this.images.size <= MOST_KEPT) return;
      if (!image) continue;
      image.close();
      this.images.delete(photo);
    }
  }
}
