// The search field. It finds as one types; what it does not find is left out, as by the filters.
import { camera, data, folders, n, nameOf, path, taken } from "./collection.js";
import { elements } from "./elements.js";
import { goTo, isAnyInSight } from "./globe.js";
import { Filter, isIn, whenMarked } from "./marks.js";
import { setCurrent } from "./panel.js";
import { askServer, isServed } from "./server.js";
import { showFound, stripPhotos } from "./strip.js";
import { nearestWords, photosOf } from "./words.js";

/** @import { Answer } from "./server.js" */
/** @import { Fits } from "./words.js" */

const PAUSE = 250; // milliseconds after the last key, before the server is asked

const searchFilter = new Filter();
/** The position in the strip of the hit that Enter showed last; -1 is none. */
let at = -1;
let hits = /** @type {number[]} */ ([]);
/** Whether the first hits fit best, or, as a guess, are only the most similar photos. */
let [isRanked, isGuess] = [false, false];
/** The timer that will ask the server. */
let asking = 0;

/**
 * Make texts comparable: without case and accents.
 * @param {string} text
 */
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replaceAll("ß", "ss");

/** @param {string} uuid */
const digits = (uuid) => uuid.toLowerCase().replaceAll("-", "");

/** Texts of each photo, folded when they are needed for the first time. */
const texts = once(() => Array.from({ length: n }, (_, photo) => fold(`${nameOf(photo)}\n${taken(photo) ?? ""}`)));
const photoOfUuid = once(() => new Map(data.uuids.map((uuid, photo) => [uuid, photo])));
const folderTexts = once(() => data.folders.map(fold));

/**
 * @template T
 * @param {() => T} make
 * @returns {() => T}
 */
function once(make) {
  /** @type {T | undefined} */
  let made;
  return () => {
    made ??= make();
    return made;
  };
}

/**
 * Return a test whether a photo has a word: in its name, folder, time or camera, or at the start of its UUID.
 * @param {string} word
 * @returns {(photo: number) => boolean}
 */
function has(word) {
  const wanted = fold(word);
  const uuid = /^[0-9a-f-]{4,}$/i.test(word) ? digits(word) : null;
  const inFolder = folderTexts().map((text) => text.includes(wanted));
  const ofCamera = new Map();
  const isOfCamera = (/** @type {string | null} */ name) => {
    if (name === null) return false;
    if (!ofCamera.has(name)) ofCamera.set(name, fold(name).includes(wanted));
    return ofCamera.get(name);
  };
  return (photo) =>
    inFolder[folders[photo]] ||
    texts()[photo].includes(wanted) ||
    (uuid !== null && digits(data.uuids[photo]).startsWith(uuid)) ||
    isOfCamera(camera(photo)) ||
    (wanted.includes("/") && fold(path(photo)).includes(wanted));
}

/**
 * Find the photos that have every word of the field, in their texts or in what they show.
 *
 * If the whole field is a known word, such as "hot dog", the photos that fit it come first. If nothing else is found,
 * the photos that are most similar to it do. A server knows other texts too; its answer comes later.
 * @param {Fits | null} [answer] of the server
 */
export function search(answer = null) {
  const text = elements.search.value.trim();
  at = -1;
  clearTimeout(asking);
  if (!text) return showNothing("");
  const whole = answer ?? photosOf(text.replace(/\s+/g, " "));
  const tests = text.split(/\s+/).map((word) => {
    const isNamed = has(word);
    const fits = new Set(fitting(word));
    return (/** @type {number} */ photo) => fits.has(photo) || isNamed(photo);
  });
  const found = new Set(whole?.isFit ? whole.photos : []);
  isRanked = found.size > 0;
  for (let photo = 0; photo < n; photo++) if (tests.every((test) => test(photo))) found.add(photo);
  isGuess = !found.size && whole !== null;
  if (whole && isGuess) for (const photo of whole.photos) found.add(photo);
  showHits([...found]);
  if (isServed && !whole) asking = setTimeout(askFor, PAUSE, text);
}

/** @param {number[]} found */
function showHits(found) {
  hits = found;
  const set = new Set(hits);
  searchFilter.apply((photo) => set.has(photo));
  showFound(hits, isRanked || isGuess);
}

/**
 * End the search.
 * @param {string} why
 */
function showNothing(why) {
  if (searchFilter.isActive) searchFilter.apply(null);
  elements.found.textContent = why;
  showFound(null);
}

/** Say how many photos were found, and how many of them the filters leave in. */
function showCount() {
  if (!searchFilter.isActive) return;
  const count = hits.length.toLocaleString("en");
  const nIn = hits.filter(isIn).length;
  const left = nIn < hits.length ? `, ${nIn.toLocaleString("en")} of them shown` : "";
  elements.found.textContent = !hits.length
    ? describeFailure(elements.search.value.trim())
    : isGuess
      ? `none fits; the ${count} most similar`
      : `${count} found${left}`;
}

/** @param {string} text for which there is no photo */
function describeFailure(text) {
  const words = nearestWords(text);
  return words.length ? `no matching photo; similar words: ${words.join(", ")}` : "no matching photo";
}

/**
 * Ask the server for photos that fit a text, and show them if the field still has that text.
 * @param {string} text
 */
async function askFor(text) {
  const answer = await askServer(text).catch(() => null); // some encoders know only certain words
  if (!answer || elements.search.value.trim() !== text) return;
  search(toFits(answer));
  turnToFound();
}

/**
 * Show the photos that are like an image file.
 * @param {File} file
 */
async function findLike(file) {
  elements.search.value = file.name;
  elements.found.textContent = "searching…";
  try {
    const { photos, isFit } = toFits(await askServer(file));
    if (elements.search.value !== file.name) return;
    [isRanked, isGuess] = [isFit, !isFit];
    showHits([...photos]);
    turnToFound();
  } catch (error) {
    showNothing(error instanceof Error ? error.message : String(error));
  }
}

/**
 * @param {Answer} answer
 * @returns {Fits}
 */
function toFits({ uuids, isFit }) {
  const photos = uuids.map((uuid) => photoOfUuid().get(uuid) ?? -1).filter((photo) => photo >= 0);
  return { photos: Int32Array.from(photos), isFit };
}

/** Turn the globe if nothing that was found is in sight; if some photos fit best, if the best is not. */
function turnToFound() {
  const [first] = stripPhotos();
  const isBest = (/** @type {number} */ photo) => photo === first;
  if (searchFilter.isActive && first !== undefined && !isAnyInSight(isRanked ? isBest : isIn)) goTo(first);
}

/** @param {string} word */
function fitting(word) {
  const found = photosOf(word);
  return found?.isFit ? found.photos : [];
}

/** Show the next photo that was found. */
function showNext() {
  const photos = stripPhotos();
  if (!searchFilter.isActive || !photos.length) return;
  at = (at + 1) % photos.length;
  elements.found.textContent = `${at + 1} of ${photos.length.toLocaleString("en")}`;
  setCurrent(photos[at]);
  goTo(photos[at]);
}

whenMarked((what) => what === "filters" && showCount());
elements.find.onsubmit = (event) => {
  event.preventDefault();
  showNext();
};
elements.search.oninput = () => {
  search();
  turnToFound();
};
elements.picture.hidden = !isServed;
elements.picture.onclick = () => elements.file.click();
elements.file.onchange = () => {
  if (elements.file.files?.[0]) findLike(elements.file.files[0]);
  elements.file.value = "";
};
addEventListener("dragover", (event) => isServed && event.preventDefault());
addEventListener("drop", (event) => {
  if (!isServed) return;
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  if (file) findLike(file);
});
