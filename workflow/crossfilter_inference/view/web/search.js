// The search field. It finds as one types; what it does not find is left out, as by the filters.
import { camera, data, folders, n, nameOf, path, regionOf, taken } from "./collection.js";
import { elements } from "./elements.js";
import { goTo, isAnyInSight } from "./globe.js";
import { Filter } from "./marks.js";
import { setCurrent } from "./panel.js";
import { showFound, stripPhotos } from "./strip.js";
import { photosOf } from "./words.js";

const searchFilter = new Filter();
/** The position in the strip of the hit that Enter showed last; -1 is none. */
let at = -1;

/**
 * Make texts comparable: without case and accents.
 * @param {string} text
 */
const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().replaceAll("ß", "ss");

/** @param {string} uuid */
const digits = (uuid) => uuid.toLowerCase().replaceAll("-", "");

/** Texts of each photo, folded when they are needed for the first time. */
const texts = once(() => Array.from({ length: n }, (_, photo) => fold(`${nameOf(photo)}\n${taken(photo) ?? ""}`)));
const folderTexts = once(() => data.folders.map(fold));
const regionTexts = once(() => data.regions.map((region) => fold(region.name)));

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
 * Return a test whether a photo has a word: in its name, folder, time, camera or region, or at the start of its UUID.
 * @param {string} word
 * @returns {(photo: number) => boolean}
 */
function has(word) {
  const wanted = fold(word);
  const uuid = /^[0-9a-f-]{4,}$/i.test(word) ? digits(word) : null;
  const inFolder = folderTexts().map((text) => text.includes(wanted));
  const inRegion = regionTexts().map((text) => text.includes(wanted));
  const ofCamera = new Map();
  const isOfCamera = (/** @type {string | null} */ name) => {
    if (name === null) return false;
    if (!ofCamera.has(name)) ofCamera.set(name, fold(name).includes(wanted));
    return ofCamera.get(name);
  };
  return (photo) =>
    inFolder[folders[photo]] ||
    inRegion[regionOf[photo]] ||
    texts()[photo].includes(wanted) ||
    (uuid !== null && digits(data.uuids[photo]).startsWith(uuid)) ||
    isOfCamera(camera(photo)) ||
    (wanted.includes("/") && fold(path(photo)).includes(wanted));
}

/**
 * Find the photos that have every word of the field, in their texts or in what they show.
 *
 * If the whole field is a known word, such as "hot dog", the photos that fit it come first. If nothing else is found,
 * the photos that are most similar to it do.
 */
export function search() {
  const text = elements.search.value.trim();
  at = -1;
  if (!text) {
    elements.found.textContent = "";
    if (searchFilter.isActive) searchFilter.apply(null);
    showFound(null);
    return;
  }
  const whole = photosOf(text.replace(/\s+/g, " "));
  const tests = text.split(/\s+/).map((word) => {
    const isNamed = has(word);
    const fits = new Set(fitting(word));
    return (/** @type {number} */ photo) => fits.has(photo) || isNamed(photo);
  });
  const hits = new Set(whole?.isFit ? whole.photos : []);
  const isRanked = hits.size > 0;
  for (let photo = 0; photo < n; photo++) if (tests.every((test) => test(photo))) hits.add(photo);
  const isGuess = !hits.size && whole !== null;
  if (isGuess) for (const photo of whole.photos) hits.add(photo);
  searchFilter.apply((photo) => hits.has(photo));
  const count = hits.size.toLocaleString("en");
  elements.found.textContent = !hits.size
    ? "no matching photo"
    : isGuess
      ? `none fits; the ${count} most similar`
      : `${count} found`;
  showFound([...hits], isRanked || isGuess);
}

/** @param {string} word */
function fitting(word) {
  const found = photosOf(word);
  return found?.isFit ? found.photos : [];
}

/** Show the next photo that was found. */
function showNext() {
  const hits = stripPhotos();
  if (!searchFilter.isActive || !hits.length) return;
  at = (at + 1) % hits.length;
  elements.found.textContent = `${at + 1} of ${hits.length.toLocaleString("en")}`;
  setCurrent(hits[at]);
  goTo(hits[at]);
}

elements.find.onsubmit = (event) => {
  event.preventDefault();
  showNext();
};
elements.search.oninput = () => {
  search();
  const [first] = stripPhotos();
  if (searchFilter.isActive && first !== undefined && !isAnyInSight()) goTo(first);
};
