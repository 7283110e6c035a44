'use strict';
(() => {
const root = document.documentElement;
root.classList.add('js');
const $ = (id) => document.getElementById(id);
const meta = JSON.parse($('meta').textContent);
const {layers, findings, metrics, lanes, start} = meta;
const SHAPES = {critical: '▲', warning: '■', notice: '●'};
const MARKERS = {critical: 'triangle-up', warning: 'square', notice: 'circle'};
const state = {layer: 0, step: 0, metric: start.metric, view: start.view, x: null, y: null};
const indexOf = new Map(layers.map((layer, i) => [layer.name, i]));
const metricOf = new Map(metrics.map((metric) => [metric.key, metric]));
const tables = {};
let colours = {};
let ready = false;

// Small things: elements, numbers, names. Text of a run enters the page by textContent only.

const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};
const bdi = (text, attributes) => make('bdi', text, attributes);
const escaped = (text) => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const whole = (value) => Math.round(value).toLocaleString('en-US');
const superscript = (n) => String(n).replace(/[-0-9]/g, (c) => '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'['-0123456789'.indexOf(c)]);
const percent = (share) => `${Number((100 * share).toPrecision(3))}%`;
const short = (value) => {
  if (value === null || Number.isNaN(value)) return '';
  if (!Number.isFinite(value)) return 'non-finite';
  const size = Math.abs(value);
  if (size === 0 || (size >= 1e-3 && size < 1e5)) return String(Number(value.toPrecision(2)));
  return value.toExponential(1).replace('.0e', 'e').replace('e+', 'e');
};
const ellipsis = (text, limit) => {
  const characters = Array.from(text);
  if (characters.length <= limit) return text;
  const tail = Math.floor((limit - 1) * 0.6);
  return `${characters.slice(0, limit - 1 - tail).join('')}…${characters.slice(-tail).join('')}`;
};
const narrow = () => window.innerWidth <= 760;
const middle = (time, i) => (time.first[i] + time.last[i]) / 2;
const steps = (first, last) => (first === last ? `step ${whole(first)}` : `steps ${whole(first)} to ${whole(last)}`);
const later = (action, wait = 0) => { let timer; return (...args) => { clearTimeout(timer); timer = setTimeout(() => action(...args), wait); }; };

// Data: islands of gzip and base64, decoded when first used.

const islands = {};
const inflate = (name) => (islands[name] ??= (async () => {
  const text = $(`data-${name}`).textContent.trim();
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
})());
const codesOf = {};
const codes = (key) => (codesOf[key] ??= (async () => {
  const data = new Uint8Array(await inflate(`m-${key}`));
  const width = metricOf.get(key).first.length;
  for (let at = 0; at < data.length; at += width) for (let i = at + 1; i < at + width; i++) data[i] += data[i - 1];
  return data;
})());
const level = (metric, code) => metric.low + (code - 3) * metric.step;
const valueOf = (metric, code) => (code < 2 ? NaN : code === 2 ? 0 : code === 255 ? NaN : metric.share ? level(metric, code) : 10 ** level(metric, code));
const edgesOf = (time) => (time.edges ??= [time.first[0] - 0.5, ...time.first.slice(1).map((step, i) => (step + time.last[i]) / 2), time.last.at(-1) + 0.5]);
const joins = (time) => (time.joins ??= (() => {
  const gaps = time.first.slice(1).map((step, i) => step - time.last[i]);
  const limit = 2 * Math.max(1, gaps.reduce((least, gap) => Math.min(least, gap), Infinity));
  return [false, ...gaps.map((gap) => gap <= limit)];
})());

// Colours come from the style sheet; plotly needs them resolved.

const DIVERGING = {
  light: ['#0a3a75', '#2f78b8', '#8fbbdd', '#dfe5e9', '#ecebe8', '#efe2d3', '#eab073', '#cf6d1c', '#7f2f02'],
  dark: ['#b9e2ff', '#5aaae6', '#2f6592', '#25333f', '#202328', '#3a2c20', '#8d5420', '#dc8434', '#ffdcb0'],
};
const CIVIDIS = ['#00224e', '#123570', '#3b496c', '#575d6d', '#707173', '#8a8678', '#a59c74', '#c3b369', '#e1cc55', '#fee838'];
const ELEMENTS = {light: ['#e6eef6', '#9fc3e2', '#4f8fc4', '#1f5a92', '#0b2f5c'], dark: ['#22303d', '#2b5377', '#3f86bf', '#8cc0f5', '#e2f1ff']};
const scaleOf = (list) => list.map((colour, i) => [i / (list.length - 1), colour]);
const dark = () => (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
const readColours = () => {
  const probe = document.body.appendChild(make('span'));
  for (const name of ['page', 'card', 'ink', 'soft', 'line', 'grid', 'accent', 'second', 'critical', 'warning', 'notice', 'frozen', 'bad', 'band']) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  colours.mode = dark() ? 'dark' : 'light';
  if ($('theme')) $('theme').lastElementChild.textContent = dark() ? 'Light' : 'Dark';
};
const faint = (colour, alpha) => colour.replace('rgb(', 'rgba(').replace(')', `, ${alpha})`);

// Plotly: one base look, few round ticks that cannot collide.

const axis = (more) => ({gridcolor: colours.grid, linecolor: colours.line, zeroline: false, fixedrange: true, ticks: '', tickfont: {size: 11.5, color: colours.soft}, automargin: false, ticklabelstandoff: 4, ...more});
const layout = (margin, more) => ({
  margin: {t: 8, r: 14, b: 34, l: 50, pad: 0, ...margin}, paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', showlegend: false, dragmode: false, hovermode: 'closest',
  font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.soft},
  hoverlabel: {bgcolor: colours.ink, bordercolor: colours.ink, font: {color: colours.page, size: 12.5}, namelength: 0}, ...more,
});
const draw = (id, data, settings) => window.Plotly.react($(id), data, settings, {displayModeBar: false, responsive: false, doubleClick: false, showTips: false});
const width = (id) => $(id).clientWidth || 600;
const stepAxis = (room, more) => axis({...(more.range[1] - more.range[0] <= 8 ? {tick0: 0, dtick: 1} : {nticks: Math.max(3, Math.min(10, Math.floor(room / 80)))}), tickformat: ',~s', hoverformat: ',d', showgrid: true, ...more});
const powers = (low, high, base = 10, most = 6) => {
  const stride = Math.max(1, Math.ceil((high - low + 1) / most));
  const list = [];
  for (let p = Math.ceil(low / stride) * stride; p <= high; p += stride) list.push(p);
  return {tickmode: 'array', tickvals: list.map((p) => (base === 10 ? 10 ** p : p)), ticktext: list.map((p) => `${base}${superscript(p)}`)};
};
const extent = (list) => list.reduce(([low, high], v) => (v === null || !Number.isFinite(v) ? [low, high] : [Math.min(low, v), Math.max(high, v)]), [Infinity, -Infinity]);
const logAxis = (values, more) => {
  let [low, high] = extent(values.filter((v) => v > 0)).map(Math.log10);
  if (!Number.isFinite(low)) [low, high] = [-1, 0];
  if (high - low < 1.2) {
    const room = Math.max(0.1, 0.35 - (high - low) / 2), range = [low - room, high + room], ticks = [];
    for (let p = Math.floor(range[0]); p <= range[1]; p++) for (const n of [1, 2, 5]) ticks.push(n * 10 ** p);
    const inside = ticks.filter((v) => Math.log10(v) >= range[0] && Math.log10(v) <= range[1]);
    return axis({type: 'log', range, tickmode: 'array', tickvals: inside, ticktext: inside.map(short), ...more});
  }
  [low, high] = [Math.floor(low - 0.02), Math.ceil(high + 0.02)];
  return axis({type: 'log', range: [low, high], ...powers(low, high), ...more});
};
const cursor = (yref = 'paper') => {
  const x = currentStep();
  return {type: 'line', xref: 'x', yref, x0: x, x1: x, y0: 0, y1: 1, visible: x !== null && ready, line: {color: colours.ink, width: 1, dash: 'dot'}};
};
const legend = (id, entries) => {
  $(`${id}-legend`).replaceChildren(...entries.map(([colour, text, kind]) => {
    const item = make('span');
    const mark = item.appendChild(make('i', undefined, {class: kind ?? ''}));
    if (kind === 'ramp') mark.style.background = colour; else if (kind?.startsWith('stroke')) mark.style.borderTopColor = colour; else mark.style.backgroundColor = colour;
    item.append(bdi(text));
    return item;
  }));
};
const describe = (id, sentence) => $(id).setAttribute('aria-label', sentence);

// Every layer over time.

const heat = {rows: null};
const gutters = () => (narrow() ? {l: 88, r: 26} : {l: 176, r: findings.length ? 140 : 20});
const rowLabel = (row, characters) => ellipsis(layers[row].name, characters);
const viewOf = (metric) => (metric.share ? 'value' : state.view);

// One cell of the picture is the strongest of the cells under it: no row and no spike is skipped.
const shrink = (metric, data, view, [r0, r1], [c0, c1], nr, nc) => {
  const columns = metric.first.length;
  const z = [], special = [], who = new Int32Array(nr * nc);
  for (let i = 0; i < nr; i++) {
    const line = new Array(nc).fill(null), marks = new Array(nc).fill(null);
    const ra = r0 + Math.floor(i * (r1 - r0) / nr), rb = r0 + Math.floor((i + 1) * (r1 - r0) / nr);
    for (let j = 0; j < nc; j++) {
      const ca = c0 + Math.floor(j * (c1 - c0) / nc), cb = c0 + Math.floor((j + 1) * (c1 - c0) / nc);
      let best = -Infinity, shown = null, mark = null, owner = ra;
      for (let r = ra; r < rb; r++) {
        const base = view === 'change' ? metric.start[r] : null;
        for (let at = r * columns + ca; at < r * columns + cb; at++) {
          const code = data[at];
          if (code === 255) { mark = 3; owner = r; shown = null; r = rb; break; }
          if (code < 3) { if (code > 0 && code > (mark ?? 0) && shown === null) { mark = code; owner = r; } continue; }
          if (view === 'change' && base === null) continue;
          const v = view === 'change' ? level(metric, code) - base : level(metric, code);
          const strength = view === 'change' ? Math.abs(v) : v;
          if (strength > best) { best = strength; shown = v; mark = null; owner = r; }
        }
      }
      line[j] = shown; marks[j] = mark; who[i * nc + j] = owner;
    }
    z.push(line); special.push(marks);
  }
  return {z, special, who, nc};
};
const rowTicks = (r0, r1, room, characters) => {
  const rows = metricOf.get(state.metric).layers, most = Math.min(14, Math.floor(room / 22)), count = r1 - r0;
  const block = (row) => layers[rows[row]].name.split('.').slice(0, 2).join('.');
  const starts = [];
  for (let row = r0; row < r1; row++) if (row === r0 || block(row) !== block(row - 1)) starts.push(row);
  const blocks = count > most && starts.length > 2;
  let list = blocks ? starts : Array.from({length: count}, (_, i) => r0 + i);
  const stride = Math.ceil(list.length / most);
  list = list.filter((_, i) => i % stride === 0);
  return {tickmode: 'array', tickvals: list, ticktext: list.map((row) => escaped(blocks ? ellipsis(block(row), characters) : rowLabel(rows[row], characters)))};
};
const runsOf = (finding, metric) => {
  const inside = (layer) => finding.layers.some(([a, b]) => layer >= a && layer <= b);
  const runs = [];
  metric.layers.forEach((layer, row) => {
    if (!inside(layer)) return;
    // Layers without parameters between two affected ones belong to the stretch.
    const joined = runs.length && metric.layers.slice(runs.at(-1)[1] + 1, row).every((between) => !layers[between].parameters.length);
    if (joined) runs.at(-1)[1] = row; else runs.push([row, row]);
  });
  return runs.slice(0, 12);
};
const outlines = (metric, [x0, x1], [r0, r1], room) => {
  const px = (step) => (step - x0) / (x1 - x0), py = (row) => 1 - (row + 0.5 - r0) / (r1 - r0);
  const shapes = [], labels = [];
  findings.forEach((finding, index) => {
    const colour = colours[finding.severity], runs = runsOf(finding, metric);
    const from = px((finding.first ?? start.steps[0]) - 0.5), to = px((finding.last ?? start.steps[1]) + 0.5);
    const seen = runs.map(([a, b]) => [py(a - 0.5), py(b + 0.5)]).filter(([top, bottom]) => top > 0 && bottom < 1);
    if (!seen.length || to <= 0 || from >= 1) return;
    const least = 7 / room.wide, left = Math.max(0, Math.min(from, 1 - least)), right = Math.min(1, Math.max(to, left + least));
    for (const [top, bottom] of seen) {
      const grow = Math.max(0, 6 / room.high - (top - bottom)) / 2;
      const box = {type: 'rect', xref: 'paper', yref: 'paper', x0: left, x1: right, y0: Math.max(0, bottom - grow), y1: Math.min(1, top + grow), fillcolor: 'rgba(0,0,0,0)'};
      shapes.push({...box, line: {color: faint(colours.card, 0.75), width: 4}}, {...box, line: {color: colour, width: finding.metric === metric.key ? 1.8 : 1.2, dash: finding.metric === metric.key ? 'solid' : 'dot'}});
    }
    const spans = seen.map(([top, bottom]) => [Math.min(1, top), Math.max(0, bottom)]);
    const widest = spans.reduce((a, b) => (b[0] - b[1] > a[0] - a[1] ? b : a));
    labels.push({index, finding, colour, right, y: (1 - (widest[0] + widest[1]) / 2) * room.high});
  });
  return {shapes: [...shapes, ...leaders(labels, room)], annotations: labels.map((label) => annotation(label, room))};
};
// Labels stand in their own column at the right; they are pushed apart, and a line leads to what they name.
const leaders = (labels, room) => {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => { label.at = Math.max(label.y, i ? labels[i - 1].at + 18 : 8); });
  for (let i = labels.length - 1, limit = room.high - 6; i >= 0; i--, limit -= 18) if (labels[i].at > limit) labels[i].at = limit; else break;
  const end = 1 + 9 / room.wide;
  return labels.flatMap((label) => {
    const line = {type: 'line', xref: 'paper', yref: 'paper', line: {color: label.colour, width: 1}};
    const y = 1 - label.y / room.high, at = 1 - label.at / room.high;
    return [...(label.right < 0.995 ? [{...line, x0: label.right, x1: 1, y0: y, y1: y, line: {...line.line, dash: 'dot'}}] : []), {...line, x0: 1, x1: end, y0: y, y1: at}];
  });
};
const annotation = (label, room) => ({
  xref: 'paper', yref: 'paper', x: 1, xshift: 11, y: 1 - label.at / room.high, xanchor: 'left', yanchor: 'middle', align: 'left', showarrow: false, captureevents: true, borderpad: 1,
  text: narrow() ? SHAPES[label.finding.severity] : `<span style="color:${label.colour}">${SHAPES[label.finding.severity]}</span> ${escaped(ellipsis(label.finding.word, 20))}`,
  font: {size: 12, color: narrow() ? label.colour : colours.ink}, name: String(label.index),
});
const drawHeatmap = async () => {
  if (!$('heatmap')) return;
  const metric = metricOf.get(state.metric), data = await codes(metric.key), view = viewOf(metric);
  const gutter = gutters(), high = $('heatmap').clientHeight - 46, wide = width('heatmap') - gutter.l - gutter.r;
  const edges = edgesOf(metric), rows = metric.layers.length, full = [start.steps[0] - 0.5, start.steps[1] + 0.5];
  const x = state.x ?? full, y = state.y ?? [0, rows];
  const c0 = Math.max(0, edges.findIndex((edge) => edge > x[0]) - 1);
  let c1 = edges.findIndex((edge) => edge >= x[1]);
  if (c1 <= c0) c1 = edges.length - 1;
  const r0 = Math.max(0, Math.floor(y[0])), r1 = Math.min(rows, Math.max(Math.ceil(y[1]), r0 + 1));
  const nr = Math.min(r1 - r0, Math.max(1, Math.floor(high / 2))), nc = Math.min(c1 - c0, Math.max(1, Math.floor(wide)));
  const picture = shrink(metric, data, view, [r0, r1], [c0, c1], nr, nc);
  Object.assign(heat, picture, {metric, data, c0, c1, nc});
  const grid = {
    type: 'heatmap', hoverinfo: 'none', hoverongaps: true, showscale: false,
    x: Array.from({length: nc + 1}, (_, j) => edges[c0 + Math.floor(j * (c1 - c0) / nc)]), y: Array.from({length: nr + 1}, (_, i) => r0 + Math.floor(i * (r1 - r0) / nr) - 0.5),
  };
  const top = metric.low + 251 * metric.step;
  const [least, most] = view === 'change' ? [-4, 4] : metric.share ? [0, 1] : extent(picture.z.flat());
  const scale = view === 'change' ? DIVERGING[colours.mode] : CIVIDIS;
  const none = [faint(colours.frozen, 1), faint(colours.frozen, 1), colours.mode === 'dark' ? '#5c6066' : '#9b9c9e', colours.mode === 'dark' ? '#5c6066' : '#9b9c9e', colours.bad, colours.bad];
  const zmin = Number.isFinite(least) ? least : metric.low, zmax = Number.isFinite(most) ? Math.max(most, zmin + (metric.share ? 1 : 1)) : top;
  const outline = outlines(metric, x, [r0, r1], {wide, high});
  await draw('heatmap', [
    {...grid, z: picture.z, zmin, zmax, colorscale: scaleOf(scale)},
    {...grid, z: picture.special, zmin: 0.5, zmax: 3.5, colorscale: [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1].map((at, i) => [at, none[i]])},
  ], layout({...gutter, t: 8, b: 38}, {
    dragmode: matchMedia('(pointer: fine)').matches ? 'zoom' : false, shapes: [cursor(), ...outline.shapes], annotations: outline.annotations,
    xaxis: stepAxis(wide, {range: x, fixedrange: false, showgrid: false, title: {text: 'step', standoff: 4, font: {size: 12}}}),
    yaxis: axis({range: [r1 - 0.5, r0 - 0.5], fixedrange: false, showgrid: false, ...rowTicks(r0, r1, high, Math.floor((gutter.l - 10) / 6.4))}),
  }));
  const seen = new Set(picture.special.flat());
  const ramp = `linear-gradient(90deg, ${scale.join(',')})`;
  const ends = view === 'change' ? '10⁴× smaller … same … 10⁴× larger' : metric.share ? '0% … 100%' : `${short(10 ** zmin)} … ${short(10 ** zmax)}`;
  legend('heatmap', [[ramp, ends, 'ramp'], ...(seen.has(3) ? [[colours.bad, 'non-finite']] : []), ...(seen.has(2) ? [[none[2], 'exactly zero']] : []), ...(seen.has(1) ? [[none[0], 'no gradient (None)']] : [])]);
  $('heatmap-note').textContent = `${metric.note} ${view === 'change' ? 'Coloured by change from the layer’s own start (median of 8–18 % of the run).' : ''} Click a cell for its layer${matchMedia('(pointer: fine)').matches ? '; drag to zoom, double-click to reset' : ''}.`;
  describe('heatmap', `${metric.title}, ${view === 'change' ? 'change from own start' : 'value'}, ${rows} layers from input at the top to output, ${steps(...start.steps)}. ${findings.map((f) => f.title).join('. ')}`);
  $('reset').hidden = !(state.x || state.y);
  for (const button of document.querySelectorAll('[data-view]')) {
    button.setAttribute('aria-pressed', String(button.dataset.view === view));
    button.disabled = metric.share && button.dataset.view === 'change';
  }
  $('metric').value = metric.key;
};
const cellAt = (event) => {
  const [i, j] = event.points[0].pointNumber ?? event.points[0].pointIndex;
  const {metric, data, c0, c1, nc} = heat, row = heat.who[i * nc + j];
  const a = c0 + Math.floor(j * (c1 - c0) / nc), b = c0 + Math.floor((j + 1) * (c1 - c0) / nc) - 1;
  let code = 0;
  for (let c = a; c <= b; c++) code = Math.max(code, data[row * metric.first.length + c]);
  const base = metric.start[row];
  const value = code === 255 ? 'non-finite' : code === 0 ? 'not captured' : code === 1 ? 'no gradient (None)' : metric.share ? percent(valueOf(metric, code)) : short(valueOf(metric, code));
  const change = !metric.share && code > 2 && code < 255 && base !== null ? `, ${short(10 ** (level(metric, code) - base))}× its start` : '';
  return {layer: metric.layers[row], text: `${ellipsis(layers[metric.layers[row]].name, 90)}\n${steps(metric.first[a], metric.last[b])}\n${metric.title} ${value}${change}`};
};
const wireHeatmap = () => {
  const plot = $('heatmap'), tip = $('tip');
  plot.on('plotly_hover', (event) => {
    if (event.points[0].data.type !== 'heatmap') return;
    tip.textContent = cellAt(event).text;
    tip.hidden = false;
    const {clientX, clientY} = event.event, box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(window.innerWidth - box.width - 6, clientX + 14))}px`;
    tip.style.top = `${clientY + 18 + box.height > window.innerHeight ? clientY - box.height - 12 : clientY + 18}px`;
  });
  plot.on('plotly_unhover', () => { tip.hidden = true; });
  plot.on('plotly_click', (event) => openLayer(cellAt(event).layer));
  plot.on('plotly_clickannotation', (event) => openFinding(Number(event.annotation.name)));
  plot.on('plotly_doubleclick', resetZoom);
  plot.on('plotly_relayout', (event) => {
    const range = (name) => (event[`${name}.range[0]`] === undefined ? null : [event[`${name}.range[0]`], event[`${name}.range[1]`]]);
    const x = range('xaxis'), y = range('yaxis'), rows = heat.metric.layers.length;
    if (!x && !y) return;
    if (x) state.x = [Math.max(start.steps[0] - 0.5, Math.min(...x)), Math.min(start.steps[1] + 0.5, Math.max(...x))];
    if (y) state.y = [Math.max(0, Math.floor(Math.min(...y) + 0.5)), Math.min(rows, Math.ceil(Math.max(...y) + 0.5))];
    drawHeatmap().then(remember);
  });
};
const resetZoom = () => { state.x = state.y = null; drawHeatmap().then(remember); };
const setMetric = (key, view) => { if (metricOf.has(key)) { if (key !== state.metric) state.y = null; state.metric = key; } state.view = view ?? state.view; drawHeatmap().then(remember); };
tables.heatmap = () => {
  const {metric, data} = heat, columns = metric.first.length, picks = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (columns - 1)));
  const at = [...new Set(picks)];
  return {caption: metric.title, head: ['layer', ...at.map((c) => steps(metric.first[c], metric.last[c]))], rows: metric.layers.map((layer, row) => [layers[layer].name, ...at.map((c) => cellText(metric, data[row * columns + c]))])};
};
const cellText = (metric, code) => (code === 255 ? 'non-finite' : code === 1 ? 'None' : code === 0 ? '' : metric.share ? percent(valueOf(metric, code)) : short(valueOf(metric, code)));

// Findings over time, with the run's scalars; the step axis stands exactly under the heatmap's.

const drawLanes = () => {
  if (!$('lanes')) return;
  const small = narrow(), shown = findings.slice(0, 12), lane = small ? 48 : 40, scalar = small ? 92 : 78, gap = 12, bottom = 38;
  const total = shown.length * lane + lanes.length * scalar + bottom, high = total - bottom - 8, gutter = gutters();
  $('lanes').style.height = `${total}px`;
  const wide = width('lanes') - gutter.l - gutter.r, data = [], labels = [];
  const settings = layout({...gutter, b: bottom}, {shapes: [cursor()], xaxis: stepAxis(wide, {range: [start.steps[0] - 0.5, start.steps[1] + 0.5], title: {text: 'step', standoff: 4, font: {size: 12}}, anchor: 'free', position: 0})});
  settings.yaxis = axis({domain: [1 - shown.length * lane / high, 1].map((v) => Math.max(0, v)), range: [shown.length - 0.5, -0.5], showticklabels: false, showgrid: false, visible: shown.length > 0});
  shown.forEach((finding, i) => {
    const y = i + (small ? 0.26 : 0), from = finding.first ?? start.steps[0], to = finding.last ?? start.steps[1], colour = colours[finding.severity];
    data.push({type: 'scatter', mode: 'lines', x: [from, to], y: [y, y], line: {color: faint(colour, 0.55), width: small ? 8 : 10}, hovertemplate: `${escaped(ellipsis(finding.title, 70))}<br>${steps(from, to)}<extra></extra>`});
    data.push({type: 'scatter', mode: 'markers', x: [from], y: [y], marker: {symbol: MARKERS[finding.severity], size: 12, color: colour, line: {color: colours.card, width: 1.5}}, hoverinfo: 'skip', cliponaxis: false});
    labels.push([i * lane + 8, lane, finding, i]);
  });
  lanes.forEach((line, k) => {
    const top = 1 - (shown.length * lane + k * scalar + (small ? 24 : gap)) / high, low = 1 - (shown.length * lane + (k + 1) * scalar - 4) / high, y = `y${k + 2}`;
    const values = [...line.low, ...line.high];
    settings[`yaxis${k + 2}`] = {...(line.log ? logAxis(values) : axis({nticks: 3, tickformat: '~g', rangemode: 'normal', range: padded(values)})), domain: [Math.max(0, low), top]};
    if (line.log) Object.assign(settings[`yaxis${k + 2}`], powers(...settings[`yaxis${k + 2}`].range, 10, 3));
    data.push(...curve({time: line, y: line.high, low: line.low, high: line.high, banded: line.first.some((step, i) => step !== line.last[i]), name: line.title}, colours.accent, {yaxis: y}));
    if (line.bad.length) data.push(badMarks(line.bad, settings[`yaxis${k + 2}`], {yaxis: y}));
    labels.push([shown.length * lane + k * scalar + 8 + (small ? 0 : gap), small ? 24 : scalar - gap - 8, line.title]);
  });
  draw('lanes', data, settings);
  $('lane-labels').replaceChildren(...labels.map(([top, height, what, index]) => {
    const scalarLabel = typeof what === 'string';
    const item = make(scalarLabel ? 'span' : 'button', undefined, scalarLabel ? {class: 'scalar'} : {type: 'button', 'data-level': what.severity, title: what.title});
    if (!scalarLabel) { item.append(make('span', SHAPES[what.severity], {class: 'shape', 'aria-hidden': 'true'})); item.onclick = () => openFinding(index); }
    const text = item.appendChild(make('span', scalarLabel ? what : what.word, {class: 'text'}));
    if (!scalarLabel && what.culprit !== null && !small) text.append(make('small', ellipsis(layers[what.culprit].name, 22)));
    Object.assign(item.style, {top: `${top}px`, height: `${small ? 22 : height}px`, width: small ? '100%' : `${gutter.l - (scalarLabel ? 58 : 14)}px`});
    return item;
  }));
  describe('lanes', `${shown.map((f) => `${f.title}: ${steps(f.first ?? start.steps[0], f.last ?? start.steps[1])}`).join('. ') || 'No findings'}. ${lanes.map((line) => line.title).join(', ')} below.`);
};
const padded = (values) => { const [low, high] = extent(values); const room = (high - low || Math.abs(high) || 1) * 0.12; return Number.isFinite(low) ? [low - room, high + room] : [0, 1]; };
tables.lanes = () => ({caption: 'Findings', head: ['finding', 'severity', 'first step', 'last step'], rows: findings.map((f) => [f.title, f.severity, f.first === null ? '' : whole(f.first), f.last === null ? '' : whole(f.last)])});

// Curves: lines where samples follow one another, points where they stand apart.

const curve = ({time, y, low, high, banded, name}, colour, more = {}, format = short) => {
  const follows = joins(time), x = [], ys = [], dots = [], text = [], made = [];
  for (let i = 0; i < y.length; i++) {
    const known = y[i] !== null && Number.isFinite(y[i]), before = known && follows[i] && y[i - 1] !== null && Number.isFinite(y[i - 1]);
    if (!before && x.length) { x.push(middle(time, i)); ys.push(null); dots.push(0); text.push(''); }
    x.push(middle(time, i)); ys.push(known ? y[i] : null);
    const after = known && follows[i + 1] && y[i + 1] !== null && Number.isFinite(y[i + 1]);
    dots.push(before || after ? 0 : 5);
    text.push(known ? `${escaped(ellipsis(name, 60))}<br>${steps(time.first[i], time.last[i])}: ${format(y[i])}` : '');
  }
  if (banded) {
    const xs = time.first.map((_, i) => middle(time, i));
    made.push({type: 'scatter', mode: 'lines', x: xs, y: Array.from(low), line: {width: 0}, hoverinfo: 'skip', ...more});
    made.push({type: 'scatter', mode: 'lines', x: xs, y: Array.from(high), line: {width: 0}, fill: 'tonexty', fillcolor: faint(colour, 0.22), hoverinfo: 'skip', ...more});
  }
  const points = dots.some((size) => size);
  made.push({type: 'scatter', mode: points ? 'lines+markers' : 'lines', x, y: ys, text, hovertemplate: '%{text}<extra></extra>', connectgaps: false, line: {color: colour, width: 1.6}, marker: {color: colour, size: dots, line: {width: 0}}, ...more});
  return made;
};
const badMarks = (x, scale, more = {}) => {
  const [low, high] = scale.range, inner = high - (high - low) * 0.004, top = scale.type === 'log' ? 10 ** inner : inner;
  return {type: 'scatter', mode: 'markers', x, y: x.map(() => top), marker: {symbol: 'line-ns', size: 9, line: {color: colours.bad, width: 1.4}}, cliponaxis: false, hovertemplate: 'non-finite at step %{x:,d}<extra></extra>', ...more};
};

// Gradient flow by depth.

let flow = null;
const currentStep = () => (meta.flow ? meta.flow.steps[state.step] : null);
const groupName = ([a, b]) => (a === b ? layers[a].name : `${layers[a].name} … ${layers[b].name}`);
const readFlow = async () => {
  if (!meta.flow) return;
  const data = new Float32Array(await inflate('flow')), groups = meta.flow.groups.length, size = meta.flow.steps.length * groups;
  const at = (part, step) => Array.from(data.subarray(part * size + step * groups, part * size + (step + 1) * groups));
  flow = {at, groups, values: Array.from(data).filter((v) => Number.isFinite(v) && v > 0)};
  $('step').max = meta.flow.steps.length - 1;
  $('step').parentElement.hidden = meta.flow.steps.length < 2;
};
const drawFlow = () => {
  if (!$('flow') || !flow) return;
  const [median, low, high] = [0, 1, 2].map((part) => flow.at(part, state.step)), ghost = flow.at(0, 0), x = median.map((_, i) => i);
  const positive = (list) => list.map((v) => (Number.isFinite(v) && v > 0 ? v : null));
  const scale = (flow.scale ??= extent(flow.values)), wide = width('flow') - 70;
  const y = logAxis(scale, {title: undefined});
  const most = Math.max(2, Math.min(12, Math.floor(wide / 110))), stride = Math.ceil(x.length / most), room = Math.floor(wide / Math.min(x.length, most) / 6.8);
  const ticks = x.filter((i) => i % stride === 0);
  const zeros = x.filter((i) => median[i] === 0), bad = x.filter((i) => median[i] === Infinity);
  const text = x.map((i) => `${escaped(ellipsis(groupName(meta.flow.groups[i]), 70))}<br>median ${short(median[i])}, range ${short(low[i])} to ${short(high[i])}`);
  const band = positive(low).map((v, i) => (v !== null && positive(high)[i] !== null ? v : null));
  draw('flow', [
    {type: 'scatter', mode: 'lines', x, y: band, line: {width: 0}, hoverinfo: 'skip'},
    {type: 'scatter', mode: 'lines', x, y: positive(high).map((v, i) => (band[i] === null ? null : v)), line: {width: 0}, fill: 'tonexty', fillcolor: faint(colours.accent, 0.2), hoverinfo: 'skip'},
    {type: 'scatter', mode: 'lines', x, y: state.step ? positive(ghost) : [], line: {color: colours.soft, width: 1.3, dash: 'dot'}, hoverinfo: 'skip'},
    {type: 'scatter', mode: x.length > 60 ? 'lines' : 'lines+markers', x, y: positive(median), text, hovertemplate: '%{text}<extra></extra>', line: {color: colours.accent, width: 2}, marker: {size: 5}},
    {...badMarks(bad, y), hovertemplate: undefined, hoverinfo: 'text', text: bad.map((i) => `${text[i].split('<br>')[0]}: non-finite`)},
    {type: 'scatter', mode: 'markers', x: zeros, y: zeros.map(() => 10 ** y.range[0]), marker: {symbol: 'x-thin', size: 7, line: {color: colours.soft, width: 1.4}}, cliponaxis: false, hoverinfo: 'text', text: zeros.map((i) => `${text[i].split('<br>')[0]}: exactly zero`)},
  ], layout({l: 54, r: 16, b: 42}, {
    xaxis: axis({range: [-0.5, x.length - 0.5], showgrid: false, tickmode: 'array', tickvals: ticks, ticktext: ticks.map((i) => escaped(ellipsis(layers[meta.flow.groups[i][0]].name, room))), tickangle: 0, title: {text: 'input → output', standoff: 6, font: {size: 12}}}), yaxis: y,
  }));
  const step = meta.flow.steps[state.step];
  $('step').value = state.step;
  $('step-text').textContent = `step ${whole(step)}`;
  legend('flow', [[colours.accent, 'median of the layer’s parameters', 'stroke'], [faint(colours.accent, 0.3), 'range'], [colours.soft, `start (step ${whole(meta.flow.steps[0])})`, 'stroke dotted'], ...(bad.length ? [[colours.bad, 'non-finite']] : []), ...(zeros.length ? [[colours.soft, '× exactly zero']] : [])]);
  const slope = slopeOf(median);
  $('slope').textContent = slope === null ? '' : Math.abs(slope) < 0.005 ? 'flat from input to output' : `${Math.abs(slope).toFixed(2)} decades ${slope > 0 ? 'more' : 'less'} per ${meta.flow.groups.some(([a, b]) => a !== b) ? 'group of layers' : 'layer'} towards the output`;
  describe('flow', `Gradient rms by depth at step ${whole(step)}: ${$('slope').textContent || 'no finite gradients'}`);
};
const slopeOf = (values) => {
  const points = values.map((v, i) => [i, v]).filter(([, v]) => Number.isFinite(v) && v > 0).map(([i, v]) => [i, Math.log10(v)]);
  if (points.length < 3) return null;
  const mean = (k) => points.reduce((sum, p) => sum + p[k], 0) / points.length, [mx, my] = [mean(0), mean(1)];
  return points.reduce((sum, [i, v]) => sum + (i - mx) * (v - my), 0) / points.reduce((sum, [i]) => sum + (i - mx) ** 2, 0);
};
tables.flow = () => ({caption: `Gradient rms at step ${whole(currentStep())}`, head: ['layer', 'median', 'smallest', 'largest'], rows: meta.flow.groups.map((group, i) => [groupName(group), ...[0, 1, 2].map((part) => short(flow.at(part, state.step)[i]))])});
let pending = false;
const setStep = (index) => {
  if (!meta.flow) return;
  state.step = Math.max(0, Math.min(meta.flow.steps.length - 1, index));
  if (!ready || pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    drawFlow();
    const x = currentStep();
    for (const id of ['heatmap', 'lanes', ...CHARTS]) if ($(id)?.layout?.shapes?.length) window.Plotly.relayout($(id), {'shapes[0].x0': x, 'shapes[0].x1': x, 'shapes[0].visible': true});
    remember();
  });
};
let playing = null;
const play = () => {
  if (playing) { clearInterval(playing); playing = null; } else {
    if (state.step === meta.flow.steps.length - 1) setStep(0);
    playing = setInterval(() => (state.step === meta.flow.steps.length - 1 ? play() : setStep(state.step + 1)), 90);
  }
  $('play').textContent = playing ? '❚❚' : '▶';
  $('play').setAttribute('aria-pressed', String(playing !== null));
};

// The page of one layer.

const CHARTS = ['gradient', 'histogram', 'ratio', 'shares', 'activation', 'delta'];
const LINE_COLOURS = ['accent', 'second', 'notice', 'warning', 'critical', 'soft'];
const matrixLine = async (key, layer) => {
  const metric = metricOf.get(key), row = metric ? metric.layers.indexOf(layer) : -1;
  if (row < 0) return null;
  const columns = metric.first.length, mine = (await codes(key)).subarray(row * columns, (row + 1) * columns);
  return {metric, codes: mine, time: metric, y: Array.from(mine, (code) => valueOf(metric, code)), name: metric.title, rounded: true};
};
const exactLines = async (chart, layer) => {
  const found = (meta.series.lines[layer] ?? []).filter((line) => line.chart === chart);
  if (!found.length) return [];
  const data = new Float32Array(await inflate('series'));
  return found.map((line) => {
    const time = meta.series.times[line.time], n = time.first.length, part = (k) => Array.from(data.subarray(line.at + k * n, line.at + (k + 1) * n), (v) => (Number.isNaN(v) ? null : v));
    return {time, y: part(0), low: line.band ? part(1) : null, high: line.band ? part(2) : null, banded: line.band, name: line.site};
  });
};
const show = (id, shown) => { if ($(`${id}-figure`)) $(`${id}-figure`).hidden = !shown; };
const points = (line) => line.y.filter((v) => v !== null && Number.isFinite(v)).length;
const lastPart = (name, layer) => (name.startsWith(`${layers[layer].name}.`) ? name.slice(layers[layer].name.length + 1) : name === layers[layer].name ? 'output' : name.startsWith(`${layers[layer].name}:`) ? name.slice(layers[layer].name.length + 1) : name);
const timeChart = (id, lines, bad, more, format) => {
  const all = lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]);
  const y = more.share ? axis({range: [0, Math.min(1.04, Math.max(0.0105, extent(all)[1] * 1.15))], tickformat: '~%', nticks: 5}) : logAxis([...all, ...(more.include ?? [])]);
  const data = lines.flatMap((line, i) => curve({...line, name: lastPart(line.name, state.layer)}, colours[line.colour ?? LINE_COLOURS[i]], {}, format));
  if (bad.length) data.push(badMarks(bad, y));
  draw(id, data, layout({l: 54, b: 28}, {shapes: [cursor(), ...(more.shapes ?? [])], xaxis: stepAxis(width(id) - 66, {range: [start.steps[0] - 0.5, start.steps[1] + 0.5]}), yaxis: y}));
  legend(id, [...lines.map((line, i) => [colours[line.colour ?? LINE_COLOURS[i]], ellipsis(lastPart(line.name, state.layer), 40), 'stroke']), ...(more.shapes ? [[colours.band, 'usual: 10⁻³·⁵ to 10⁻²·⁵']] : []), ...(bad.length ? [[colours.bad, 'non-finite']] : [])]);
  const rounded = lines.some((line) => line.rounded && !line.metric.share), apart = lines.some((line) => line.time.first.length > 2 && joins(line.time).slice(1).some((j) => !j));
  $(`${id}-note`).textContent = [rounded ? 'Largest of the layer, rounded to 12 %.' : '', lines.some((l) => l.banded) ? 'Mean and range of neighbouring steps.' : '', apart ? 'Points: sampled steps.' : ''].filter(Boolean).join(' ');
  const [low, high] = extent(all);
  describe(id, `${id}: ${lines.map((line) => line.name).join(', ')}; from ${(format ?? short)(low)} to ${(format ?? short)(high)}${bad.length ? `; non-finite from step ${whole(bad[0])}` : ''}`);
  tables[id] = () => ({caption: lines.map((l) => l.name).join(', '), head: ['step', ...lines.map((line) => lastPart(line.name, state.layer))], rows: lines[0].time.first.map((step, i) => [whole(step), ...lines.map((line) => { const at = line.time === lines[0].time ? i : line.time.first.indexOf(step); return at < 0 || line.y[at] === undefined ? '' : (format ?? short)(line.y[at]); })])});
};
const drawHistogram = async (layer) => {
  const where = meta.histograms.layers[layer];
  if (!where) return false;
  const data = new Uint8Array(await inflate('histograms')), time = meta.histograms.times[where.time], columns = time.first.length;
  const share = (bin, column) => { const code = data[where.at + column * where.bins + bin]; return code ? 2 ** ((code - 255) / 4) : null; };
  const exponent = (bin) => where.low + bin - 41, dtype = layers[layer].parameters[0]?.[2] ?? '';
  const limits = dtype === 'float16' ? [[-24, 'float16 smallest'], [-14, 'float16 smallest normal'], [16, 'float16 largest']] : [];
  const low = Math.min(exponent(0), ...(limits.length ? [-25] : [])), high = Math.max(exponent(where.bins - 1) + 1, ...(limits.length ? [17] : []));
  const bins = Array.from({length: where.bins}, (_, i) => i);
  const ticks = powers(low, high, 2, 6);
  if (columns === 1) {
    draw('histogram', [{type: 'bar', x: bins.map((bin) => exponent(bin) + 0.5), y: bins.map((bin) => share(bin, 0) ?? 0), marker: {color: colours.accent}, width: 0.86, hovertemplate: '%{y:.2%}<extra></extra>'}], layout({l: 52, b: 40}, {xaxis: axis({...ticks, title: {text: '|element|', font: {size: 12}, standoff: 4}}), yaxis: axis({tickformat: '~%', nticks: 5, rangemode: 'tozero'})}));
    legend('histogram', [[colours.accent, 'share of elements']]);
  } else {
    const edges = edgesOf(time), z = bins.map((bin) => time.first.map((_, c) => { const s = share(bin, c); return s === null ? null : Math.log10(s); }));
    const text = bins.map((bin) => time.first.map((step, c) => `2${superscript(exponent(bin))} to 2${superscript(exponent(bin) + 1)}<br>${steps(step, time.last[c])}: ${percent(share(bin, c) ?? 0)}`));
    draw('histogram', [{type: 'heatmap', x: edges, y: [...bins, where.bins].map((bin) => exponent(bin)), z, text, zmin: -4, zmax: -0.4, colorscale: scaleOf(ELEMENTS[colours.mode]), showscale: false, hovertemplate: '%{text}<extra></extra>', hoverongaps: false}], layout({l: 54, b: 28}, {
      shapes: [cursor(), ...limits.map(([y]) => ({type: 'line', xref: 'paper', x0: 0, x1: 1, y0: y, y1: y, line: {color: colours.critical, width: 1, dash: 'dash'}}))],
      annotations: limits.map(([y, name]) => ({xref: 'paper', x: 1, xanchor: 'right', y, yanchor: 'bottom', text: name, showarrow: false, font: {size: 11, color: colours.critical}})),
      xaxis: stepAxis(width('histogram') - 66, {range: [start.steps[0] - 0.5, start.steps[1] + 0.5], showgrid: false}), yaxis: axis({...ticks, range: [low, high], showgrid: false}),
    }));
    legend('histogram', [[`linear-gradient(90deg, ${ELEMENTS[colours.mode].join(',')})`, '0.01% … 40% of the elements', 'ramp']]);
  }
  $('histogram-note').textContent = dtype === 'bfloat16' ? 'bfloat16 reaches down to 2⁻¹³³, below this axis.' : 'Powers of two of |element|; blank where there is none.';
  describe('histogram', `Histogram of |gradient| from 2^${exponent(0)} to 2^${exponent(where.bins - 1) + 1} over ${columns} columns of steps`);
  tables.histogram = () => ({caption: 'Share of the elements', head: ['step', ...bins.map((bin) => `2${superscript(exponent(bin))}`)], rows: time.first.map((step, c) => [whole(step), ...bins.map((bin) => (share(bin, c) === null ? '' : percent(share(bin, c))))])});
  return true;
};
const TIME_CHARTS = {gradient: 'gradient', ratio: 'update / weight', activation: 'activation', delta: 'activation gradient'};
const BAND = [10 ** -3.5, 10 ** -2.5];
const usual = () => ({include: BAND, shapes: [{type: 'rect', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0: BAND[0], y1: BAND[1], fillcolor: colours.band, line: {width: 0}}]});
const linesOf = async (layer) => {
  const found = {};
  for (const id of Object.keys(TIME_CHARTS)) {
    const matrix = await matrixLine(id, layer), exact = await exactLines(id, layer);
    const bad = matrix ? matrix.time.first.filter((_, i) => matrix.codes[i] === 255) : [];
    found[id] = {lines: exact.length ? exact : matrix && points(matrix) ? [matrix] : [], bad, matrix};
  }
  const shares = [['zeros', 'accent', 'exactly zero'], ['nonfinite', 'bad', 'NaN or infinite']].map(async ([key, colour, name]) => ({...await matrixLine(key, layer), colour, name}));
  found.shares = {lines: (await Promise.all(shares)).filter((line) => line.y && points(line) > 1 && line.y.some((v) => v > 0)), bad: []};
  return found;
};
const drawLayer = async () => {
  if (!$('layer')) return;
  const layer = state.layer, found = await linesOf(layer), missing = [], facts = [];
  if (layer !== state.layer) return;
  for (const [id, {lines, bad, matrix}] of Object.entries(found)) {
    const drawn = lines.some((line) => points(line) > 1) || bad.length > 1, title = TIME_CHARTS[id];
    show(id, drawn);
    if (drawn && !lines.length) lines.push(matrix);
    else if (!drawn && lines.length) facts.push(...lines.map((line) => `${title}${id === 'ratio' ? '' : ' rms'} ${short(line.y.find((v) => v !== null))} (${lastPart(line.name, layer)})`));
    else if (!drawn && id === 'shares') { if (metricOf.get('zeros')?.layers.includes(layer)) facts.push('no element exactly zero or non-finite'); }
    else if (!drawn && matrix?.codes.includes(1)) facts.push(`${title}: none (None) at every captured step`);
    else if (!drawn) missing.push(title);
  }
  show('histogram', Boolean(meta.histograms.layers[layer]));
  for (const [id, {lines, bad}] of Object.entries(found)) if (!$(`${id}-figure`).hidden) timeChart(id, lines, bad, id === 'ratio' ? usual() : {share: id === 'shares'}, id === 'shares' ? percent : short);
  if (!await drawHistogram(layer)) missing.push('histogram of the gradient');
  heading(layer, facts);
  $('layer-missing').textContent = missing.length ? `Not captured for this layer: ${missing.join(', ')}.` : '';
  for (const id of CHARTS) refreshTable(id);
};
const heading = (layer, facts = []) => {
  const {name, kind, level: health, parameters, found} = layers[layer];
  $('layer-name').replaceChildren(bdi(ellipsis(name, 160), {title: name}));
  const levels = $('layer-level');
  levels.dataset.level = health;
  levels.replaceChildren(...(SHAPES[health] ? [make('i', SHAPES[health], {'aria-hidden': 'true'}), make('b', health)] : [make('span', health === 'unseen' ? 'not judged' : health)]));
  $('layer-place').textContent = `layer ${whole(layer + 1)} of ${whole(layers.length)}`;
  const list = $('layer-facts');
  list.replaceChildren(...(kind ? [make('span', kind)] : []));
  for (const [site, shape, dtype, role, status, optimizer, aliases] of parameters.slice(0, 12)) {
    const item = make('span');
    item.append(bdi(ellipsis(lastPart(site, layer), 60)), ` ${shape.join(' × ') || 'scalar'} ${dtype}${status === 'trained' ? '' : `, ${{frozen: 'frozen', missing: 'in no optimizer', foreign: 'not in the model'}[status] ?? status}`}${meta.optimizers.length > 1 && optimizer ? `, ${optimizer}` : ''}${aliases.length ? `, tied with ${aliases.map((alias) => ellipsis(alias, 60)).join(', ')}` : ''}`);
    list.append(item);
  }
  if (parameters.length > 12) list.append(make('span', `and ${parameters.length - 12} more parameters`));
  list.append(...facts.map((fact) => make('span', fact)));
  if (found.length) {
    const item = list.appendChild(make('span'));
    for (const index of found.slice(0, 8)) item.append(make('a', `${SHAPES[findings[index].severity]} ${findings[index].word}`, {href: `#finding-${index}`, 'data-finding': index}));
  }
};

// Moving about: find, keys, links.

const openLayer = (layer, {scroll = true, write = true} = {}) => {
  state.layer = Math.max(0, Math.min(layers.length - 1, layer));
  if ($('layer')) heading(state.layer);
  if (ready) drawLayer();
  if (scroll && $('layer')) { $('layer').scrollIntoView({block: 'start'}); $('layer-name').focus({preventScroll: true}); }
  if (write) remember();
};
const openFinding = (index) => { const card = $(`finding-${index}`); if (card) { card.open = true; card.scrollIntoView({block: 'start'}); card.querySelector('summary').focus({preventScroll: true}); } };
const match = (text, query) => {
  const at = text.indexOf(query);
  if (at >= 0) return at + (text.length - query.length) / 100;
  let from = 0, score = 1000;
  for (const character of query) { const next = text.indexOf(character, from); if (next < 0) return Infinity; score += next - from; from = next + 1; }
  return score;
};
const finder = {hits: [], at: 0};
const search = () => {
  const query = $('find').value.trim().toLowerCase();
  finder.hits = query ? layers.map((layer, i) => [match(layer.name.toLowerCase(), query), i]).filter(([score]) => score < Infinity).sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, 50).map(([, i]) => i) : [];
  finder.at = 0;
  listHits(query);
};
const listHits = (query) => {
  const list = $('hits');
  list.hidden = !query;
  $('find').setAttribute('aria-expanded', String(!list.hidden));
  list.replaceChildren(...finder.hits.map((layer, i) => {
    const item = make('li', undefined, {role: 'option', id: `hit-${i}`, 'aria-selected': String(i === finder.at), 'data-level': layers[layer].level});
    item.append(make('span', SHAPES[layers[layer].level] ?? '', {class: 'shape', 'aria-label': layers[layer].level}), bdi(ellipsis(layers[layer].name, 120)));
    item.onmousedown = (event) => { event.preventDefault(); choose(i); };
    return item;
  }));
  if (!finder.hits.length) list.append(make('li', 'No layer of this name', {class: 'none'}));
  $('find').setAttribute('aria-activedescendant', finder.hits.length ? `hit-${finder.at}` : '');
  $(`hit-${finder.at}`)?.scrollIntoView({block: 'nearest'});
};
const choose = (i) => { const layer = finder.hits[i]; closeFind(); if (layer !== undefined) openLayer(layer); };
const closeFind = () => { $('find').value = ''; finder.hits = []; listHits(''); $('find').blur(); };
const remember = () => {
  const link = new URLSearchParams({l: layers[state.layer]?.name ?? '', i: state.layer});
  if (meta.flow) link.set('step', currentStep());
  if (state.metric) { link.set('metric', state.metric); link.set('view', state.view); }
  if (state.x) link.set('x', state.x.map(Math.round).join('~'));
  try { history.replaceState(null, '', `#${link}`); } catch { /* a page inside another page has no address of its own */ }
};
const readLink = () => {
  const link = new URLSearchParams(location.hash.slice(1));
  const layer = indexOf.get(link.get('l')) ?? (link.has('i') ? Number(link.get('i')) : undefined);
  if (metricOf.has(link.get('metric'))) state.metric = link.get('metric');
  if (['change', 'value'].includes(link.get('view'))) state.view = link.get('view');
  const x = (link.get('x') ?? '').split('~').map(Number);
  if (x.length === 2 && x.every(Number.isFinite) && x[0] < x[1]) state.x = x;
  if (link.has('step') && meta.flow) state.step = nearest(Number(link.get('step')));
  return layers[layer] ? layer : null;
};
const nearest = (step) => meta.flow.steps.reduce((best, s, i) => (Math.abs(s - step) < Math.abs(meta.flow.steps[best] - step) ? i : best), 0);
const refreshTable = (id) => { const place = $(`${id}-table`); if (place && !place.hidden) fillTable(id); };
const fillTable = (id) => {
  const {caption, head, rows} = tables[id](), stride = Math.ceil(rows.length / 400), table = make('table');
  table.append(make('caption', stride > 1 ? `${caption}; every ${stride}th of ${rows.length} rows` : caption));
  const line = (cells, tag) => { const row = make('tr'); row.append(...cells.map((cell) => make(tag, typeof cell === 'string' ? ellipsis(cell, 90) : cell))); return row; };
  const body = make('tbody'), top = make('thead');
  top.append(line(head, 'th'));
  body.append(...rows.filter((_, i) => i % stride === 0).map((cells) => line(cells, 'td')));
  table.append(top, body);
  $(`${id}-table`).replaceChildren(table);
};
const toggleTheme = () => { root.dataset.theme = dark() ? 'light' : 'dark'; readColours(); drawAll(); };
const KEYS = {
  '/': () => $('find').focus(), j: () => openLayer(state.layer + 1, {scroll: !seen('layer')}), k: () => openLayer(state.layer - 1, {scroll: !seen('layer')}),
  ArrowLeft: (event) => setStep(state.step - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => setStep(state.step + (event.shiftKey ? 10 : 1)),
  m: () => $('heatmap') && setMetric(metrics[(metrics.findIndex((m) => m.key === state.metric) + 1) % metrics.length].key),
  v: () => $('heatmap') && setMetric(state.metric, state.view === 'change' ? 'value' : 'change'), d: toggleTheme, '?': () => $('keys').showModal(),
};
const seen = (id) => { const box = $(id)?.getBoundingClientRect(); return Boolean(box) && box.top < window.innerHeight * 0.8 && box.bottom > 0; };
const wire = () => {
  $('theme').onclick = toggleTheme;
  $('find').oninput = search;
  $('find').onblur = () => { $('hits').hidden = true; $('find').setAttribute('aria-expanded', 'false'); };
  $('find').onkeydown = (event) => {
    const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (move && finder.hits.length) { finder.at = (finder.at + move + finder.hits.length) % finder.hits.length; listHits(' '); event.preventDefault(); }
    if (event.key === 'Enter') choose(finder.at);
    if (event.key === 'Escape') closeFind();
  };
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $('keys').open || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const action = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
    if (action) { event.preventDefault(); action(event); }
  });
  document.addEventListener('click', (event) => {
    const on = (name) => event.target.closest(`[data-${name}]`);
    const layer = on('layer'), finding = on('finding'), table = on('table'), view = on('view'), onMap = on('show');
    if (layer?.tagName === 'A') { event.preventDefault(); openLayer(Number(layer.dataset.layer)); }
    if (finding) { event.preventDefault(); openFinding(Number(finding.dataset.finding)); }
    if (view) setMetric(state.metric, view.dataset.view);
    if (onMap) { const shown = findings[Number(onMap.dataset.show)]; state.x = state.y = null; setMetric(shown.metric, start.view); if (shown.first !== null && meta.flow) setStep(nearest(shown.first)); $('layers').scrollIntoView({block: 'start'}); }
    if (table) { const id = table.dataset.table, place = $(`${id}-table`); place.hidden = !place.hidden; table.setAttribute('aria-expanded', String(!place.hidden)); if (!place.hidden) fillTable(id); }
  });
  if ($('metric')) { $('metric').append(...metrics.map((metric) => make('option', metric.title, {value: metric.key}))); $('metric').onchange = () => setMetric($('metric').value); $('reset').onclick = resetZoom; }
  if ($('step')) { $('step').oninput = () => setStep(Number($('step').value)); $('play').onclick = play; }
  if ($('layer')) { $('previous').onclick = () => openLayer(state.layer - 1, {scroll: false}); $('next').onclick = () => openLayer(state.layer + 1, {scroll: false}); }
  window.addEventListener('hashchange', () => { const layer = readLink(); if (layer !== null) { openLayer(layer, {write: false}); drawHeatmap(); } });
  window.addEventListener('resize', later(drawAll, 150));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { readColours(); drawAll(); });
  let folded = [], theme;
  window.addEventListener('beforeprint', () => { theme = root.dataset.theme; folded = [...document.querySelectorAll('details:not([open])')]; folded.forEach((d) => { d.open = true; }); root.dataset.theme = 'light'; readColours(); drawAll(); });
  window.addEventListener('afterprint', () => { folded.forEach((d) => { d.open = false; }); if (theme) root.dataset.theme = theme; else delete root.dataset.theme; readColours(); drawAll(); });
};
const drawAll = async () => { if (ready) { await drawHeatmap(); drawLanes(); drawFlow(); await drawLayer(); } };
const main = async () => {
  readColours();
  const linked = readLink();
  state.layer = linked ?? indexOf.get(start.layer) ?? 0;
  if (meta.flow && !new URLSearchParams(location.hash.slice(1)).has('step')) state.step = findings[0]?.first != null ? nearest((findings[0].first + (findings[0].last ?? start.steps[1])) / 2) : meta.flow.steps.length - 1;
  wire();
  if (linked !== null || $('layer')) openLayer(state.layer, {scroll: linked !== null, write: false});
  const script = make('script', new TextDecoder().decode(await inflate('plotly')));
  document.head.append(script);
  await readFlow();
  ready = true;
  if (metrics.length) await drawAll();
  if ($('heatmap')) wireHeatmap();
  root.dataset.ready = 'true';
};
const fail = (sentence) => { $('trouble').hidden = false; $('trouble').textContent = sentence; for (const id of ['layers', 'time', 'depth', 'layer']) if ($(id)) $(id).hidden = true; };
if (!('DecompressionStream' in window)) fail('The plots are missing: this browser cannot unpack compressed data (it needs Chrome 80, Safari 16.4, Firefox 113 or newer).');
else main().catch((error) => { fail(`The plots are missing: ${error.message}`); throw error; });
})();
