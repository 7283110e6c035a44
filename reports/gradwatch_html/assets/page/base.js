const root = document.documentElement;
root.classList.add('js');
const $ = (id) => document.getElementById(id);
const meta = JSON.parse($('meta').textContent);
const {layers, findings, metrics, lanes, start} = meta;
const SHAPES = {critical: '▲', warning: '■', notice: '●'}, MARKERS = {critical: 'triangle-up', warning: 'square', notice: 'circle'};
const state = {layer: 0, step: 0, scale: 'linear', metric: start.metric, view: start.view, rows: 'depth', folds: null, x: null, y: null, brush: null};
const metricOf = new Map(metrics.map((metric) => [metric.key, metric]));
const tables = {};
let colours = meta.palettes.light, ready = false;

// Elements, numbers, names. The text of a run enters the page by textContent, and plotly's texts escaped.

const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const escaped = (text) => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const whole = (value) => Math.round(value).toLocaleString('en-US');
const power = (base, n) => base + String(n).replace(/[-0-9]/g, (c) => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)]);
const percent = (share) => `${Number((100 * share).toPrecision(3))}%`;
const short = (value) => {
  if (value === null || Number.isNaN(value)) return '';
  if (!Number.isFinite(value)) return 'non-finite';
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-3 && size < 1e5)) return String(Number(value.toPrecision(2)));
  return value.toExponential(1).replace('.0e', 'e').replace('e+', 'e');
};
const ellipsis = (text, limit) => {
  const characters = Array.from(text), tail = Math.max(1, Math.floor((limit - 1) * 0.6));
  return characters.length <= limit ? text : `${characters.slice(0, Math.max(1, limit - 1 - tail)).join('')}…${characters.slice(-tail).join('')}`;
};
const steps = (first, last) => (first === last ? `step ${whole(first)}` : `steps ${whole(first)} to ${whole(last)}`);
// Writes text whose numbers such as 1.6e-10 do not break at their minus.
const numbers = (element, text) => {
  element.replaceChildren(...String(text).split(/(\d[\d.,]*e-\d+)/).map((part, i) => (i % 2 ? make('span', part, {class: 'number'}) : part)));
  return element;
};
const extent = (list) => list.reduce(([low, high], v) => (v === null || !Number.isFinite(v) ? [low, high] : [Math.min(low, v), Math.max(high, v)]), [Infinity, -Infinity]);
const narrow = () => window.innerWidth <= 760;

// Data: islands of gzip and base64, unpacked when first used.

const once = (make_) => { const made = {}; return (name) => (made[name] ??= make_(name)); };
const inflate = once(async (name) => {
  const text = $(`data-${name}`).textContent.trim();
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
});
const codes = once(async (key) => {
  const data = new Uint8Array(await inflate(`m-${key}`)), columns = metricOf.get(key).first.length;
  for (let at = 0; at < data.length; at += columns) for (let i = at + 1; i < at + columns; i++) data[i] += data[i - 1];
  return data;
});
const level = (metric, code) => metric.low + (code - 3) * metric.step;
const valueOf = (metric, code) => (code < 2 || code === 255 ? NaN : code === 2 ? 0 : metric.share ? level(metric, code) : 10 ** level(metric, code));
const cellText = (metric, code) => ['not captured', 'no gradient (None)'][code] ?? (code === 255 ? 'non-finite' : (metric.share ? percent : short)(valueOf(metric, code)));
const middle = (time, i) => (time.first[i] + time.last[i]) / 2;
const edgesOf = (time) => (time.edges ??= [time.first[0] - 0.5, ...time.first.slice(1).map((step, i) => (step + time.last[i]) / 2), time.last.at(-1) + 0.5]);
const followsOf = (time) => (time.follows ??= (() => { const apart = new Set(time.breaks); return time.first.map((_, i) => !apart.has(i)); })());
