'use strict';
/* What the page should be, as plain objects, brought into the document by changing only
 * what differs: nothing flickers, and scroll, focus and open parts stay as they were.
 * Texts only ever become text nodes or attributes, never markup. */

const SVG = 'http://www.w3.org/2000/svg';

/* h('td', {class: 'number'}, 'text', h(...), [more]): null and false children are left out. */
function h(tag, attributes, ...children) {
  const flat = [];
  const add = child => {
    if (Array.isArray(child)) child.forEach(add);
    else if (child !== null && child !== undefined && child !== false)
      flat.push(typeof child === 'object' ? child : String(child));
  };
  children.forEach(add);
  return {tag, attributes: attributes || {}, children: flat};
}

function makeNode(tree, parent) {
  if (typeof tree === 'string') return document.createTextNode(tree);
  const isSvg = tree.tag === 'svg' || parent.namespaceURI === SVG;
  const node = isSvg ? document.createElementNS(SVG, tree.tag)
                     : document.createElement(tree.tag);
  patch(node, tree);
  return node;
}

function isSame(node, tree) {
  if (typeof tree === 'string') return node.nodeType === Node.TEXT_NODE;
  return node.nodeType === Node.ELEMENT_NODE && node.localName === tree.tag &&
    (node.dataset ? node.dataset.key || '' : '') === String(tree.attributes['data-key'] || '');
}

/* Handlers are properties, whose names begin with "on"; the rest are attributes. What a
 * reader changes by hand (open, value) is set at the beginning only. */
function setAttributes(node, attributes) {
  for (const name of node.getAttributeNames())
    if (!(name in attributes) && name !== 'open') node.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node[name] = value;
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? '' : value);
  }
}

function patch(node, tree) {
  setAttributes(node, tree.attributes);
  patchChildren(node, tree.children);
}

function patchChildren(node, trees) {
  for (let i = 0; i < trees.length; i++) {
    const old = node.childNodes[i], tree = trees[i];
    if (!old) node.appendChild(makeNode(tree, node));
    else if (!isSame(old, tree)) node.replaceChild(makeNode(tree, node), old);
    else if (typeof tree !== 'string') patch(old, tree);
    else if (old.data !== tree) old.data = tree;
  }
  while (node.childNodes.length > trees.length) node.removeChild(node.lastChild);
}

/* ---- numbers and times for people ---- */

function formatNumber(value, digits) {
  if (value === null || value === undefined || !isFinite(value)) return '';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return Number(value.toPrecision(digits || 4)).toLocaleString('en', {maximumFractionDigits: 6});
}

function formatDuration(ms) {
  if (ms === null || ms === undefined || !isFinite(ms)) return '';
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return s + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min ' + String(s % 60).padStart(2, '0') + ' s';
  if (s < 86400) return Math.floor(s / 3600) + ' h ' + String(Math.floor(s / 60) % 60).padStart(2, '0') + ' min';
  return Math.floor(s / 86400) + ' d ' + Math.floor(s / 3600) % 24 + ' h';
}

function formatBytes(n) {
  if (!n) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (n < 10 && i ? n.toFixed(1) : Math.round(n)) + ' ' + units[i];
}

/* A time as how long ago, the time itself on hovering. */
function ago(ms, now_ms) {
  if (!ms) return '';
  const date = new Date(ms);
  return h('time', {datetime: date.toISOString(), title: date.toLocaleString()},
    formatDuration(now_ms - ms) + ' ago');
}

/* columns: [title, cell(row), class]. On a phone every row is a card with titles. */
function table(caption, columns, rows) {
  return h('div', {class: 'scroll'}, h('table', null,
    h('caption', {class: 'hidden'}, caption),
    h('thead', null, h('tr', null, columns.map(c => h('th', {scope: 'col', class: c[2] || null}, c[0])))),
    h('tbody', null, rows.map(row => h('tr', null, columns.map(c =>
      h('td', {'data-title': c[0], class: c[2] || null}, c[1](row))))))));
}

function section(title, ...children) {
  return h('section', {class: 'card', 'data-key': title}, h('h2', null, title), ...children);
}

function tile(value, name, look) {
  return h('div', {class: 'tile ' + (look || '')}, h('b', null, value), h('span', null, name));
}

function badge(state) {
  return h('span', {class: 'badge ' + state}, state);
}
