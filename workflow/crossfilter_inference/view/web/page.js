"use strict";
// The page: it holds what is selected, hears mouse, fingers and keys, and has everything drawn.

const CATEGORIES = ["#4c8bd6", "#e8833a", "#3fa66b", "#d4526e", "#8f6cc9", "#b08055", "#d873b5", "#6d7f92", "#b3ad2b", "#2fb0bf"];
const SCALE = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const OTHER = "#98a2ad";
const REACH = 14; // CSS pixels from a point to the pointer
const LIGHT = matchMedia("(prefers-color-scheme: light)");
const PHONE = matchMedia("(max-width: 700px)");
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const numbers = (text, Kind) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

const n = data.uuids.length;
const places = onSphere(numbers(data.places, Float32Array));
const place = (photo) => places.subarray(3 * photo, 3 * photo + 3);
const neighbours = numbers(data.neighbours, Int32Array);
const similarities = numbers(data.similarities, Float32Array);
const nNeighbours = n ? neighbours.length / n : 0;
const folders = numbers(data.folder, Int32Array);
const regionOf = numbers(data.region, Int32Array);
const quality = numbers(data.quality, Uint8Array);
const path = (photo) => `${data.folders[folders[photo]]}/${data.names[photo] ?? `${data.uuids[photo]}.jpg`}`;
const regions = data.regions.filter((region) => region.name);
const regionPlaces = onSphere(regions.flatMap((region) => region.place));

const view = new View(n);
const onScreen = new Float32Array(3 * n);
const jpegs = $("thumbnails").textContent.trim();
const thumbnails = new Thumbnails(jpegs ? jpegs.split("\n") : [], numbers(data.thumbnails, Int32Array), () => redraw());
let points;
const ground = new Ground($("ground"));
const overlay = new Overlay($("overlay"), thumbnails);
const state = { hovered: -1, selected: -1, shown: new Int32Array(0), boxes: [], names: [], shift: 0, frames: 0 };
let theme, colours, pending = 0, flight = null, spin = null;

// ---- colours ---------------------------------------------------------------------------------------------------

/** What points can be coloured by: for each photo a category or a number, or nothing. */
const WAYS = {
  folder: { title: "Folder", of: (i) => data.folders[folders[i]].split("/").pop() || "/", is: data.folders.length > 1 },
  region: { title: "Region", of: (i) => data.regions[regionOf[i]]?.name || (regionOf[i] < 0 ? null : `Region ${regionOf[i] + 1}`), is: data.regions.length > 1 },
  time: { title: "Time", of: (i) => data.taken[i] && Date.parse(`${data.taken[i]}Z`), is: data.taken.filter(Boolean).length > 1, text: (t) => new Date(t).toISOString().slice(0, 10) },
  quality: { title: "Quality of placement", of: (i) => quality[i], is: nNeighbours > 0, text: (share) => `${Math.round(share)} %`, low: 0, high: 100 },
};

function paint(name) {
  const chosen = WAYS[name];
  const values = Array.from({ length: n }, (_, i) => chosen.of(i));
  colours = new Uint8Array(4 * n).fill(255);
  const legend = chosen.text ? scale(values, chosen) : categories(values);
  $("legend").replaceChildren(...legend);
  points.paint(colours);
  redraw();
}

function categories(values) {
  const groups = new Map();
  values.forEach((value, photo) => groups.has(value) ? groups.get(value).push(photo) : groups.set(value, [photo]));
  const unknown = groups.get(null) ?? [];
  groups.delete(null);
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length || (a[0] < b[0] ? -1 : 1));
  const others = [...unknown, ...sorted.splice(CATEGORIES.length).flatMap(([, photos]) => photos)];
  const rows = sorted.map(([value, photos], i) => [CATEGORIES[i], value, photos]);
  if (others.length) rows.push([OTHER, "others", others]);
  for (const [colour, , photos] of rows) for (const photo of photos) colours.set(rgb(colour), 4 * photo);
  return rows.map(entry);
}

function entry([colour, name, photos]) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const dot = document.createElement("i");
  dot.style.background = colour;
  const number = document.createElement("b");
  number.textContent = photos.length.toLocaleString("en");
  button.append(dot, name, number);
  button.onclick = () => go(middle(photos));
  item.append(button);
  return item;
}

function scale(values, { text, low, high }) {
  const known = values.filter((value) => value != null);
  low ??= known.reduce((a, b) => Math.min(a, b), Infinity);
  high ??= known.reduce((a, b) => Math.max(a, b), -Infinity);
  const stops = SCALE.map(rgb);
  values.forEach((value, i) => {
    if (value == null) return colours.set(rgb(OTHER), 4 * i);
    const at = high > low ? ((value - low) / (high - low)) * (stops.length - 1) : 0;
    const first = Math.min(Math.floor(at), stops.length - 2);
    colours.set(stops[first].map((c, k) => c + (at - first) * (stops[first + 1][k] - c)), 4 * i);
  });
  const bar = document.createElement("li");
  bar.className = "scale";
  bar.style.setProperty("--scale", SCALE.join());
  bar.append(...[low, high].map((end) => Object.assign(document.createElement("span"), { textContent: text(end) })));
  return [bar];
}

const colour = (photo) => `rgb(${colours.subarray(4 * photo, 4 * photo + 3).join()})`;

function dress(name) {
  document.documentElement.dataset.theme = name;
  const style = getComputedStyle(document.documentElement);
  const value = (key) => style.getPropertyValue(`--${key}`).trim();
  theme = Object.fromEntries(["ink", "halo", "accent", "middle", "edge", "lines"].map((key) => [key, value(key)]));
  redraw();
}

// ---- drawing ---------------------------------------------------------------------------------------------------

function redraw() {
  if (!pending && points) pending = requestAnimationFrame(draw);
}

function draw(now) {
  pending = 0;
  if (flight) fly(now);
  if (spin) turn();
  const isMoving = stepAside() || flight || spin;
  view.project(places, onScreen);
  const pointSize = Math.min(Math.max(90 / Math.sqrt(n + 1), 2.2), 9) * Math.pow(view.zoom, 0.3);
  ground.draw(view, theme);
  points.draw(view, pointSize);
  overlay.clear(view, theme);
  overlay.graticule(view);
  const side = thumbnailSide(view, n);
  state.names = overlay.nameBoxes(regions, view.project(regionPlaces), view);
  state.shown = chooseThumbnails(view, onScreen, thumbnails.order, state.shown, side, state.names);
  state.boxes = [];
  const selection = state.selected < 0 ? [] : [state.selected, ...mostAlike(state.selected).map(({ photo }) => photo)];
  const byNearness = [...state.shown].filter((photo) => !selection.includes(photo)).sort((a, b) => onScreen[3 * a + 2] - onScreen[3 * b + 2]);
  for (const photo of byNearness) stand(photo, side * (0.55 + 0.45 * Math.min(1, onScreen[3 * photo + 2] + 0.1)));
  if (state.selected >= 0) drawSelection(Math.max(side, 56));
  overlay.names(state.names);
  if (state.hovered >= 0 && state.hovered !== state.selected) {
    if (!stand(state.hovered, Math.max(side * 1.25, 64))) mark(state.hovered, 8);
  }
  state.frames++;
  if (isMoving) redraw();
}

function stand(photo, side, frame = 2, tint = colour(photo)) {
  const box = overlay.thumbnail(photo, onScreen[3 * photo], onScreen[3 * photo + 1], side, tint, frame);
  if (box) state.boxes.push(box);
  return box;
}

function mark(photo, radius) {
  if (onScreen[3 * photo + 2] > 0) overlay.ring(onScreen[3 * photo], onScreen[3 * photo + 1], radius, theme.accent);
}

function drawSelection(side) {
  const near = mostAlike(state.selected);
  for (const { photo } of near) {
    overlay.line(view.project(way(place(state.selected), place(photo))), view, theme.accent, 2);
  }
  for (const { photo } of [...near.reverse(), { photo: state.selected }]) {
    if (onScreen[3 * photo + 2] <= HIDDEN) continue;
    const size = photo === state.selected ? Math.min(side * 1.3, LARGEST) : side * 0.9;
    if (!stand(photo, size, photo === state.selected ? 4 : 2, theme.accent)) mark(photo, 7);
  }
}

function mostAlike(photo) {
  const row = [];
  for (let i = photo * nNeighbours; i < (photo + 1) * nNeighbours; i++) {
    if (neighbours[i] >= 0) row.push({ photo: neighbours[i], similarity: similarities[i] });
  }
  return row;
}

function resize() {
  // The globe makes room for the panel: above it on a phone, else beside it.
  const panel = $("panel");
  [view.width, view.height] = [innerWidth, innerHeight - (PHONE.matches ? panel.offsetHeight : 0)];
  state.shift = PHONE.matches || panel.hidden ? 0 : (innerWidth - panel.offsetLeft) / 2;
  for (const canvas of document.querySelectorAll("canvas")) {
    const [width, height] = [view.width, view.height].map((side) => Math.round(side * devicePixelRatio));
    canvas.style.height = `${view.height}px`;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height }); // which clears it
  }
  redraw();
}

// ---- moving ----------------------------------------------------------------------------------------------------

/** Go somewhere within a moment: to a longitude, a latitude, a zoom, a flatness. */
function go(target, milliseconds = 650) {
  const from = Object.fromEntries(Object.keys(target).map((key) => [key, view[key]]));
  if ("longitude" in target) {
    const turns = Math.round((target.longitude - from.longitude) / (2 * Math.PI));
    target.longitude -= turns * 2 * Math.PI; // the short way round
  }
  spin = null;
  flight = { from, target, start: null, milliseconds: CALM.matches ? 0 : milliseconds };
  redraw();
}

function fly(now) {
  flight.start ??= now;
  const t = flight.milliseconds ? Math.min(1, (now - flight.start) / flight.milliseconds) : 1;
  const share = t * t * (3 - 2 * t);
  for (const [key, end] of Object.entries(flight.target)) view[key] = flight.from[key] + share * (end - flight.from[key]);
  view.limit();
  if (t === 1) flight = null;
}

function goTo(photo, zoom = Math.max(view.zoom, 2.2)) {
  const [x, y, z] = place(photo);
  go({ longitude: Math.atan2(y, x), latitude: Math.asin(Math.min(1, Math.max(-1, z))), zoom });
}

/** The middle of some photos. */
function middle(photos) {
  const sum = [0, 0, 0];
  for (const photo of photos) place(photo).forEach((side, i) => { sum[i] += side; });
  const [x, y, z] = sum;
  return { longitude: Math.atan2(y, x), latitude: Math.atan2(z, Math.hypot(x, y)) };
}

/** Move the globe, a part of the way in each frame, to where it stands beside the panel. */
function stepAside() {
  const way = state.shift - view.shift;
  view.shift += CALM.matches || Math.abs(way) < 0.5 ? way : 0.25 * way;
  return way !== 0;
}

/** Go on turning when it was let go, slower and slower. */
function turn() {
  view.drag(spin.x, spin.y);
  spin.x *= 0.94;
  spin.y *= 0.94;
  if (Math.hypot(spin.x, spin.y) < 0.15) spin = null;
}

const reset = () => go({ longitude: home.longitude, latitude: home.latitude, zoom: 1 });
const flatten = () => {
  $("flat").setAttribute("aria-pressed", view.flatness < 0.5);
  go({ flatness: view.flatness < 0.5 ? 1 : 0 });
};

// ---- what is under the pointer, and what is selected ---------------------------------------------------------------

function find(x, y) {
  for (let i = state.boxes.length - 1; i >= 0; i--) {
    const box = state.boxes[i];
    if (Math.abs(box.x - x) <= box.halfWidth && Math.abs(box.y - y) <= box.halfHeight) return box.photo;
  }
  let [found, least] = [-1, REACH * REACH];
  for (let i = 0; i < n; i++) {
    const [dx, dy] = [onScreen[3 * i] - x, onScreen[3 * i + 1] - y];
    const distance = dx * dx + dy * dy;
    if (distance < least && onScreen[3 * i + 2] > 0) [found, least] = [i, distance];
  }
  return found;
}

function hover(photo, x = 0, y = 0) {
  const card = $("card");
  card.hidden = photo < 0;
  if (photo >= 0) {
    card.replaceChildren(...describe(photo));
    const right = x + 18 + card.offsetWidth > innerWidth;
    card.style.left = `${Math.max(8, right ? x - 18 - card.offsetWidth : x + 18)}px`;
    card.style.top = `${Math.min(Math.max(8, y + 18), innerHeight - card.offsetHeight - 8)}px`;
  }
  if (photo !== state.hovered) redraw();
  state.hovered = photo;
}

function describe(photo) {
  const line = (kind, text) => Object.assign(document.createElement("div"), { className: kind, textContent: text });
  const lines = [line("uuid", data.uuids[photo]), line("path", data.folders[folders[photo]])];
  if (data.taken[photo]) lines.push(line("taken", data.taken[photo].replace("T", " ")));
  return lines;
}

function select(photo) {
  state.selected = photo;
  $("panel").hidden = photo < 0;
  document.body.classList.toggle("has-panel", photo >= 0);
  if (photo >= 0) {
    const region = data.regions[regionOf[photo]]?.name;
    $("photo").replaceChildren(...portrait(photo), ...describe(photo));
    $("facts").textContent = [region, nNeighbours ? `${quality[photo]} % of its neighbours are near it on the map` : ""].filter(Boolean).join(" · ");
    $("open").hidden = !path(photo).startsWith("/"); // of some rows no file is on record
    $("open").href = new URL(path(photo).split("/").map(encode).join("/"), location.href);
    $("neighbours").replaceChildren(...mostAlike(photo).map(neighbour));
  }
  hover(-1);
  resize();
}

/** A name in a link; a byte that is no UTF-8 comes as a code from U+DC80. */
function encode(name) {
  const one = (c) => (/[\udc80-\udcff]/.test(c) ? `%${(c.charCodeAt(0) - 0xdc00).toString(16)}` : encodeURIComponent(c));
  return [...name].map(one).join("");
}

function portrait(photo) {
  if (!thumbnails.has(photo)) return [];
  return [Object.assign(new Image(), { src: thumbnails.source(photo), alt: `photo ${data.uuids[photo]}` })];
}

function neighbour({ photo, similarity }) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.dataset.uuid = data.uuids[photo];
  button.title = `${data.uuids[photo]}\n${path(photo)}`;
  button.append(...portrait(photo), Object.assign(document.createElement("span"), { textContent: similarity.toFixed(2) }));
  button.onclick = () => { select(photo); goTo(photo); };
  item.append(button);
  return item;
}

const plain = (uuid) => uuid.toLowerCase().replaceAll("-", "");
let found = { text: null, photos: [], at: 0 };

/** Find a UUID by its beginning, or a part of a path; again for the next one. */
function search(text) {
  if (text !== found.text) {
    const digits = plain(text);
    const isUuid = /^[0-9a-f]{4,}$/.test(digits);
    const photos = [];
    for (let i = 0; i < n; i++) {
      if ((isUuid && plain(data.uuids[i]).startsWith(digits)) || path(i).toLowerCase().includes(text.toLowerCase())) photos.push(i);
    }
    found = { text, photos, at: -1 };
  }
  const { photos } = found;
  found.at = (found.at + 1) % Math.max(photos.length, 1);
  $("found").textContent = photos.length ? `${found.at + 1} of ${photos.length.toLocaleString("en")}` : "no photo with this UUID or path";
  if (!photos.length) return;
  select(photos[found.at]);
  goTo(photos[found.at]);
}

// ---- mouse, fingers, keys ------------------------------------------------------------------------------------------

const pointers = new Map();
let pressed = null;
const stage = $("overlay");

stage.onpointerdown = (event) => {
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  pressed = pointers.size === 1 ? { x: event.clientX, y: event.clientY, speed: { x: 0, y: 0 }, time: event.timeStamp } : null;
  [flight, spin] = [null, null];
};

stage.onpointermove = (event) => {
  const [x, y] = [event.clientX, event.clientY];
  const before = pointers.get(event.pointerId);
  if (!before) return hover(find(x, y), x, y);
  const spread = () => [...pointers.values()].reduce((a, p, _, all) => a + Math.hypot(p.x - all[0].x, p.y - all[0].y), 0);
  const apart = spread();
  pointers.set(event.pointerId, { x, y });
  if (pointers.size > 1 && apart) view.approach(spread() / apart);
  const share = 1 / pointers.size;
  view.drag((x - before.x) * share, (y - before.y) * share);
  if (pressed) Object.assign(pressed, { speed: { x: x - before.x, y: y - before.y }, time: event.timeStamp });
  hover(-1);
  stage.classList.add("dragged");
  redraw();
};

stage.onpointerup = stage.onpointercancel = (event) => {
  pointers.delete(event.pointerId);
  stage.classList.remove("dragged");
  if (!pressed || event.type === "pointercancel") return;
  const [x, y] = [event.clientX, event.clientY];
  if (Math.hypot(x - pressed.x, y - pressed.y) < 5) select(find(x, y));
  else if (event.timeStamp - pressed.time < 50 && !CALM.matches) spin = { ...pressed.speed };
  pressed = null;
  redraw();
};

stage.onpointerleave = () => hover(-1);

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode ? 16 : 1;
  [flight, spin] = [null, null];
  const [x, y] = view.middle;
  view.approach(Math.exp(-event.deltaY * lines * 0.0015), event.clientX - x, event.clientY - y);
  redraw();
}, { passive: false });

const step = () => 0.35 / view.zoom;
const KEYS = {
  ArrowLeft: () => go({ longitude: view.longitude - step() }, 200),
  ArrowRight: () => go({ longitude: view.longitude + step() }, 200),
  ArrowUp: () => go({ latitude: Math.min(view.latitude + step(), Math.PI / 2) }, 200),
  ArrowDown: () => go({ latitude: Math.max(view.latitude - step(), -Math.PI / 2) }, 200),
  "+": () => go({ zoom: Math.min(view.zoom * 1.5, view.nearest) }, 200),
  "-": () => go({ zoom: Math.max(view.zoom / 1.5, FARTHEST) }, 200),
  0: reset,
  f: flatten,
  c: () => { $("colour").selectedIndex = ($("colour").selectedIndex + 1) % $("colour").options.length; paint($("colour").value); },
  n: () => { select((state.selected + 1) % n); goTo(state.selected); },
  p: () => { select((state.selected - 1 + n) % n); goTo(state.selected); },
  t: () => dress(document.documentElement.dataset.theme === "light" ? "dark" : "light"),
  "/": () => $("search").focus(),
  "?": () => $("help").showModal(),
  Escape: () => select(-1),
};
KEYS["="] = KEYS["+"];

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !n) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if ($("help").open || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("find").onsubmit = (event) => {
  event.preventDefault();
  if ($("search").value.trim()) search($("search").value.trim());
};
$("search").oninput = () => { $("found").textContent = ""; };
$("colour").onchange = () => paint($("colour").value);
$("flat").onclick = flatten;
$("home").onclick = reset;
$("theme").onclick = KEYS.t;
$("ask").onclick = KEYS["?"];
$("close").onclick = KEYS.Escape;
LIGHT.onchange = () => dress(LIGHT.matches ? "light" : "dark");
addEventListener("resize", resize);

// ---- beginning -----------------------------------------------------------------------------------------------------

/** Where most photos are in sight. */
const home = middle(Array(n).keys());
home.latitude /= 2;

try {
  points = new Points($("points"), places);
  Object.assign(view, home);
  for (const [name, { title, is }] of Object.entries(WAYS)) if (is) $("colour").add(new Option(title, name));
  if (!$("colour").options.length) $("colour").add(new Option("Folder", "folder"));
  dress(LIGHT.matches ? "light" : "dark");
  paint($("colour").value);
  resize();
} catch (error) {
  $("trouble").hidden = false;
  $("trouble").textContent = `The map cannot be drawn: ${error.message}.`;
}
