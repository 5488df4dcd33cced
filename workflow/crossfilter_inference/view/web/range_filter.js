// A filter by number: a histogram with two handles, and a brush between them.
import { n } from "./collection.js";
import { create, wheelPixels } from "./elements.js";
import { redraw } from "./globe.js";
import { Filter } from "./marks.js";
import { clamp } from "./sphere.js";

const BARS = 48;
const HEIGHT = 54; // CSS pixels
const GRIP = 8; // CSS pixels around a handle

/**
 * What a filter by number needs to know.
 * @typedef {object} Range
 * @property {string} name in the URL
 * @property {string} title
 * @property {(photo: number) => number | null} number of a photo; null is unknown
 * @property {(number: number, span: number) => string} text of a number, as exact as a span of the axis needs
 * @property {number} finest the shortest span of the axis
 * @property {number} [low] an end of the axis; without it, the smallest number
 * @property {number} [high] an end of the axis; without it, the largest number
 * @property {(number: number) => string} write a number for the URL
 * @property {(text: string) => number} read it again; NaN if it is none
 */

const inksOf = /** @type {Record<string, string[]>} */ ({});

/** Return the colours of the chosen bars, of the others and of the base line, in the present theme. */
function inks() {
  const theme = document.documentElement.dataset.theme ?? "";
  inksOf[theme] ??= ["--accent", "--soft", "--rim"].map((name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name),
  );
  return inksOf[theme];
}

export class RangeFilter {
  filter = new Filter();
  /** The chosen ends, or null for all photos. */
  chosen = /** @type {[number, number] | null} */ (null);
  /** The bar of each photo; one more is for those beyond the axis. */
  barOf = new Int32Array(n);
  bins = new Int32Array(BARS + 1);
  /** How many photos each bar has. */
  counts = this.bins.subarray(0, BARS);
  /** Of the histogram, in CSS pixels. */
  width = 0;
  isStale = false;
  root = create("section", "", "facet");
  canvas = create("canvas", "");
  chosenText = create("output", "");
  clear = create("button", "×", "clear");
  ends = [create("span", ""), create("span", "")];

  /** @param {Range} range */
  constructor(range) {
    this.range = range;
    this.name = range.name;
    this.values = Float64Array.from({ length: n }, (_, photo) => range.number(photo) ?? Number.NaN);
    let [low, high] = [Infinity, -Infinity];
    for (const value of this.values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    /** The ends of all values, and those of the axis. */
    this.all = /** @type {[number, number]} */ ([range.low ?? low, range.high ?? high]);
    this.axis = /** @type {[number, number]} */ ([...this.all]);
    this.handles = [0, 1].map((end) => this.makeHandle(end));
    this.sortIntoBars();
    this.build();
  }

  build() {
    this.clear.setAttribute("aria-label", `Clear the filter by ${this.range.title.toLowerCase()}`);
    this.clear.onclick = () => this.choose(null);
    const heading = create("h2", this.range.title);
    heading.append(this.chosenText, this.clear);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `Histogram of ${this.range.title.toLowerCase()}`);
    const plot = create("div", "", "plot");
    plot.append(this.canvas, ...this.handles);
    // Asking for the width in each frame would make the browser lay out the page.
    new ResizeObserver(() => {
      this.width = this.canvas.clientWidth;
      this.outdate();
    }).observe(this.canvas);
    const axis = create("div", "", "axis");
    axis.append(...this.ends);
    this.root.append(heading, plot, axis);
    this.listen(plot);
  }

  /** @param {number} end 0 or 1 */
  makeHandle(end) {
    const handle = create("span", "", "handle");
    handle.tabIndex = 0;
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", `${this.range.title}: ${end ? "to" : "from"}`);
    handle.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -8, PageUp: 8 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const ends = /** @type {[number, number]} */ ([...(this.chosen ?? this.axis)]);
      ends[end] += (by * (this.axis[1] - this.axis[0])) / BARS;
      this.choose(ends[0] <= ends[1] ? ends : [ends[end], ends[end]]);
    };
    return handle;
  }

  /** @param {HTMLElement} plot takes the pointer */
  listen(plot) {
    /** The end of the brush that stays while the other one is dragged; null if nothing is. */
    let fixed = /** @type {number | null} */ (null);
    let start = 0;
    const at = (/** @type {PointerEvent | WheelEvent} */ event) => {
      const { left, width } = plot.getBoundingClientRect();
      const share = clamp((event.clientX - left) / width, 0, 1);
      return this.axis[0] + share * (this.axis[1] - this.axis[0]);
    };
    plot.onpointerdown = (event) => {
      plot.setPointerCapture(event.pointerId);
      start = event.clientX;
      const { left, width } = plot.getBoundingClientRect();
      const near = this.chosen?.findIndex((end) => Math.abs(left + this.share(end) * width - start) < GRIP) ?? -1;
      fixed = this.chosen && near >= 0 ? this.chosen[1 - near] : at(event);
    };
    plot.onpointermove = (event) => {
      if (fixed === null || Math.abs(event.clientX - start) < 3) return;
      const other = at(event);
      this.choose([Math.min(fixed, other), Math.max(fixed, other)]);
    };
    plot.onpointerup = plot.onpointercancel = (event) => {
      if (event.type === "pointerup" && Math.abs(event.clientX - start) < 3) this.choose(null);
      fixed = null;
    };
    plot.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        this.zoom(at(event), Math.exp(wheelPixels(event) * 0.003));
      },
      { passive: false },
    );
    plot.ondblclick = () => this.zoom(this.all[0], Infinity);
  }

  /**
   * Zoom the axis.
   * @param {number} around a number that stays where it is
   * @param {number} factor below 1 shows less
   */
  zoom(around, factor) {
    const [low, high] = this.axis;
    const span = clamp((high - low) * factor, this.range.finest, this.all[1] - this.all[0]);
    const share = high > low ? (around - low) / (high - low) : 0;
    const first = clamp(around - share * span, this.all[0], this.all[1] - span);
    this.axis = /** @type {[number, number]} */ ([first, first + span]);
    this.sortIntoBars();
    this.outdate();
  }

  outdate() {
    this.isStale = true;
    redraw();
  }

  /** Find the bar of each photo on the axis. */
  sortIntoBars() {
    const [low, high] = this.axis;
    const { barOf, values } = this;
    const scale = high > low ? BARS / (high - low) : 0;
    for (let photo = 0; photo < n; photo++) {
      const value = values[photo];
      barOf[photo] = value >= low && value <= high ? Math.min(Math.floor((value - low) * scale), BARS - 1) : BARS;
    }
  }

  /** @param {[number, number] | null} ends */
  choose(ends) {
    this.chosen = ends;
    const { values } = this;
    this.filter.apply(ends && ((photo) => values[photo] >= ends[0] && values[photo] <= ends[1]));
  }

  /** @param {number} number */
  share(number) {
    const [low, high] = this.axis;
    return high > low ? clamp((number - low) / (high - low), 0, 1) : 0.5;
  }

  /** Count the photos that the other filters leave in, and draw them. */
  update() {
    this.filter.countOthers(this.barOf, this.bins);
    this.draw();
    this.write();
  }

  draw() {
    const { canvas, chosen, counts, width } = this;
    const ratio = devicePixelRatio;
    const size = { width: Math.round(width * ratio), height: Math.round(HEIGHT * ratio) };
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    const context = canvas.getContext("2d");
    if (!context || !width) return;
    const [accent, soft, rim] = inks();
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, HEIGHT);
    context.fillStyle = rim;
    context.fillRect(0, HEIGHT - 1, width, 1);
    const most = Math.max(...counts, 1);
    const [low, high] = this.axis;
    const step = width / BARS;
    counts.forEach((count, i) => {
      if (!count) return;
      const [first, last] = [i, i + 1].map((edge) => low + (edge / BARS) * (high - low));
      const isChosen = !chosen || (last >= chosen[0] && first <= chosen[1]);
      context.fillStyle = isChosen ? accent : soft;
      context.globalAlpha = isChosen ? 1 : 0.45;
      const tall = Math.max((count / most) * (HEIGHT - 4), 2); // one photo is seen, too
      context.fillRect(i * step, HEIGHT - tall, Math.max(step - 1, 1), tall);
    });
    context.globalAlpha = 1;
  }

  /** Write the ends of the axis and of the brush. */
  write() {
    const { range, chosen, axis } = this;
    const span = axis[1] - axis[0];
    this.ends.forEach((end, i) => {
      end.textContent = range.text(axis[i], span);
    });
    this.chosenText.textContent = chosen ? `${chosen.map((end) => range.text(end, span / 4)).join(" – ")}` : "";
    this.clear.hidden = !chosen;
    this.handles.forEach((handle, i) => {
      const value = (chosen ?? axis)[i];
      handle.style.left = `${100 * this.share(value)}%`;
      handle.setAttribute("aria-valuemin", String(this.all[0]));
      handle.setAttribute("aria-valuemax", String(this.all[1]));
      handle.setAttribute("aria-valuenow", String(value));
      handle.setAttribute("aria-valuetext", range.text(value, span / 4));
    });
    this.root.classList.toggle("chosen", chosen !== null);
  }

  /** Return what is chosen, for the URL. */
  get words() {
    return this.chosen ? [this.chosen.map(this.range.write).join("..")] : [];
  }

  /** @param {string[]} words as `words` returns them; unreadable ones choose nothing */
  set words([word]) {
    const [low, high] = (word ?? "").split("..").map(this.range.read);
    const chosen = low <= high ? /** @type {[number, number]} */ ([low, high]) : null;
    if (chosen || this.chosen) this.choose(chosen);
  }
}
