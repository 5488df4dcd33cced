// The search field. It finds as one types; what it does not find is left out, as by the filters.
import { camera, data, folders, n, nameOf, path, regionOf, taken } from "./collection.js";
import { elements } from "./elements.js";
import { goTo } from "./globe.js";
import { Filter } from "./marks.js";
import { setCurrent } from "./panel.js";
import { showFound, stripPhotos } from "./strip.js";

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

/** Find the photos that have every word of the field. */
export function search() {
  const words = elements.search.value.trim().split(/\s+/).filter(Boolean);
  at = -1;
  if (!words.length) {
    elements.found.textContent = "";
    if (searchFilter.isActive) searchFilter.apply(null);
    showFound(null);
    return;
  }
  const tests = words.map(has);
  /** @type {number[]} */
  const hits = [];
  searchFilter.apply((photo) => {
    const isHit = tests.every((test) => test(photo));
    if (isHit) hits.push(photo);
    return isHit;
  });
  elements.found.textContent = hits.length ? `${hits.length.toLocaleString("en")} found` : "no matching photo";
  showFound(hits);
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
elements.search.oninput = search;
