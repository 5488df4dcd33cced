// The menu of colourings, and the legend of the chosen one.
import { n } from "./collection.js";
import { COLOURINGS, MENU } from "./colourings.js";
import { create, elements, printable } from "./elements.js";
import { go, resize, setColours, shownPlaces } from "./globe.js";
import { paintPhotos } from "./painting.js";
import { middle } from "./sphere.js";

/** @import { Group, Scale } from "./painting.js" */

/** Fill the menu, and paint the photos by its first colouring. */
export function startColours() {
  for (const name of MENU) elements.colour.add(new Option(COLOURINGS[name].title, name));
  elements.colour.onchange = paintChosen;
  paintChosen();
}

/** Choose the next colouring of the menu. */
export function nextColours() {
  elements.colour.selectedIndex = (elements.colour.selectedIndex + 1) % MENU.length;
  paintChosen();
}

/** Paint the photos by the chosen colouring, and show its legend. */
export function paintChosen() {
  const { colours, groups, scale } = paintPhotos(COLOURINGS[elements.colour.value], n);
  elements.legend.replaceChildren(...(scale ? [scaleItem(scale)] : groups.map(groupItem)));
  setColours(colours);
  resize();
}

/**
 * Return the row of a category. A click on it goes to its photos.
 * @param {Group} group
 */
function groupItem({ colour, name, photos }) {
  const dot = create("i", "");
  dot.style.background = colour;
  const button = create("button", "");
  button.append(dot, printable(name), create("b", photos.length.toLocaleString("en")));
  button.onclick = () => go(middle(shownPlaces, photos));
  const item = create("li", "");
  item.append(button);
  return item;
}

/** @param {Scale} scale */
function scaleItem({ colours, low, high }) {
  const item = create("li", "", "scale");
  item.style.setProperty("--scale", colours.join());
  item.append(create("span", low), create("span", high));
  return item;
}
