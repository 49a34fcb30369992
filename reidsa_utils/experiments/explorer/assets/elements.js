"use strict";
// Small helpers: elements and numbers.

const $ = (id) => document.getElementById(id);

/** A new element with attributes (a function becomes a listener) and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const digits = (value, n = 3) => (value === null ? "–" : value.toFixed(n));
const times = (n) => (n === 1 ? "once" : `${n} times`);
const matches = (n) => `${n} match${n === 1 ? "" : "es"}`;
