// The layers under the points (the surface of the sphere) and over them.
import { clamp, onSphere } from "./sphere.js";
import { SHARP } from "./thumbnails.js";

/** @import { View } from "./sphere.js" */
/** @import { Originals } from "./originals.js" */
/** @import { Box, Thumbnails } from "./thumbnails.js" */

/**
 * Colours of the light or dark theme, from page.css.
 * @typedef {object} Theme
 * @property {string} ink of text
 * @property {string} halo around text
 * @property {string} accent of the current and the selected photos
 * @property {string} middle of the sphere's surface
 * @property {string} edge of the sphere's surface
 * @property {string} lines of the graticule
 * @property {string} land on Earth
 * @property {string} coast around it
 */

/** @typedef {{ photo: number, x: number, y: number, halfWidth: number, halfHeight: number }} ThumbnailBox in CSS pixels */
/** @typedef {{ name: string, x: number, y: number, half: number }} NameBox middle and half the width, in CSS pixels */

const NAME_FONT = "600 15px system-ui, sans-serif";

/** Meridians and parallels, every 30 degrees. */
const GRATICULE = (() => {
  const steps = (/** @type {number} */ from, /** @type {number} */ to, /** @type {number} */ step) =>
    Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  const meridians = steps(-180, 150, 30).map((longitude) =>
    steps(-87, 87, 3).flatMap((latitude) => [latitude, longitude]),
  );
  const parallels = steps(-60, 60, 30).map((latitude) =>
    steps(-180, 180, 3).flatMap((longitude) => [latitude, longitude]),
  );
  return [...meridians, ...parallels].map(onSphere);
})();

/** A canvas with CSS pixels as its unit. */
class Layer {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    const context = canvas.getContext("2d");
    if (!context) throw new Error("this browser does not support canvas elements");
    this.context = context;
  }

  /** @param {View} view */
  clear(view) {
    const ratio = this.context.canvas.width / view.width;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, view.width, view.height);
  }

  /**
   * Draw a line along projected points. It is broken where they are out of sight, and at the edge of the flat map.
   * @param {Float32Array} screen x, y and nearness of each
   * @param {View} view
   * @param {string} colour
   * @param {number} width CSS pixels
   */
  line(screen, view, colour, width) {
    const context = this.context;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineCap = "round";
    context.beginPath();
    let isDown = false;
    for (let i = 0; i < screen.length; i += 3) {
      const isSeen = screen[i + 2] > 0;
      const isJump = isDown && Math.abs(screen[i] - screen[i - 3]) > 0.5 * view.radius;
      if (isSeen && isDown && !isJump) context.lineTo(screen[i], screen[i + 1]);
      else if (isSeen) context.moveTo(screen[i], screen[i + 1]);
      isDown = isSeen;
    }
    context.stroke();
  }
}

/** Draws the surface of the sphere. It stays the same while the sphere rotates. */
export class Ground extends Layer {
  drawn = "";

  /**
   * @param {View} view
   * @param {Theme} theme
   * @param {Float32Array[]} land rings of x, y, z
   */
  draw(view, theme, land) {
    const { width, height, middle, radius, flatness, earth } = view;
    const turned = earth > 0 ? [view.longitude, view.latitude, earth] : [];
    const wanted = [width, height, middle, radius, flatness, theme.middle, this.context.canvas.width, turned].join();
    if (wanted === this.drawn) return;
    this.drawn = wanted;
    this.clear(view);
    const { context } = this;
    const [x, y] = middle;
    const shade = context.createRadialGradient(x, y, 0, x, y, radius);
    const edge = flatness > 0.5 ? theme.middle : theme.edge;
    shade.addColorStop(0, theme.middle);
    shade.addColorStop(0.55, theme.middle);
    shade.addColorStop(1, edge);
    context.fillStyle = shade;
    context.beginPath();
    context.ellipse(x, y, radius * (1 + flatness), radius, 0, 0, 2 * Math.PI);
    context.fill();
    if (earth > 0) this.land(view, theme, land);
  }

  /**
   * Draw land: filled on the globe, and its coasts alone on the flat map.
   * @param {View} view
   * @param {Theme} theme
   * @param {Float32Array[]} rings x, y, z of their points; a ring in another one is a lake
   */
  land(view, theme, rings) {
    const { context } = this;
    context.globalAlpha = view.earth;
    if (view.flatness > 0) for (const ring of rings) this.line(view.project(ring), view, theme.coast, 1);
    else {
      context.beginPath();
      for (const ring of rings) this.trace(view, view.project(ring));
      context.fillStyle = theme.land;
      context.strokeStyle = theme.coast;
      context.lineWidth = 0.8;
      context.fill("evenodd");
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /**
   * Add a ring on the globe to the path. What is out of sight goes along the edge.
   * @param {View} view
   * @param {Float32Array} screen x, y and nearness of each point
   */
  trace(view, screen) {
    if (screen.every((value, i) => i % 3 < 2 || value <= 0)) return;
    const { context } = this;
    const { radius } = view;
    const [left, top] = view.middle;
    let before = Number.NaN; // the angle of the last point, if it is at the edge
    for (let i = 0; i <= screen.length; i += 3) {
      const at = i % screen.length; // the first point again, at last
      const [x, y] = [screen[at] - left, screen[at + 1] - top];
      const angle = screen[at + 2] > 0 ? Number.NaN : Math.atan2(y, x);
      const isHidden = !Number.isNaN(angle);
      if (isHidden && i > 0 && !Number.isNaN(before)) {
        context.arc(left, top, radius, before, angle, Math.sin(angle - before) < 0); // the short way
      } else {
        const to = isHidden ? [radius * Math.cos(angle), radius * Math.sin(angle)] : [x, y];
        context[i > 0 ? "lineTo" : "moveTo"](left + to[0], top + to[1]);
      }
      before = angle;
    }
  }
}

/** Draws over the points: the graticule, thumbnails, lines and the names of regions. */
export class Overlay extends Layer {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Thumbnails} thumbnails
   * @param {Originals} originals
   */
  constructor(canvas, thumbnails, originals) {
    super(canvas);
    this.thumbnails = thumbnails;
    this.originals = originals;
    /** Whether so few photos are in sight that their originals may be drawn. */
    this.isCloseUp = false;
    /** Of the names of regions, in CSS pixels. */
    this.nameWidths = /** @type {Map<string, number>} */ (new Map());
  }

  /**
   * @param {View} view
   * @param {Theme} theme
   */
  graticule(view, theme) {
    for (const line of GRATICULE) this.line(view.project(line), view, theme.lines, 1);
  }

  /**
   * Draw a thumbnail in its frame.
   * @param {number} photo
   * @param {number} x of its middle, in CSS pixels
   * @param {number} y of its middle, in CSS pixels
   * @param {number} side the longer one, in CSS pixels
   * @param {string} colour of the frame
   * @param {number} frame its width, in CSS pixels
   * @returns {ThumbnailBox | null} null if the browser has no image yet
   */
  thumbnail(photo, x, y, side, colour, frame) {
    const image = this.thumbnails.get(photo);
    if (!image) return null;
    const pixels = Math.max(image.naturalWidth, image.naturalHeight);
    const scale = side / pixels;
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const original = this.isCloseUp && side * devicePixelRatio > SHARP * pixels ? this.originals.get(photo) : null;
    const [left, top] = [x - width / 2, y - height / 2];
    this.context.fillStyle = colour;
    this.context.fillRect(left - frame, top - frame, width + 2 * frame, height + 2 * frame);
    this.context.drawImage(original ?? image, left, top, width, height);
    return { photo, x, y, halfWidth: width / 2 + frame, halfHeight: height / 2 + frame };
  }

  /**
   * @param {number} x of the middle, in CSS pixels
   * @param {number} y of the middle, in CSS pixels
   * @param {number} radius CSS pixels
   * @param {string} colour
   */
  ring(x, y, radius, colour) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = 2.5;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.stroke();
  }

  /**
   * Draw the outline of a lasso.
   * @param {number[]} corners x and y of each, in CSS pixels
   * @param {Theme} theme
   */
  outline(corners, theme) {
    const { context } = this;
    context.beginPath();
    for (let i = 0; i < corners.length; i += 2) context.lineTo(corners[i], corners[i + 1]);
    context.closePath();
    context.setLineDash([6, 4]);
    context.lineWidth = 1.5;
    context.strokeStyle = theme.accent;
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 0.12;
    context.fillStyle = theme.accent;
    context.fill();
    context.globalAlpha = 1;
  }

  /**
   * Choose the names of regions that are shown, in the middle of their regions. A name that would cover that of a larger
   * region is left out.
   * @param {{ name: string }[]} regions the largest first
   * @param {Float32Array} screen x, y and nearness of each
   * @param {View} view
   * @param {Box[]} obstacles no name touches them
   * @returns {NameBox[]}
   */
  nameBoxes(regions, screen, view, obstacles) {
    const boxes = /** @type {NameBox[]} */ ([]);
    regions.forEach(({ name }, i) => {
      const [y, near] = [screen[3 * i + 1], screen[3 * i + 2]];
      const half = this.nameWidth(name) / 2 + 4;
      const x = clamp(screen[3 * i], half, view.width - half);
      const isTaken = boxes.some((box) => Math.abs(box.x - x) < box.half + half && Math.abs(box.y - y) < 22);
      const isUnder = obstacles.some(
        ({ left, top, right, bottom }) => x + half > left && x - half < right && y + 11 > top && y - 11 < bottom,
      );
      if (near >= 0.25 && !isTaken && !isUnder) boxes.push({ name, x, y, half });
    });
    return boxes;
  }

  /** @param {string} name */
  nameWidth(name) {
    let width = this.nameWidths.get(name);
    if (width === undefined) {
      this.context.font = NAME_FONT;
      width = this.context.measureText(name).width;
      this.nameWidths.set(name, width);
    }
    return width;
  }

  /**
   * @param {NameBox[]} boxes
   * @param {Theme} theme
   */
  names(boxes, theme) {
    const context = this.context;
    context.font = NAME_FONT;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 4;
    context.strokeStyle = theme.halo;
    context.fillStyle = theme.ink;
    for (const { name, x, y } of boxes) {
      context.strokeText(name, x, y);
      context.fillText(name, x, y);
    }
  }
}
