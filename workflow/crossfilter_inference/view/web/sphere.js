// The geometry of the sphere, and its view on the screen.
//
// Positions are unit vectors: x points to longitude 0 on the equator, z to the north pole. A view rotates them so that x
// points to the right, y up and z towards the viewer. It projects them as a globe, or onto a flat map: Hammer's equal-area projection,
// scaled to 4 by 2.

export const FARTHEST = 0.7; // the smallest zoom
const LEAST = 120; // CSS pixels for the sphere, even if panels leave less

/**
 * Return the number between two bounds that is nearest to another.
 * @param {number} value
 * @param {number} least
 * @param {number} most
 */
export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** @typedef {{ longitude: number, latitude: number }} Position in radians */
/**
 * What a view shows: flatness is 0 for the globe, 1 for the flat map; earth is 0 for places by likeness, 1 for those on Earth.
 * @typedef {Position & { zoom: number, flatness: number, earth: number }} Pose
 */

/**
 * Convert positions to unit vectors.
 * @param {ArrayLike<number>} degrees pairs of latitude and longitude
 * @returns {Float32Array<ArrayBuffer>} x, y, z of each
 */
export function onSphere(degrees) {
  const vectors = new Float32Array((degrees.length / 2) * 3);
  for (let i = 0; i < degrees.length / 2; i++) {
    const [latitude, longitude] = [degrees[2 * i], degrees[2 * i + 1]].map((angle) => (angle * Math.PI) / 180);
    const across = Math.cos(latitude);
    vectors.set([across * Math.cos(longitude), across * Math.sin(longitude), Math.sin(latitude)], 3 * i);
  }
  return vectors;
}

/**
 * Return points on the shortest line between two positions.
 * @param {Float32Array} a unit vector
 * @param {Float32Array} b unit vector
 * @param {number} [n] steps
 * @returns {Float32Array} x, y, z of n + 1 points
 */
export function shortestLine(a, b, n = 48) {
  const angle = Math.acos(clamp(a[0] * b[0] + a[1] * b[1] + a[2] * b[2], -1, 1));
  const line = new Float32Array(3 * (n + 1));
  for (let i = 0; i <= n; i++) {
    const t = i / n;
    const [s, e] =
      angle < 1e-4 ? [1 - t, t] : [Math.sin((1 - t) * angle), Math.sin(t * angle)].map((v) => v / Math.sin(angle));
    for (let k = 0; k < 3; k++) line[3 * i + k] = s * a[k] + e * b[k];
  }
  return line;
}

/**
 * What the screen shows of the sphere.
 * @implements {Pose}
 */
export class View {
  /** The position in the middle, in radians. */
  longitude = 0;
  latitude = 0;
  zoom = 1;
  flatness = 0;
  earth = 0;
  /** Room for the filters, the panel, the buttons and the legend, in CSS pixels. */
  left = 0;
  right = 0;
  top = 0;
  bottom = 0;
  /** Of the window, in CSS pixels. */
  width = 1;
  height = 1;

  /** @param {number} n photos; the more there are, the larger the largest zoom */
  constructor(n) {
    this.nearest = clamp(2.5 * Math.sqrt(n), 12, 200); // the largest zoom
  }

  /** Radius of the sphere in CSS pixels. */
  get radius() {
    const room = Math.max(this.width - this.left - this.right, LEAST);
    const high = Math.max(this.height - this.top - this.bottom, LEAST);
    const globe = 0.44 * Math.min(room, 1.04 * high);
    const flat = Math.min(Math.max(room - 80, LEAST) / 4, high / 2.3); // with room for half a thumbnail at both ends
    return (globe + this.flatness * (flat - globe)) * this.zoom;
  }

  /**
   * The middle of the sphere, in CSS pixels.
   * @returns {[number, number]}
   */
  get middle() {
    return [(this.width + this.left - this.right) / 2, (this.height + this.top - this.bottom) / 2];
  }

  /** Return the axes to the right, up and towards the viewer, as nine numbers. */
  camera() {
    const [sinLon, cosLon] = [Math.sin(this.longitude), Math.cos(this.longitude)];
    const [sinLat, cosLat] = [Math.sin(this.latitude), Math.cos(this.latitude)];
    return [
      ...[-sinLon, cosLon, 0],
      ...[-sinLat * cosLon, -sinLat * sinLon, cosLat],
      ...[cosLat * cosLon, cosLat * sinLon, sinLat],
    ];
  }

  /**
   * Project places to CSS pixels.
   * @param {Float32Array} places x, y, z of each
   * @param {Float32Array} [screen] takes the result
   * @returns {Float32Array} x, y and nearness of each; a nearness of at most 0 is out of sight
   */
  project(places, screen = new Float32Array(places.length)) {
    const c = this.camera();
    const [[left, top], radius, flatness] = [this.middle, this.radius, this.flatness];
    for (let i = 0; i < places.length; i += 3) {
      const [px, py, pz] = [places[i], places[i + 1], places[i + 2]];
      let x = px * c[0] + py * c[1] + pz * c[2];
      let y = px * c[3] + py * c[4] + pz * c[5];
      let near = px * c[6] + py * c[7] + pz * c[8];
      if (flatness > 0) {
        const half = Math.atan2(x, near) / 2;
        const cos = Math.sqrt(Math.max(0, 1 - y * y));
        const d = Math.sqrt(1 + cos * Math.cos(half));
        x += flatness * ((2 * cos * Math.sin(half)) / d - x);
        y += flatness * (y / d - y);
        near += flatness * (1 - near);
      }
      screen[i] = left + x * radius;
      screen[i + 1] = top - y * radius;
      screen[i + 2] = near;
    }
    return screen;
  }

  /**
   * Rotate by a movement of the pointer.
   * @param {number} dx CSS pixels
   * @param {number} dy CSS pixels
   */
  drag(dx, dy) {
    this.longitude -= dx / (this.radius * Math.max(Math.cos(this.latitude), 0.3));
    this.latitude += dy / this.radius;
    this.limit();
  }

  /**
   * Zoom, and keep the position under the pointer where it is.
   * @param {number} factor above 1 zooms in
   * @param {number} [x] of the pointer from the middle of the sphere, in CSS pixels
   * @param {number} [y]
   */
  approach(factor, x = 0, y = 0) {
    const before = this.radius;
    this.zoom = clamp(this.zoom * factor, FARTHEST, this.nearest);
    const share = 1 - before / this.radius;
    const reach = Math.min(1, this.radius / (Math.hypot(x, y) * 1.2 + 1)); // next to the globe, no point needs to stay
    this.drag(-x * share * reach, -y * share * reach);
  }

  /** Keep latitude and longitude within their ranges. */
  limit() {
    this.latitude = clamp(this.latitude, -Math.PI / 2, Math.PI / 2);
    this.longitude = Math.atan2(Math.sin(this.longitude), Math.cos(this.longitude));
  }
}

/**
 * Return the middle of some unit vectors.
 * @param {Float32Array} vectors x, y, z of each
 * @param {Iterable<number>} chosen their numbers
 * @returns {Position}
 */
export function middle(vectors, chosen) {
  let [x, y, z] = [0, 0, 0];
  for (const i of chosen) {
    x += vectors[3 * i];
    y += vectors[3 * i + 1];
    z += vectors[3 * i + 2];
  }
  return { longitude: Math.atan2(y, x), latitude: Math.atan2(z, Math.hypot(x, y)) };
}

const SIDES = 200; // positions that are compared
const HIGHEST = 0.6; // radians from the equator; nearer to a pole, the globe would be seen from above
const SAMPLE = 4000; // vectors

/**
 * Return the position from which most unit vectors are seen, and seen best.
 * @param {Float32Array} vectors x, y, z of each
 * @returns {Position}
 */
export function fullestSide(vectors) {
  let [best, most] = [{ longitude: 0, latitude: 0 }, -1];
  const step = 3 * Math.max(Math.floor(vectors.length / 3 / SAMPLE), 1);
  for (let side = 0; side < SIDES; side++) {
    const longitude = side * Math.PI * (3 - Math.sqrt(5)); // the golden angle: the positions are spread evenly
    const latitude = Math.asin(Math.sin(HIGHEST) * ((2 * side + 1) / SIDES - 1));
    const across = Math.cos(latitude);
    const [x, y, z] = [across * Math.cos(longitude), across * Math.sin(longitude), Math.sin(latitude)];
    let sum = 0;
    for (let i = 0; i < vectors.length; i += step) {
      sum += Math.max(vectors[i] * x + vectors[i + 1] * y + vectors[i + 2] * z, 0);
    }
    if (sum > most) [best, most] = [{ longitude: Math.atan2(y, x), latitude }, sum];
  }
  return best;
}
