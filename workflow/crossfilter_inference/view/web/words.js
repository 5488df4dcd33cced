// Words that find photos by what they show, without a network: the page lists the photos that fit each word.
import { data, numbers } from "./collection.js";

/** @typedef {{ photos: Int32Array, isFit: boolean }} Fits the best fit first; or else the most similar photos */

const PLURALS = [
  ["", ""],
  ["s", ""],
  ["es", ""],
  ["ies", "y"],
  ["ves", "f"],
  ["ves", "fe"],
];

const MOST_NEAR = 3;
const MOST_LETTERS_APART = 6;
const LIKE = 0.5; // share of equal pairs of letters from which words are similar

/** The photos of each word. */
const photosOfWord = readWords();

function readWords() {
  const all = numbers(data.fits, Int32Array);
  const counts = numbers(data.nFits, Int32Array);
  const found = /** @type {Map<string, Fits>} */ (new Map());
  let first = 0;
  data.words.forEach((words, meaning) => {
    const end = first + Math.abs(counts[meaning]);
    const fits = { photos: all.subarray(first, end), isFit: counts[meaning] > 0 };
    for (const word of words.split("\n")) found.set(word, fits);
    first = end;
  });
  return found;
}

/**
 * Return the photos that fit a word, in the singular or the plural, best first; null for an unknown word.
 * @param {string} word
 */
export function photosOf(word) {
  const lower = word.toLowerCase();
  for (const [plural, singular] of PLURALS) {
    const fits = lower.endsWith(plural) && photosOfWord.get(lower.slice(0, lower.length - plural.length) + singular);
    if (fits) return fits;
  }
  return null;
}

/**
 * Return known words that are spelt like a text, the nearest first.
 * @param {string} text
 */
export function nearestWords(text) {
  const wanted = pairs(text);
  const near = /** @type {{ word: string, likeness: number }[]} */ ([]);
  for (const word of photosOfWord.keys()) {
    if (Math.abs(word.length - text.length) > MOST_LETTERS_APART) continue;
    const own = pairs(word);
    let common = 0;
    for (const pair of own) common += Number(wanted.has(pair));
    const likeness = (2 * common) / (own.size + wanted.size);
    if (likeness >= LIKE) near.push({ word, likeness });
  }
  near.sort((a, b) => b.likeness - a.likeness);
  return near.slice(0, MOST_NEAR).map(({ word }) => word);
}

/**
 * Return all pairs of neighbouring letters, of a text with spaces around it.
 * @param {string} text
 */
function pairs(text) {
  const letters = ` ${text.toLowerCase()} `;
  return new Set(Array.from({ length: letters.length - 1 }, (_, i) => letters.slice(i, i + 2)));
}
