// The elements of map.html that scripts read or change.

/**
 * Find an element.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} Kind its class
 * @returns {T}
 */
function element(id, Kind) {
  const found = document.getElementById(id);
  if (!(found instanceof Kind)) throw new Error(`map.html has no ${Kind.name} with the id ${id}`);
  return found;
}

export const elements = {
  ground: element("ground", HTMLCanvasElement),
  points: element("points", HTMLCanvasElement),
  overlay: element("overlay", HTMLCanvasElement),
  find: element("find", HTMLFormElement),
  search: element("search", HTMLInputElement),
  found: element("found", HTMLOutputElement),
  picture: element("picture", HTMLButtonElement),
  file: element("file", HTMLInputElement),
  colour: element("colour", HTMLSelectElement),
  earth: element("earth", HTMLButtonElement),
  flat: element("flat", HTMLButtonElement),
  home: element("home", HTMLButtonElement),
  theme: element("theme", HTMLButtonElement),
  ask: element("ask", HTMLButtonElement),
  legend: element("legend", HTMLUListElement),
  title: element("title", HTMLElement),
  bar: element("bar", HTMLElement),
  filter: element("filter", HTMLButtonElement),
  filters: element("filters", HTMLElement),
  facets: element("facets", HTMLDivElement),
  left: element("left", HTMLOutputElement),
  chooseLeft: element("choose-left", HTMLButtonElement),
  unfilter: element("unfilter", HTMLButtonElement),
  lasso: element("lasso", HTMLButtonElement),
  rectangle: element("rectangle", HTMLButtonElement),
  strip: element("strip", HTMLElement),
  many: element("many", HTMLHeadingElement),
  order: element("order", HTMLSelectElement),
  byFit: element("by-fit", HTMLOptionElement),
  take: element("take", HTMLSelectElement),
  tookAway: element("took-away", HTMLOutputElement),
  similar: element("similar", HTMLSpanElement),
  nSimilar: element("n-similar", HTMLInputElement),
  addSimilar: element("add-similar", HTMLButtonElement),
  chooseFound: element("choose-found", HTMLButtonElement),
  unselect: element("unselect", HTMLButtonElement),
  reel: element("reel", HTMLDivElement),
  pictures: element("pictures", HTMLOListElement),
  panel: element("panel", HTMLElement),
  close: element("close", HTMLButtonElement),
  photo: element("photo", HTMLDivElement),
  facts: element("facts", HTMLParagraphElement),
  here: element("here", HTMLButtonElement),
  open: element("open", HTMLAnchorElement),
  neighbours: element("neighbours", HTMLOListElement),
  card: element("card", HTMLDivElement),
  help: element("help", HTMLDialogElement),
  viewer: element("viewer", HTMLDialogElement),
  table: element("table", HTMLDivElement),
  preview: element("preview", HTMLImageElement),
  large: element("large", HTMLImageElement),
  excuse: element("excuse", HTMLParagraphElement),
  story: element("story", HTMLDivElement),
  previous: element("previous", HTMLButtonElement),
  next: element("next", HTMLButtonElement),
  back: element("back", HTMLButtonElement),
  trouble: element("trouble", HTMLParagraphElement),
  data: element("data", HTMLScriptElement),
  thumbnails: element("thumbnails", HTMLScriptElement),
};

/**
 * Make a text one line without characters that are invisible or change others. `util/text.py` does the same.
 * @param {string} text
 */
export function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => {
    const code = c.codePointAt(0) ?? 0;
    if (code === 0x200c || code === 0x200d) return c; // joiners, in emoji and some scripts
    if ("\t\n\r".includes(c)) return `\\${"tnr"["\t\n\r".indexOf(c)]}`;
    const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code; // a byte that is not UTF-8
    const [letter, width] = byte < 0x100 ? ["x", 2] : byte < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${letter}${byte.toString(16).padStart(width, "0")}`;
  });
}

/**
 * Write a number of things: 1 path, 2 paths.
 * @param {number} number
 * @param {string} word in the singular
 */
export const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

/**
 * Create an element with a text, which becomes printable.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} text
 * @param {string} [className]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function create(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = printable(text);
  made.className = className;
  return made;
}

/**
 * Return how far the wheel was turned, in CSS pixels.
 * @param {WheelEvent} event
 */
export const wheelPixels = (event) => event.deltaY * (event.deltaMode ? 16 : 1); // or lines

/**
 * Return the factor by which the wheel zooms in.
 * @param {WheelEvent} event
 */
export const wheelFactor = (event) => Math.exp(-wheelPixels(event) * 0.0015);
