// A filter by category: a list, or a tree, of which any number may be chosen.
import { n } from "./collection.js";
import { create } from "./elements.js";
import { redraw } from "./globe.js";
import { Filter } from "./marks.js";

const FEW = 7; // rows at first
const UNKNOWN = "unknown";

/** @typedef {{ name: string, key: string, parent: number, total: number, children: number[] }} Node */

/**
 * What a filter by category needs to know.
 * @typedef {object} Choice
 * @property {string} name in the URL
 * @property {string} title
 * @property {(photo: number) => string | null} category of a photo; null is unknown
 * @property {boolean} [isTree] whether categories are paths, of which each folder may be chosen
 */

export class ChoiceFilter {
  filter = new Filter();
  /** Chosen nodes, by their number. */
  chosen = /** @type {Set<number>} */ (new Set());
  opened = /** @type {Set<number>} */ (new Set());
  nodes = /** @type {Node[]} */ ([]);
  showsAll = false;
  /** Of the top level. */
  shown = /** @type {number[]} */ ([]);
  isStale = false;
  root = create("section", "", "facet");
  list = create("ul", "");
  more = create("button", "", "more");
  clear = create("button", "×", "clear");
  /** The rows on the page, by the number of their node. */
  rows = /** @type {Map<number, { row: HTMLElement, count: HTMLElement }>} */ (new Map());

  /** @param {Choice} choice */
  constructor(choice) {
    this.choice = choice;
    this.name = choice.name;
    this.nodeOf = new Int32Array(n);
    const numbers = /** @type {Map<string, number>} */ (new Map());
    for (let photo = 0; photo < n; photo++) {
      const key = choice.category(photo) ?? UNKNOWN;
      let number = numbers.get(key);
      if (number === undefined) {
        number = choice.isTree ? this.addFolder(key, numbers) : this.add(key, key, -1);
        numbers.set(key, number);
      }
      this.nodeOf[photo] = number;
      for (let node = number; node >= 0; node = this.nodes[node].parent) this.nodes[node].total++;
    }
    this.counts = new Int32Array(this.nodes.length);
    /** The rows that are there at first: the largest categories first, folders by name. */
    this.tops = this.sort(this.nodes.flatMap((node, number) => (node.parent < 0 ? [number] : [])));
    while (this.tops.length === 1 && this.isEmpty(this.tops[0]))
      this.tops = this.sort(this.nodes[this.tops[0]].children);
    this.build();
  }

  /** Whether there is something to choose. */
  get isOffered() {
    return this.nodes.some((node) => node.total > 0 && node.total < n);
  }

  /**
   * @param {string} name
   * @param {string} key
   * @param {number} parent
   */
  add(name, key, parent) {
    const number = this.nodes.push({ name, key, parent, total: 0, children: [] }) - 1;
    this.nodes[parent]?.children.push(number);
    return number;
  }

  /**
   * Add a folder, and those that it lies in.
   * @param {string} path
   * @param {Map<string, number>} numbers
   * @returns {number}
   */
  addFolder(path, numbers) {
    const at = path.lastIndexOf("/");
    const above = at > 0 ? path.slice(0, at) : at === 0 && path !== "/" ? "/" : null;
    let parent = -1;
    if (above !== null) {
      parent = numbers.get(above) ?? this.addFolder(above, numbers);
      numbers.set(above, parent);
    }
    return this.add(path.slice(at + 1) || "/", path, parent);
  }

  /**
   * Return whether all photos of a folder lie in one folder of it.
   * @param {number} number
   */
  isEmpty(number) {
    const { children, total } = this.nodes[number];
    return children.reduce((sum, child) => sum + this.nodes[child].total, 0) === total;
  }

  /** @param {number[]} numbers */
  sort(numbers) {
    const { nodes, choice } = this;
    return numbers.toSorted((a, b) =>
      choice.isTree
        ? nodes[a].name.localeCompare(nodes[b].name, "en", { numeric: true })
        : nodes[b].total - nodes[a].total || (nodes[a].name < nodes[b].name ? -1 : 1),
    );
  }

  build() {
    const { title } = this.choice;
    this.clear.setAttribute("aria-label", `Clear the filter by ${title.toLowerCase()}`);
    this.clear.onclick = () => this.choose(new Set());
    const heading = create("h2", title);
    heading.append(this.clear);
    this.more.onclick = () => {
      this.showsAll = !this.showsAll;
      this.refill();
    };
    this.root.append(heading, this.list, this.more);
    this.fill();
  }

  /** Make the rows anew, and write their counts in the next frame. */
  refill() {
    this.fill();
    this.isStale = true;
    redraw();
  }

  /** Make the rows. */
  fill() {
    this.rows.clear();
    const rows = /** @type {HTMLElement[]} */ ([]);
    const addRows = (/** @type {number[]} */ numbers, /** @type {number} */ depth) => {
      for (const number of numbers) {
        rows.push(this.makeRow(number, depth));
        if (this.opened.has(number)) addRows(this.sort(this.nodes[number].children), depth + 1);
      }
    };
    this.shown = this.wanted();
    addRows(this.shown, 0);
    this.list.replaceChildren(...rows);
    this.more.hidden = this.tops.length <= FEW;
    this.more.textContent = this.showsAll ? "Show fewer" : `Show all ${this.tops.length.toLocaleString("en")}`;
  }

  /** Return the first rows that the other filters leave something of, and the chosen ones; or all. */
  wanted() {
    if (this.showsAll || this.tops.length <= FEW) return this.tops;
    const few = new Set(this.tops.filter((number) => this.counts[number] || this.chosen.has(number)).slice(0, FEW));
    for (const number of this.tops) if (few.size < FEW) few.add(number);
    return this.tops.filter((number) => few.has(number) || this.chosen.has(number));
  }

  /**
   * @param {number} number
   * @param {number} depth
   */
  makeRow(number, depth) {
    const { name, children } = this.nodes[number];
    const row = create("li", "");
    row.style.paddingLeft = `${14 * depth}px`;
    if (this.choice.isTree) {
      const fold = create("button", "", "fold");
      const isOpen = this.opened.has(number);
      fold.setAttribute("aria-expanded", String(isOpen));
      fold.setAttribute("aria-label", `Show or hide the folders in ${name}`);
      fold.style.visibility = children.length ? "" : "hidden";
      fold.onclick = () => {
        if (isOpen) this.opened.delete(number);
        else this.opened.add(number);
        this.refill();
      };
      row.append(fold);
    }
    const button = create("button", "", "choice");
    const count = create("b", "");
    button.append(create("span", name), count);
    button.onclick = () => this.toggle(number);
    row.append(button);
    this.rows.set(number, { row: button, count });
    return row;
  }

  /** @param {number} number */
  toggle(number) {
    const chosen = new Set(this.chosen);
    if (!chosen.delete(number)) chosen.add(number);
    this.choose(chosen);
  }

  /** @param {Set<number>} chosen nodes */
  choose(chosen) {
    this.chosen = chosen;
    const { nodes, nodeOf } = this;
    const isWanted = nodes.map((_, number) => {
      for (let node = number; node >= 0; node = nodes[node].parent) if (chosen.has(node)) return true;
      return false;
    });
    this.filter.apply(chosen.size ? (photo) => isWanted[nodeOf[photo]] : null);
  }

  /** Count the photos that the other filters leave in, and write the counts. */
  update() {
    const { counts, nodes, nodeOf, filter, chosen } = this;
    filter.countOthers(nodeOf, counts);
    if (this.choice.isTree) {
      const own = counts.slice();
      own.forEach((count, number) => {
        for (let node = nodes[number].parent; count && node >= 0; node = nodes[node].parent) counts[node] += count;
      });
    }
    if (this.wanted().join() !== this.shown.join()) this.fill();
    const most = Math.max(1, ...this.tops.slice(0, 1000).map((number) => counts[number]));
    for (const [number, { row, count }] of this.rows) {
      count.textContent = counts[number].toLocaleString("en");
      row.style.setProperty("--share", `${(100 * counts[number]) / most}%`);
      row.setAttribute("aria-pressed", String(chosen.has(number)));
      row.classList.toggle("none", !counts[number]);
    }
    this.clear.hidden = !chosen.size;
    this.root.classList.toggle("chosen", chosen.size > 0);
  }

  /** Return what is chosen, for the URL. */
  get words() {
    return Array.from(this.chosen)
      .sort((a, b) => a - b)
      .map((number) => this.nodes[number].key);
  }

  /** @param {string[]} words as `words` returns them; unknown ones choose nothing */
  set words(words) {
    const wanted = new Set(words);
    const chosen = this.nodes.flatMap((node, number) => (wanted.has(node.key) ? [number] : []));
    if (!chosen.length && !this.chosen.size) return;
    for (const number of chosen) {
      for (let node = this.nodes[number].parent; node >= 0; node = this.nodes[node].parent) this.opened.add(node);
      this.showsAll ||= this.tops.indexOf(number) >= FEW;
    }
    this.refill();
    this.choose(new Set(chosen));
  }
}
