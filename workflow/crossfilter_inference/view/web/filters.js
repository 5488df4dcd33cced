// The panel of filters. Each shows what the others leave in, and choosing something narrows all of them.
//
// To add one, add an entry to `choices` or `ranges`; the panel shows the first of `ranges` before `choices`, the others
// after them. `recordedNumber` and `recordedText` in collection.js give every fact that the database records.

import { ChoiceFilter } from "./choice_filter.js";
import { camera, data, folderOf, n, nNeighbours, quality, regionName, takenTime } from "./collection.js";
import { elements } from "./elements.js";
import { beforeFrame, redraw, resize } from "./globe.js";
import { changeSelection, countIn, photosIn, whenMarked } from "./marks.js";
import { RangeFilter } from "./range_filter.js";

/** @import { Choice } from "./choice_filter.js" */
/** @import { Range } from "./range_filter.js" */

const HOUR = 3_600_000; // milliseconds
const DAY = 24 * HOUR;

/**
 * Write a time as exactly as a span needs.
 * @param {number} time milliseconds since 1970, as if it were UTC
 * @param {number} span milliseconds
 */
function timeText(time, span) {
  const text = new Date(time).toISOString();
  if (span > 8 * 365 * DAY) return text.slice(0, 4);
  if (span > 240 * DAY) return text.slice(0, 7);
  return span > 4 * DAY ? text.slice(0, 10) : `${text.slice(0, 10)} ${text.slice(11, 16)}`;
}

/** @param {number} photo */
function formatOf(photo) {
  const name = data.names[photo] ?? ".jpg";
  const extension = /\.([^./]+)$/.exec(name)?.[1].toUpperCase() ?? null;
  return (
    /** @type {Record<string, string>} */ ({ JPG: "JPEG", TIF: "TIFF", HEIF: "HEIC" })[extension ?? ""] ?? extension
  );
}

/** @type {Range[]} */
const ranges = [
  {
    name: "time",
    title: "Time",
    number: takenTime,
    text: timeText,
    finest: 48 * HOUR, // so that a bar is an hour
    write: (time) => new Date(time).toISOString().slice(0, 19),
    read: (text) => Date.parse(`${text}Z`),
  },
  {
    name: "quality",
    title: "Placement quality",
    number: (photo) => (nNeighbours ? quality[photo] : null),
    text: (share) => `${Math.round(share)}%`,
    finest: 100,
    low: 0,
    high: 100,
    write: (share) => share.toFixed(1),
    read: (text) => Number.parseFloat(text),
  },
];

/** @type {Choice[]} */
const choices = [
  { name: "folder", title: "Folder", category: folderOf, isTree: true },
  { name: "region", title: "Region", category: regionName },
  { name: "camera", title: "Camera", category: camera },
  { name: "format", title: "Format", category: formatOf },
];

const [byTime, ...otherRanges] = ranges.map((range) => new RangeFilter(range));
const byChoice = choices.map((choice) => new ChoiceFilter(choice));
export const filters = [byTime, ...byChoice, ...otherRanges].filter((filter) =>
  filter instanceof ChoiceFilter ? filter.isOffered : filter.all[0] < filter.all[1],
);

let areStale = true;

function updateFilters() {
  const stale = filters.filter((filter) => areStale || filter.isStale);
  if (!stale.length && !areStale) return;
  const { left } = elements;
  if (areStale) {
    const nIn = countIn();
    left.textContent = nIn < n ? `${nIn.toLocaleString("en")} of ${n.toLocaleString("en")} photos` : "";
    elements.chooseLeft.disabled = !nIn;
    elements.unfilter.disabled = !filters.some((filter) => filter.filter.isActive);
    elements.filter.classList.toggle("active", !elements.unfilter.disabled);
    areStale = false;
  }
  if (elements.filters.hidden) return;
  for (const filter of stale) {
    filter.isStale = false;
    filter.update();
  }
}

/** Show the panel of filters, or fold it away. */
export function toggleFilters() {
  elements.filters.hidden = !elements.filters.hidden;
  document.body.classList.toggle("has-filters", !elements.filters.hidden);
  elements.filter.setAttribute("aria-expanded", String(!elements.filters.hidden));
  outdateFilters();
  resize();
}

export function clearFilters() {
  for (const filter of filters) filter.words = [];
}

/** Select the photos that the filters leave in. */
export const selectLeft = () => changeSelection(photosIn());

function outdateFilters() {
  areStale = true;
  redraw();
}

elements.facets.append(...filters.map((filter) => filter.root));
elements.filter.onclick = toggleFilters;
elements.unfilter.onclick = clearFilters;
elements.chooseLeft.onclick = selectLeft;
whenMarked(outdateFilters);
beforeFrame(updateFilters);
addEventListener("resize", outdateFilters);
