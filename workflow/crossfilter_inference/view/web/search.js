// The search field.
import { data, n, path } from "./collection.js";
import { elements } from "./elements.js";
import { goTo } from "./globe.js";
import { select } from "./panel.js";

/** The last search, and the position of its selected photo. */
let found = { text: "", photos: /** @type {number[]} */ ([]), at: 0 };

/** Return the photos of the last search. */
export const foundPhotos = () => found.photos;

/** @param {string} uuid */
const plain = (uuid) => uuid.toLowerCase().replaceAll("-", "");

/**
 * Select the first photo whose UUID begins with a text, or whose path contains it. Again, select the next one.
 * @param {string} text not empty
 */
function search(text) {
  if (text !== found.text) {
    const digits = plain(text);
    const isUuid = /^[0-9a-f]{4,}$/.test(digits);
    const lower = text.toLowerCase();
    const photos = [];
    for (let i = 0; i < n; i++) {
      const isMatch = (isUuid && plain(data.uuids[i]).startsWith(digits)) || path(i).toLowerCase().includes(lower);
      if (isMatch) photos.push(i);
    }
    found = { text, photos, at: -1 };
  }
  const { photos } = found;
  if (!photos.length) {
    elements.found.textContent = "no matching photo";
    return;
  }
  found.at = (found.at + 1) % photos.length;
  elements.found.textContent = `${found.at + 1} of ${photos.length.toLocaleString("en")}`;
  select(photos[found.at]);
  goTo(photos[found.at]);
}

elements.find.onsubmit = (event) => {
  event.preventDefault();
  const text = elements.search.value.trim();
  if (text) search(text);
};

elements.search.oninput = () => {
  elements.found.textContent = "";
};
