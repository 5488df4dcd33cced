"use strict";
// What is drawn under the points, the sphere, and over them: thumbnails where there is room, the names of regions, and a
// photo with its neighbours.

const MOST_THUMBNAILS = 700; // at once
const LARGEST = 96; // pixels: no thumbnail has more
const NAME_FONT = "600 15px system-ui, sans-serif";
const HIDDEN = 0.12; // nearness below which a thumbnail would stand on the edge of the globe

/** Decodes thumbnails when they are wanted. */
class Thumbnails {
  images = new Map();

  /**
   * @param {string[]} jpegs base64, the most wanted first
   * @param {Int32Array} owners the photo of each
   * @param {function} onLoad called when one can be drawn
   */
  constructor(jpegs, owners, onLoad) {
    this.order = owners;
    this.jpegs = new Map(Array.from(owners, (photo, i) => [photo, jpegs[i]]));
    this.onLoad = onLoad;
  }

  has(photo) {
    return this.jpegs.has(photo);
  }

  source(photo) {
    return `data:image/jpeg;base64,${this.jpegs.get(photo)}`;
  }

  /** The decoded thumbnail, or null until it is there. */
  get(photo) {
    let image = this.images.get(photo);
    if (!image) {
      if (!this.has(photo)) return null;
      image = new Image();
      image.src = this.source(photo);
      image.decode().then(this.onLoad, () => this.jpegs.delete(photo));
      if (this.images.size > 3 * MOST_THUMBNAILS) this.images.delete(this.images.keys().next().value);
    }
    this.images.delete(photo); // the one that was wanted last is the last to go
    this.images.set(photo, image);
    return image.complete && image.naturalWidth ? image : null;
  }
}

/** Side of the thumbnails, in CSS pixels: larger from near by, smaller where there are many. */
function thumbnailSide(view, n) {
  const room = view.radius * Math.sqrt(3 / Math.min(Math.max(n, 1), 400));
  return Math.min(Math.max(room, 34) * Math.pow(Math.max(view.zoom, 1), 0.3), LARGEST);
}

/**
 * Choose the photos that are shown by their thumbnails: first come those that are shown already, then by `order`.
 * @param {{x, y, half}[]} names keep their room free
 * @returns {Int32Array} photos whose thumbnails hardly cover each other
 */
function chooseThumbnails(view, screen, order, shown, side, names) {
  const columns = Math.ceil(view.width / side) + 4;
  const taken = new Int32Array(columns * (Math.ceil(view.height / side) + 4)).fill(-1);
  const chosen = [];
  const offer = (photo) => {
    const [x, y, near] = [screen[3 * photo], screen[3 * photo + 1], screen[3 * photo + 2]];
    if (near < HIDDEN || x < -side || y < -side || x > view.width + side || y > view.height + side) return;
    const cell = (Math.floor(y / side) + 2) * columns + Math.floor(x / side) + 2;
    if (taken[cell] >= 0) return;
    for (let row = -columns; row <= columns; row += columns) {
      for (let neighbour = cell + row - 1; neighbour <= cell + row + 1; neighbour++) {
        const other = taken[neighbour];
        if (other < 0) continue;
        if (Math.abs(screen[3 * other] - x) < 0.9 * side && Math.abs(screen[3 * other + 1] - y) < 0.72 * side) return;
      }
    }
    for (const name of names) {
      if (Math.abs(name.x - x) < name.half + 0.45 * side && Math.abs(name.y - y) < 9 + 0.36 * side) return;
    }
    taken[cell] = photo;
    chosen.push(photo);
  };
  for (const photos of [shown, order]) {
    for (let i = 0; i < photos.length && chosen.length < MOST_THUMBNAILS; i++) offer(photos[i]);
  }
  return Int32Array.from(chosen);
}

/** Points of the shortest way between two places, as x, y, z. */
function way(a, b, n = 48) {
  const angle = Math.acos(Math.min(1, Math.max(-1, a[0] * b[0] + a[1] * b[1] + a[2] * b[2])));
  const points = new Float32Array(3 * (n + 1));
  for (let i = 0; i <= n; i++) {
    const t = i / n;
    const [s, e] = angle < 1e-4 ? [1 - t, t] : [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((v) => v / Math.sin(angle));
    for (let k = 0; k < 3; k++) points[3 * i + k] = s * a[k] + e * b[k];
  }
  return points;
}

/** Meridians and parallels, every 30 degrees. */
const GRATICULE = (() => {
  const steps = (from, to, step) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  const meridians = steps(-180, 150, 30).map((longitude) => steps(-87, 87, 3).flatMap((latitude) => [latitude, longitude]));
  const parallels = steps(-60, 60, 30).map((latitude) => steps(-180, 180, 3).flatMap((longitude) => [latitude, longitude]));
  return [...meridians, ...parallels].map(onSphere);
})();

/** A canvas on which one draws in CSS pixels. */
class Layer {
  constructor(canvas) {
    this.context = canvas.getContext("2d");
  }

  clear(view, theme) {
    this.theme = theme;
    const ratio = this.context.canvas.width / view.width;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.context.clearRect(0, 0, view.width, view.height);
  }

  /** A line along projected points; it is broken where they are out of sight or at the edge of the flat map. */
  line(screen, view, colour, width) {
    const context = this.context;
    Object.assign(context, { strokeStyle: colour, lineWidth: width, lineCap: "round" });
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

/** Draws the surface of the sphere, which stays as it is while the sphere turns. */
class Ground extends Layer {
  draw(view, theme) {
    const seen = [view.width, view.height, view.middle, view.radius, view.flatness, theme.middle, this.context.canvas.width].join();
    if (seen === this.seen) return;
    this.seen = seen;
    this.clear(view, theme);
    const { context } = this;
    const [[x, y], radius] = [view.middle, view.radius];
    const shade = context.createRadialGradient(x, y, 0, x, y, radius);
    const edge = view.flatness > 0.5 ? theme.middle : theme.edge;
    for (const [at, colour] of [[0, theme.middle], [0.55, theme.middle], [1, edge]]) shade.addColorStop(at, colour);
    context.fillStyle = shade;
    context.beginPath();
    context.ellipse(x, y, radius * (1 + view.flatness), radius, 0, 0, 2 * Math.PI);
    context.fill();
  }
}

/** Draws over the points. */
class Overlay extends Layer {
  constructor(canvas, thumbnails) {
    super(canvas);
    this.thumbnails = thumbnails;
  }

  graticule(view) {
    for (const places of GRATICULE) this.line(view.project(places), view, this.theme.lines, 1);
  }

  /** A thumbnail in its frame; returns its middle and half its sides, or null if it is not decoded yet. */
  thumbnail(photo, x, y, side, colour, frame = 1.5) {
    const image = this.thumbnails.get(photo);
    if (!image) return null;
    const scale = side / LARGEST;
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    const [left, top] = [x - width / 2, y - height / 2];
    this.context.fillStyle = colour;
    this.context.fillRect(left - frame, top - frame, width + 2 * frame, height + 2 * frame);
    this.context.drawImage(image, left, top, width, height);
    return { photo, x, y, halfWidth: width / 2 + frame, halfHeight: height / 2 + frame };
  }

  ring(x, y, radius, colour) {
    this.context.strokeStyle = colour;
    this.context.lineWidth = 2.5;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.stroke();
  }

  /** Where names stand: in the middle of their regions; one that would stand on that of a larger region is left out. */
  nameBoxes(regions, screen, view) {
    this.context.font = NAME_FONT;
    const boxes = [];
    regions.forEach(({ name }, i) => {
      const [y, near] = [screen[3 * i + 1], screen[3 * i + 2]];
      const half = this.context.measureText(name).width / 2 + 4;
      const x = Math.min(Math.max(screen[3 * i], half), view.width - half);
      const isTaken = boxes.some((box) => Math.abs(box.x - x) < box.half + half && Math.abs(box.y - y) < 22);
      if (near >= 0.25 && !isTaken) boxes.push({ name, x, y, half });
    });
    return boxes;
  }

  names(boxes) {
    const context = this.context;
    Object.assign(context, { font: NAME_FONT, textAlign: "center", textBaseline: "middle", lineJoin: "round", lineWidth: 4 });
    context.strokeStyle = this.theme.halo;
    context.fillStyle = this.theme.ink;
    for (const { name, x, y } of boxes) {
      context.strokeText(name, x, y);
      context.fillText(name, x, y);
    }
  }
}
