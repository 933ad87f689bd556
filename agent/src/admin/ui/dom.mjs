// Elements made and kept up to date. All text goes through text nodes: nothing that the agent says is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An HTML element; children are elements or text. */
export const el = (name, attributes = {}, ...children) => made(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes = {}, ...children) => made(document.createElementNS(SVG, name), attributes, children);

/** The element of the page with that id. */
export const byId = (id) => document.getElementById(id);

/** Sets an element's text, if it is another: what did not change is not laid out again, nor read out. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets attributes that are others than before; null takes one away. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

const elementsOf = new WeakMap();

/**
 * Makes the parent's children those of `items`, each found again by its key: an element that stays is never moved, so that it
 * keeps the focus. Items come in an order of their own that does not change (by name).
 */
export function keyed(parent, items, keyOf, create, update) {
  const before = elementsOf.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    now.set(key, before.get(key) ?? create(item));
  }
  for (const [key, element] of before) if (!now.has(key)) element.remove();
  elementsOf.set(parent, now);
  let next = parent.firstElementChild;
  for (const element of now.values()) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const item of items) update(now.get(keyOf(item)), item);
}
