// @ts-check
// Builds the page's elements. Whatever a job says becomes a text node or an attribute, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {Node | string | number | null | undefined | false | any[]} Child A list holds such again.
 */

/**
 * Makes an element.
 *
 * @param {string} tag Its name.
 * @param {Record<string, any>} [props] `class`, `text`, `on: {click: f}`, or attributes. One that is null, undefined
 *   or false is left out; true is an empty attribute.
 * @param {...Child} children Nodes, texts, lists of them; null is left out.
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/**
 * Makes an element of SVG, as `el` does one of HTML.
 *
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...Child} children
 * @returns {any}
 */
export function svg(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

/**
 * @param {Element} element
 * @param {Record<string, any>} props
 * @param {Child[]} children
 */
function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === "text") {
      element.textContent = value ?? "";
    } else {
      setAttribute(element, name, value);
    }
  }
  add(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {any} value
 */
function setAttribute(element, name, value) {
  // A listener in an attribute would be code, and a style there is refused by the page's policy.
  if (name.startsWith("on") || name === "style") throw new Error(`${name} is not set as an attribute`);
  if (value === null || value === undefined || value === false) return;
  element.setAttribute(name, value === true ? "" : String(value));
}

/**
 * Adds children, as `el` takes them, to an element.
 *
 * @param {Node} parent
 * @param {Child} children
 */
export function add(parent, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/**
 * Puts children, as `el` takes them, in place of those that an element has.
 *
 * @param {Element} parent
 * @param {...Child} children
 */
export function fill(parent, ...children) {
  parent.replaceChildren();
  add(parent, children);
}

/**
 * Sets a text unless it is there already: what did not change is not laid out again, and a selection in it stays.
 *
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Sets an attribute unless it has the value already; null removes it.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string | number | null} value
 */
export function setTo(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) setAttribute(element, name, value);
}
