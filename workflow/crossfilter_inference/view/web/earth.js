// The second place of a photo: where it was taken. The same sphere shows all photos by likeness, or on Earth.
import { data, latitude, longitude, n, numbers, places } from "./collection.js";
import { onSphere } from "./sphere.js";

const END_OF_RING = 32767;

/** Whether it is known where a photo was taken. */
const isLocated = Uint8Array.from({ length: n }, (_, photo) =>
  Number(latitude(photo) !== null && longitude(photo) !== null),
);

/** @param {number} photo */
export const hasPlaceOnEarth = (photo) => isLocated[photo] === 1;

export const canShowEarth = isLocated.includes(1);

/** Unit vectors of where photos were taken: x, y, z of each. Those that nobody knows keep their place by likeness. */
const onEarth = places.slice();
onSphere(Array.from({ length: n }, (_, photo) => [latitude(photo) ?? 0, longitude(photo) ?? 0]).flat()).forEach(
  (side, i) => {
    if (isLocated[Math.floor(i / 3)]) onEarth[i] = side;
  },
);

/**
 * Write unit vectors on the way from likeness to Earth.
 * @param {number} share 0 is likeness, 1 is Earth
 * @param {Float32Array} result x, y, z of each photo
 */
export function placeBetween(share, result) {
  if (share === 0 || share === 1) {
    result.set(share ? onEarth : places);
    return;
  }
  for (let i = 0; i < 3 * n; i += 3) {
    const x = places[i] + share * (onEarth[i] - places[i]);
    const y = places[i + 1] + share * (onEarth[i + 1] - places[i + 1]);
    const z = places[i + 2] + share * (onEarth[i + 2] - places[i + 2]);
    const length = Math.hypot(x, y, z) || 1;
    result[i] = x / length;
    result[i + 1] = y / length;
    result[i + 2] = z / length;
  }
}

/** The outlines of land: for each closed ring, x, y, z of its points. */
export const land = readLand();

function readLand() {
  const values = data.land ? numbers(data.land, Int16Array) : new Int16Array();
  const rings = [];
  let start = 0;
  for (let i = 0; i < values.length; i += 2) {
    if (values[i] !== END_OF_RING) continue;
    rings.push(onSphere(Array.from(values.subarray(start, i), (hundredths) => hundredths / 100)));
    start = i + 2;
  }
  return rings;
}
