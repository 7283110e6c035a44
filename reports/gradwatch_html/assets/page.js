'use strict';
(() => {
const root = document.documentElement;
root.classList.add('js');
const $ = (id) => document.getElementById(id);
const meta = JSON.parse($('meta').textContent);
const {layers, findings, metrics, lanes, start} = meta;
const SHAPES = {critical: '▲', warning: '■', notice: '●'}, MARKERS = {critical: 'triangle-up', warning: 'square', notice: 'circle'};
const state = {layer: 0, step: 0, metric: start.metric, view: start.view, x: null, y: null};
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

// Plotly: one base look, few round ticks that cannot collide.

const scaleOf = (list) => list.map((colour, i) => [i / (list.length - 1), colour]);
const dark = () => (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
const readTheme = () => { colours = meta.palettes[dark() ? 'dark' : 'light']; $('theme').lastElementChild.textContent = dark() ? 'Light' : 'Dark'; };
const faint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, '0');
const layout = (margin, more) => ({template: colours.template, margin, dragmode: false, font: {family: getComputedStyle(document.body).fontFamily}, ...more});
const describe = (id, sentence) => $(id).setAttribute('aria-label', sentence);
const draw = (id, data, settings) => {
  const size = {width: $(id).clientWidth, height: $(id).clientHeight};
  return window.Plotly.react($(id), data, {...settings, ...size}, {displayModeBar: false, responsive: false, doubleClick: false, showTips: false});
};
const fullRange = () => [start.steps[0] - 0.5, start.steps[1] + 0.5], stepTitle = {title: {text: 'step', standoff: 4}};
const stepAxis = (id, margin, more = {}) => {
  const range = more.range ?? fullRange(), room = $(id).clientWidth - margin;
  const spacing = range[1] - range[0] <= 8 ? {tick0: 0, dtick: 1} : {nticks: Math.max(3, Math.min(10, Math.floor(room / 80)))};
  return {...spacing, range, tickformat: ',~s', hoverformat: ',d', ...more};
};
const powers = (low, high, base = 10, most = 6) => {
  const stride = Math.max(1, Math.ceil((high - low + 1) / most)), list = [];
  for (let p = Math.ceil(low / stride) * stride; p <= high; p += stride) list.push(p);
  return {tickmode: 'array', tickvals: list.map((p) => (base === 10 ? 10 ** p : p)), ticktext: list.map((p) => power(base, p))};
};
const logAxis = (values, most = 6) => {
  let [low, high] = extent(values.filter((v) => v > 0)).map(Math.log10);
  if (!Number.isFinite(low)) [low, high] = [-1, 0];
  if (high - low < 1.2) {
    const room = Math.max(0.1, 0.35 - (high - low) / 2), ticks = [];
    [low, high] = [low - room, high + room];
    for (let p = Math.floor(low); p <= high; p++) for (const n of [1, 2, 5]) if (Math.log10(n * 10 ** p) >= low && Math.log10(n * 10 ** p) <= high) ticks.push(n * 10 ** p);
    return {type: 'log', range: [low, high], tickmode: 'array', tickvals: ticks, ticktext: ticks.map(short)};
  }
  [low, high] = [Math.floor(low - 0.02), Math.ceil(high + 0.02)];
  return {type: 'log', range: [low, high], ...powers(low, high, 10, most)};
};
const cursor = () => ({type: 'line', xref: 'x', yref: 'paper', x0: currentStep(), x1: currentStep(), y0: 0, y1: 1, visible: currentStep() !== null, line: {color: colours.ink, width: 1, dash: 'dot'}});
const legend = (id, entries) => $(`${id}-legend`).replaceChildren(...entries.map(([colour, text, kind = 'block']) => {
  const item = make('span'), mark = item.appendChild(make('i', undefined, {class: kind}));
  mark.style.setProperty('--mark', colour);
  item.append(make('bdi', text));
  return item;
}));

// Curves: lines where samples follow one another, points where they stand apart.

const curve = ({time, y, low, high, banded, name}, colour, more = {}, format = short) => {
  const follows = followsOf(time), x = [], ys = [], dots = [], text = [], made = [], known = (i) => Number.isFinite(y[i] ?? NaN);
  for (let i = 0; i < y.length; i++) {
    const before = known(i) && follows[i] && known(i - 1), after = known(i) && follows[i + 1] && known(i + 1);
    if (!before) { x.push(middle(time, i)); ys.push(null); dots.push(0); text.push(''); }
    x.push(middle(time, i));
    ys.push(known(i) ? y[i] : null);
    dots.push(before || after ? 0 : 5);
    text.push(known(i) ? `${escaped(ellipsis(name, 60))}<br>${steps(time.first[i], time.last[i])}: ${format(y[i])}` : '');
  }
  const edge = {type: 'scatter', mode: 'lines', x: time.first.map((_, i) => middle(time, i)), line: {width: 0}, hoverinfo: 'skip', ...more};
  if (banded) made.push({...edge, y: low}, {...edge, y: high, fill: 'tonexty', fillcolor: faint(colour, 0.22)});
  const mode = dots.some((size) => size) ? 'lines+markers' : 'lines';
  return [...made, {type: 'scatter', mode, x, y: ys, text, hovertemplate: '%{text}<extra></extra>', line: {color: colour, width: 1.6}, marker: {color: colour, size: dots, line: {width: 0}}, ...more}];
};
const marks = (x, {type, range: [low, high]}, kind, more = {}) => {
  const inner = kind === 'bad' ? high - (high - low) * 0.004 : low + (high - low) * 0.004, y = type === 'log' ? 10 ** inner : inner;
  const marker = kind === 'bad' ? {symbol: 'line-ns', size: 9, line: {color: colours.bad, width: 1.4}} : {symbol: 'x-thin', size: 6, line: {color: colours.soft, width: 1.3}};
  return {type: 'scatter', mode: 'markers', x, y: x.map(() => y), marker, cliponaxis: false, hovertemplate: `${kind === 'bad' ? 'non-finite' : 'exactly zero'} at step %{x:,d}<extra></extra>`, ...more};
};

// Every layer over time.

let heat = {};
const gutters = () => (narrow() ? {l: 88, r: 26} : {l: 176, r: findings.length ? 140 : 20});
// One cell of the picture is the strongest of the cells under it: no row and no spike is skipped.
const shrink = (metric, data, change, [r0, r1], [c0, c1], nr, nc) => {
  const columns = metric.first.length, z = [], special = [], owner = new Int32Array(nr * nc);
  const row = (i) => r0 + Math.floor(i * (r1 - r0) / nr), column = (j) => c0 + Math.floor(j * (c1 - c0) / nc);
  const strongest = (ra, rb, ca, cb) => {
    let best = {strength: -Infinity, shown: null, mark: null, row: ra};
    for (let r = ra; r < rb; r++) {
      const base = change ? metric.start[r] : 0;
      for (let at = r * columns + ca; at < r * columns + cb; at++) {
        const code = data[at];
        if (code === 255) return {shown: null, mark: 3, row: r};
        if (code > 2 && base !== null) {
          const shown = level(metric, code) - base, strength = change ? Math.abs(shown) : shown;
          if (strength > best.strength) best = {strength, shown, mark: null, row: r};
        } else if (code > 0 && code < 3 && best.shown === null && code > best.mark) best = {...best, mark: code, row: r};
      }
    }
    return best;
  };
  for (let i = 0; i < nr; i++) {
    const cells = Array.from({length: nc}, (_, j) => strongest(row(i), row(i + 1), column(j), column(j + 1)));
    z.push(cells.map((cell) => cell.shown));
    special.push(cells.map((cell) => cell.mark));
    cells.forEach((cell, j) => { owner[i * nc + j] = cell.row; });
  }
  return {metric, data, z, special, owner, nc, column, row};
};
const rowTicks = (metric, r0, r1, room, characters) => {
  const most = Math.min(14, Math.floor(room / 22)), name = (row) => layers[metric.layers[row]].name, block = (row) => name(row).split('.').slice(0, 2).join('.');
  const all = Array.from({length: r1 - r0}, (_, i) => r0 + i), blocks = all.filter((row) => row === r0 || block(row) !== block(row - 1));
  const byBlock = all.length > most && blocks.length > 2, list = byBlock ? blocks : all, stride = Math.ceil(list.length / most);
  const shown = list.filter((_, i) => i % stride === 0);
  return {tickmode: 'array', tickvals: shown, ticktext: shown.map((row) => escaped(ellipsis(byBlock ? block(row) : name(row), characters)))};
};
const outlines = (metric, [x0, x1], [r0, r1], room) => {
  const across = (step) => (step - x0) / (x1 - x0), up = (row) => 1 - (row - r0) / (r1 - r0), clip = (v) => Math.max(0, Math.min(1, v));
  const shapes = [], labels = [], paper = {xref: 'paper', yref: 'paper'}, least = 7 / room.wide;
  findings.forEach((finding, index) => {
    const from = across((finding.first ?? start.steps[0]) - 0.5), to = across((finding.last ?? start.steps[1]) + 0.5);
    const boxes = finding.rows[metric.key].map(([a, b]) => [clip(up(a)), clip(up(b + 1))]).filter(([top, bottom]) => top > bottom);
    if (!boxes.length || to <= 0 || from >= 1) return;
    const left = clip(Math.min(from, 1 - least)), right = clip(Math.max(to, left + least)), colour = colours[finding.severity], own = finding.metric === metric.key;
    for (const [top, bottom] of boxes) {
      const grow = Math.max(0, 9 / room.high - (top - bottom)) / 2, box = {type: 'rect', ...paper, x0: left, x1: right, y0: clip(bottom - grow), y1: clip(top + grow)};
      shapes.push({...box, line: {color: faint(colours.card, 0.7), width: 3.4}}, {...box, line: {color: colour, width: own ? 1.8 : 1.2, dash: own ? 'solid' : 'dot'}});
    }
    const [top, bottom] = boxes.reduce((a, b) => (b[0] - b[1] > a[0] - a[1] ? b : a));
    labels.push({index, finding, colour, right, y: (1 - (top + bottom) / 2) * room.high});
  });
  // Labels stand in their own column at the right, pushed apart; a line leads to what they name.
  labels.sort((a, b) => a.y - b.y).forEach((label, i) => { label.at = Math.max(label.y, i ? labels[i - 1].at + 18 : 8); });
  labels.reduceRight((limit, label) => { label.at = Math.min(label.at, limit); return label.at - 18; }, room.high - 6);
  const height = (y) => 1 - y / room.high;
  for (const {right, colour, y, at} of labels) {
    if (right < 0.995) shapes.push({type: 'line', ...paper, x0: right, x1: 1, y0: height(y), y1: height(y), line: {color: colour, width: 1, dash: 'dot'}});
    shapes.push({type: 'line', ...paper, x0: 1, x1: 1 + 9 / room.wide, y0: height(y), y1: height(at), line: {color: colour, width: 1}});
  }
  const annotations = labels.map(({index, finding, colour, at}) => ({
    ...paper, x: 1, xshift: 11, y: height(at), xanchor: 'left', yanchor: 'middle', showarrow: false, captureevents: true, borderpad: 1, name: String(index),
    text: `<span style="color:${colour}">${SHAPES[finding.severity]}</span>${narrow() ? '' : ` ${escaped(ellipsis(finding.word, 20))}`}`, font: {size: 12, color: colours.ink},
  }));
  return {shapes, annotations};
};
const drawHeatmap = async () => {
  if (!$('heatmap')) return;
  const metric = metricOf.get(state.metric), data = await codes(metric.key), change = state.view === 'change' && !metric.share;
  const gutter = gutters(), high = $('heatmap').clientHeight - 46, wide = $('heatmap').clientWidth - gutter.l - gutter.r;
  const edges = edgesOf(metric), rows = metric.layers.length, x = state.x ?? fullRange(), y = state.y ?? [0, rows];
  const c0 = Math.max(0, edges.findIndex((edge) => edge > x[0]) - 1), beyond = edges.findIndex((edge) => edge >= x[1]), c1 = beyond > c0 ? beyond : edges.length - 1;
  const r0 = Math.max(0, Math.floor(y[0])), r1 = Math.min(rows, Math.max(Math.ceil(y[1]), r0 + 1));
  const nr = Math.min(r1 - r0, Math.max(1, Math.floor(high / 2))), nc = Math.min(c1 - c0, Math.max(1, Math.floor(wide)));
  heat = shrink(metric, data, change, [r0, r1], [c0, c1], nr, nc);
  const grid = {type: 'heatmap', hoverinfo: 'none', showscale: false, x: Array.from({length: nc + 1}, (_, j) => edges[heat.column(j)]), y: Array.from({length: nr + 1}, (_, i) => heat.row(i) - 0.5)};
  const [least, most] = change ? [-4, 4] : metric.share ? [0, 1] : extent(heat.z.flat()), map = change ? colours.change : colours.value;
  const zmin = Number.isFinite(least) ? least : metric.low, zmax = Number.isFinite(most) ? Math.max(most, zmin + 1) : zmin + 1;
  const outline = outlines(metric, x, [r0, r1], {wide, high}), kinds = [colours.absent, colours.zero, colours.bad], mouse = matchMedia('(pointer: fine)').matches;
  await draw('heatmap', [
    {...grid, z: heat.z, zmin, zmax, colorscale: scaleOf(map)},
    {...grid, z: heat.special, zmin: 0.5, zmax: 3.5, colorscale: kinds.flatMap((colour, i) => [[i / 3, colour], [(i + 1) / 3, colour]])},
  ], layout({...gutter, b: 38}, {
    dragmode: mouse ? 'zoom' : false, shapes: [cursor(), ...outline.shapes], annotations: outline.annotations,
    xaxis: stepAxis('heatmap', gutter.l + gutter.r, {range: x, fixedrange: false, showgrid: false, ...stepTitle}),
    yaxis: {range: [r1 - 0.5, r0 - 0.5], fixedrange: false, showgrid: false, ...rowTicks(metric, r0, r1, high, Math.floor((gutter.l - 10) / 6.4))},
  }));
  const seen = new Set(heat.special.flat()), ends = change ? (narrow() ? '÷10⁴ … ×10⁴' : '10⁴× smaller … same … 10⁴× larger') : metric.share ? '0% … 100%' : `${short(10 ** zmin)} … ${short(10 ** zmax)}`;
  legend('heatmap', [[`linear-gradient(90deg, ${map.join(',')})`, ends, 'ramp'], ...['no gradient (None)', 'exactly zero', 'non-finite'].map((word, i) => [kinds[i], word]).filter((_, i) => seen.has(i + 1))]);
  const how = change ? ' Colour: change from the layer’s own start, the median of 8 to 18% of the run.' : '';
  $('heatmap-note').textContent = `${metric.note}${how} Click a cell for its layer${mouse ? '; drag to zoom, double-click to reset' : ''}.`;
  describe('heatmap', `${metric.title}, ${change ? 'change from own start' : 'value'}, ${rows} layers from input at the top to output, ${steps(...start.steps)}. ${findings.map((f) => f.title).join('. ')}`);
  $('reset').hidden = !(state.x || state.y);
  for (const button of document.querySelectorAll('[data-view]')) {
    button.setAttribute('aria-pressed', String((button.dataset.view === 'change') === change));
    button.disabled = metric.share && button.dataset.view === 'change';
  }
  $('metric').value = metric.key;
  refreshTable('heatmap');
};
const cellAt = (event) => {
  const [i, j] = event.points[0].pointNumber, {metric, data, nc, column, owner} = heat, row = owner[i * nc + j], base = metric.start[row];
  const code = data.subarray(row * metric.first.length + column(j), row * metric.first.length + column(j + 1)).reduce((a, b) => Math.max(a, b), 0);
  const change = !metric.share && code > 2 && code < 255 && base !== null ? `, ${short(10 ** (level(metric, code) - base))}× its start` : '';
  const lines = [ellipsis(layers[metric.layers[row]].name, 90), steps(metric.first[column(j)], metric.last[column(j + 1) - 1]), `${metric.title} ${cellText(metric, code)}${change}`];
  return {layer: metric.layers[row], text: lines.join('\n')};
};
const wireHeatmap = () => {
  const plot = $('heatmap'), tip = $('tip');
  plot.on('plotly_hover', (event) => {
    [tip.textContent, tip.hidden] = [cellAt(event).text, false];
    const {clientX, clientY} = event.event, box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(window.innerWidth - box.width - 6, clientX + 14))}px`;
    tip.style.top = `${clientY + 18 + box.height > window.innerHeight ? clientY - box.height - 12 : clientY + 18}px`;
  });
  plot.on('plotly_unhover', () => { tip.hidden = true; });
  plot.on('plotly_click', (event) => openLayer(cellAt(event).layer));
  plot.on('plotly_clickannotation', (event) => openFinding(Number(event.annotation.name)));
  plot.on('plotly_doubleclick', resetZoom);
  plot.on('plotly_relayout', (event) => {
    const range = (name) => [event[`${name}.range[0]`], event[`${name}.range[1]`]].sort((a, b) => a - b);
    const [x, y] = [range('xaxis'), range('yaxis')], [low, high] = fullRange();
    if (x[0] !== undefined) state.x = [Math.max(low, x[0]), Math.min(high, x[1])];
    if (y[0] !== undefined) state.y = [Math.max(0, Math.floor(y[0] + 0.5)), Math.min(heat.metric.layers.length, Math.ceil(y[1] + 0.5))];
    if (x[0] !== undefined || y[0] !== undefined) drawHeatmap().then(remember);
  });
};
const resetZoom = () => { state.x = state.y = null; drawHeatmap().then(remember); };
const setMetric = (key, view = state.view) => { Object.assign(state, {metric: key, view, y: key === state.metric ? state.y : null}); drawHeatmap().then(remember); };
tables.heatmap = () => {
  const {metric, data} = heat, columns = metric.first.length, at = [...new Set([0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (columns - 1))))];
  const rows = metric.layers.map((layer, row) => [layers[layer].name, ...at.map((c) => cellText(metric, data[row * columns + c]))]);
  return {caption: metric.title, head: ['layer', ...at.map((c) => steps(metric.first[c], metric.last[c]))], rows};
};

// Findings over time, with the run's scalars; the step axis stands exactly under the heatmap's.

const drawLanes = () => {
  if (!$('lanes')) return;
  const small = narrow(), [lane, scalar, head] = small ? [48, 92, 24] : [40, 78, 12], labels = [...$('lane-labels').children];
  const shown = findings.slice(0, labels.length - lanes.length), gutter = gutters(), high = shown.length * lane + lanes.length * scalar - 8, data = [];
  const place = (i, top, height, used) => Object.assign(labels[i].style, {top: `${top + 8}px`, height: `${height}px`, width: small ? '100%' : `${gutter.l - used}px`});
  $('lanes').style.height = `${high + 46}px`;
  const settings = layout({...gutter, b: 38}, {shapes: [cursor()], xaxis: stepAxis('lanes', gutter.l + gutter.r, {anchor: 'free', position: 0, ...stepTitle})});
  settings.yaxis = {domain: [Math.max(0, 1 - shown.length * lane / high), 1], range: [shown.length - 0.5, -0.5], showticklabels: false, showgrid: false, visible: shown.length > 0};
  shown.forEach(({first, last, severity, title}, i) => {
    const y = i + (small ? 0.26 : 0), from = first ?? start.steps[0], to = last ?? start.steps[1], colour = colours[severity];
    data.push({type: 'scatter', mode: 'lines', x: [from, to], y: [y, y], line: {color: faint(colour, 0.55), width: small ? 8 : 10}, hovertemplate: `${escaped(ellipsis(title, 70))}<br>${steps(from, to)}<extra></extra>`});
    data.push({type: 'scatter', mode: 'markers', x: [from], y: [y], marker: {symbol: MARKERS[severity], size: 12, color: colour, line: {color: colours.card, width: 1.5}}, hoverinfo: 'skip', cliponaxis: false});
    place(i, i * lane, small ? 22 : lane, 14);
  });
  lanes.forEach((line, k) => {
    const top = shown.length * lane + k * scalar, axisName = `yaxis${k + 2}`, yaxis = `y${k + 2}`, values = [...line.low, ...line.high];
    const domain = [1 - (top + scalar - 4) / high, 1 - (top + head) / high].map((v) => Math.max(0, v));
    settings[axisName] = {...(line.log ? logAxis(values, 3) : {nticks: 3, tickformat: '~g', range: padded(values)}), domain};
    data.push(...curve({time: line, y: line.high, low: line.low, high: line.high, banded: line.first.some((step, i) => step !== line.last[i]), name: line.title}, colours.accent, {yaxis}));
    if (line.bad.length) data.push(marks(line.bad, settings[axisName], 'bad', {yaxis}));
    place(shown.length + k, top + (small ? 0 : head), small ? 24 : scalar - head - 8, 58);
  });
  draw('lanes', data, settings);
};
const padded = (values) => { const [low, high] = extent(values), room = (high - low || Math.abs(high) || 1) * 0.12; return Number.isFinite(low) ? [low - room, high + room] : [0, 1]; };
tables.lanes = () => ({caption: 'Findings', head: ['finding', 'severity', 'first step', 'last step'], rows: findings.map((f) => [f.title, f.severity, ...[f.first, f.last].map((step) => (step === null ? '' : whole(step)))])});

// Gradient flow by depth.

let flow;
const currentStep = () => (meta.flow ? meta.flow.steps[state.step] : null);
const groupName = ([a, b]) => (a === b ? layers[a].name : `${layers[a].name} … ${layers[b].name}`);
const readFlow = async () => {
  if (!meta.flow) return;
  const data = new Float32Array(await inflate('flow')), groups = meta.flow.groups.length, columns = meta.flow.steps.length;
  const at = (part, step) => Array.from(data.subarray((part * columns + step) * groups, (part * columns + step + 1) * groups));
  flow = {at, extent: extent(Array.from(data).filter((v) => v > 0))};
  $('step').max = columns - 1;
  $('step').parentElement.hidden = columns < 2;
};
const drawFlow = () => {
  if (!$('flow')) return;
  const {steps: all, groups, slopes} = meta.flow, [median, low, high] = [0, 1, 2].map((part) => flow.at(part, state.step)), ghost = flow.at(0, 0), x = median.map((_, i) => i);
  const positive = (list) => list.map((v) => (Number.isFinite(v) && v > 0 ? v : null)), [l, h] = [positive(low), positive(high)], both = (list) => list.map((v, i) => (l[i] === null || h[i] === null ? null : v));
  const wide = $('flow').clientWidth - 70, most = Math.max(2, Math.min(12, Math.floor(wide / 110))), stride = Math.ceil(x.length / most), room = Math.floor(wide / Math.min(x.length, most) / 6.8);
  const y = logAxis(flow.extent), ticks = x.filter((i) => i % stride === 0), zeros = x.filter((i) => median[i] === 0), bad = x.filter((i) => median[i] === Infinity);
  const names = groups.map((group) => escaped(ellipsis(groupName(group), 70))), line = {type: 'scatter', mode: 'lines', x, hoverinfo: 'skip'}, hover = (list, word) => ({text: list.map((i) => `${names[i]}: ${word}`), hovertemplate: '%{text}<extra></extra>'});
  draw('flow', [
    {...line, y: both(l), line: {width: 0}}, {...line, y: both(h), line: {width: 0}, fill: 'tonexty', fillcolor: faint(colours.accent, 0.2)},
    {...line, y: state.step ? positive(ghost) : [], line: {color: colours.soft, width: 1.3, dash: 'dot'}},
    {type: 'scatter', mode: x.length > 60 ? 'lines' : 'lines+markers', x, y: positive(median), text: x.map((i) => `${names[i]}<br>median ${short(median[i])}, range ${short(low[i])} to ${short(high[i])}`), hovertemplate: '%{text}<extra></extra>', line: {color: colours.accent, width: 2}, marker: {size: 5}},
    marks(bad, y, 'bad', hover(bad, 'non-finite')), marks(zeros, y, 'zero', hover(zeros, 'exactly zero')),
  ], layout({b: 42, r: 16}, {
    xaxis: {range: [-0.5, x.length - 0.5], showgrid: false, tickmode: 'array', tickvals: ticks, ticktext: ticks.map((i) => escaped(ellipsis(layers[groups[i][0]].name, room))), tickangle: 0, title: {text: 'input → output', standoff: 6}}, yaxis: y,
  }));
  const step = whole(all[state.step]), slope = slopes[state.step], per = groups.some(([a, b]) => a !== b) ? 'group of layers' : 'layer';
  [$('step').value, $('step-text').textContent] = [state.step, `step ${step}`];
  $('slope').textContent = slope === null ? '' : Math.abs(slope) < 0.005 ? 'flat from input to output' : `${Math.abs(slope).toFixed(2)} decades ${slope > 0 ? 'more' : 'less'} per ${per} towards the output`;
  legend('flow', [[colours.accent, 'median of the layer’s parameters', 'stroke'], [faint(colours.accent, 0.3), 'range'], ...(state.step ? [[colours.soft, `start (step ${whole(all[0])})`, 'stroke dotted']] : []), ...(bad.length ? [[colours.bad, 'non-finite']] : []), ...(zeros.length ? [[colours.soft, 'exactly zero', 'cross']] : [])]);
  describe('flow', `Gradient rms by depth at step ${step}: ${$('slope').textContent || 'no finite gradients'}`);
  refreshTable('flow');
};
tables.flow = () => ({caption: `Gradient rms at step ${whole(currentStep())}`, head: ['layer', 'median', 'smallest', 'largest'], rows: meta.flow.groups.map((group, i) => [groupName(group), ...[0, 1, 2].map((part) => short(flow.at(part, state.step)[i]))])});
let pending = false, playing = null;
const setStep = (index) => {
  if (!meta.flow) return;
  state.step = Math.max(0, Math.min(meta.flow.steps.length - 1, index));
  if (!ready || pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    drawFlow();
    for (const id of ['heatmap', 'lanes', ...CHARTS]) if ($(id)?.layout?.shapes?.length) window.Plotly.relayout($(id), {'shapes[0].x0': currentStep(), 'shapes[0].x1': currentStep()});
    remember();
  });
};
const play = () => {
  const last = meta.flow.steps.length - 1;
  if (!playing && state.step === last) setStep(0);
  playing = playing ? clearInterval(playing) ?? null : setInterval(() => (state.step === last ? play() : setStep(state.step + 1)), 90);
  $('play').textContent = playing ? '❚❚' : '▶';
  $('play').setAttribute('aria-pressed', String(playing !== null));
};

// The page of one layer.

const TIME_CHARTS = {gradient: 'gradient', ratio: 'update / weight', activation: 'activation', delta: 'activation gradient'};
const CHARTS = [...Object.keys(TIME_CHARTS), 'shares', 'histogram'];
const LINE_COLOURS = ['accent', 'second', 'notice', 'warning', 'critical', 'soft'];
const USUAL = [10 ** -3.5, 10 ** -2.5], FLOAT16 = [[-24, 'float16 smallest'], [-14, 'float16 smallest normal'], [16, 'float16 largest']];
const finite = (line) => line.y.filter((v) => Number.isFinite(v ?? NaN)).length;
const siteName = (name) => { const {name: layer} = layers[state.layer]; return name === layer ? 'output' : name.startsWith(layer) ? name.slice(layer.length + 1) : name; };
const matrixLine = async (key, layer) => {
  const metric = metricOf.get(key), row = metric ? metric.layers.indexOf(layer) : -1;
  if (row < 0) return null;
  const mine = (await codes(key)).subarray(row * metric.first.length, (row + 1) * metric.first.length);
  return {metric, codes: mine, time: metric, y: Array.from(mine, (code) => valueOf(metric, code)), name: metric.title, rounded: !metric.share};
};
const exactLines = async (chart, layer) => {
  const found = (meta.series.lines[layer] ?? []).filter((line) => line.chart === chart), data = new Float32Array(await inflate('series'));
  return found.map(({time: axis_, at, band, site}) => {
    const time = meta.series.times[axis_], n = time.first.length, part = (k) => Array.from(data.subarray(at + k * n, at + (k + 1) * n), (v) => (Number.isNaN(v) ? null : v));
    return {time, y: part(0), low: band ? part(1) : null, high: band ? part(2) : null, banded: band, name: siteName(site)};
  });
};
const linesOf = async (layer) => {
  const found = {};
  for (const id of Object.keys(TIME_CHARTS)) {
    const matrix = await matrixLine(id, layer), exact = await exactLines(id, layer), at = (code) => (matrix ? matrix.time.first.filter((_, i) => matrix.codes[i] === code) : []);
    found[id] = {lines: exact.length ? exact : matrix && finite(matrix) ? [matrix] : [], bad: at(255), zeros: at(2), matrix};
  }
  const shares = [['zeros', 'accent', 'exactly zero'], ['nonfinite', 'bad', 'NaN or infinite']].map(async ([key, colour, name]) => ({...await matrixLine(key, layer), colour, name}));
  found.shares = {lines: (await Promise.all(shares)).filter((line) => line.y && finite(line) > 1 && line.y.some((v) => v > 0)), bad: [], zeros: []};
  return found;
};
const timeChart = (id, {lines, bad, zeros}) => {
  const all = lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]), share = id === 'shares', format = share ? percent : short, usual = id === 'ratio';
  const y = share ? {range: [0, Math.min(1.04, Math.max(0.0105, extent(all)[1] * 1.15))], tickformat: '~%', nticks: 5} : logAxis([...all, ...(usual ? USUAL : [])]);
  const colour = (line, i) => colours[line.colour ?? LINE_COLOURS[i]], band = {type: 'rect', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0: USUAL[0], y1: USUAL[1], fillcolor: colours.band, line: {width: 0}};
  const data = [...lines.flatMap((line, i) => curve(line, colour(line, i), {}, format)), marks(bad, y, 'bad'), ...(share ? [] : [marks(zeros, y, 'zero')])];
  draw(id, data, layout({}, {shapes: [cursor(), ...(usual ? [band] : [])], xaxis: stepAxis(id, 68), yaxis: y}));
  legend(id, [...lines.map((line, i) => [colour(line, i), ellipsis(line.name, 40), 'stroke']), ...(usual ? [[colours.band, 'usual: 10⁻³·⁵ to 10⁻²·⁵']] : []), ...(bad.length ? [[colours.bad, 'non-finite']] : []), ...(zeros.length ? [[colours.soft, 'exactly zero', 'cross']] : [])]);
  const notes = [[lines.some((line) => line.rounded), 'Largest of the layer, rounded to 12%.'], [lines.some((line) => line.banded), 'Mean and range of neighbouring steps.'], [lines.some((line) => line.time.breaks.length > 1), 'Points: sampled steps.']];
  $(`${id}-note`).textContent = notes.filter(([applies]) => applies).map(([, text]) => text).join(' ');
  describe(id, `${TIME_CHARTS[id] ?? id}: ${lines.map((line) => line.name).join(', ')}; from ${extent(all).map(format).join(' to ')}${bad.length ? `; non-finite from step ${whole(bad[0])}` : ''}`);
  const cells = (line, step) => { const at = line.time.first.indexOf(step); return at < 0 ? '' : format(line.y[at]); };
  tables[id] = () => ({caption: TIME_CHARTS[id] ?? id, head: ['step', ...lines.map((line) => line.name)], rows: lines[0].time.first.map((step) => [whole(step), ...lines.map((line) => cells(line, step))])});
};
const drawHistogram = async (layer) => {
  const {at, low: first, bins: count, time: axis_} = meta.histograms.layers[layer], data = new Uint8Array(await inflate('histograms')), time = meta.histograms.times[axis_];
  const share = (bin, column) => { const code = data[at + column * count + bin]; return code ? 2 ** ((code - 255) / 4) : null; }, bins = Array.from({length: count}, (_, i) => i);
  const exponent = (bin) => first + bin - 41, limits = layers[layer].dtype === 'float16' ? FLOAT16 : [], low = Math.min(exponent(0), ...limits.map(([y]) => y - 1)), high = Math.max(exponent(count), ...limits.map(([y]) => y + 1));
  const name = (bin) => `${power(2, exponent(bin))} to ${power(2, exponent(bin) + 1)}`, columns = time.first.map((_, c) => c);
  if (columns.length === 1) {
    const bars = {type: 'bar', x: bins.map((bin) => exponent(bin) + 0.5), y: bins.map((bin) => share(bin, 0) ?? 0), text: bins.map((bin) => `${name(bin)}: ${percent(share(bin, 0) ?? 0)}`), textposition: 'none', hovertemplate: '%{text}<extra></extra>', marker: {color: colours.accent}, width: 0.86};
    draw('histogram', [bars], layout({}, {xaxis: powers(low, high, 2), yaxis: {tickformat: '~%', nticks: 5, rangemode: 'tozero'}}));
    legend('histogram', [[colours.accent, 'share of elements']]);
  } else {
    const text = bins.map((bin) => columns.map((c) => `${name(bin)}<br>${steps(time.first[c], time.last[c])}: ${percent(share(bin, c) ?? 0)}`)), z = bins.map((bin) => columns.map((c) => (share(bin, c) === null ? null : Math.log10(share(bin, c)))));
    draw('histogram', [{type: 'heatmap', x: edgesOf(time), y: [...bins, count].map(exponent), z, text, zmin: -4, zmax: -0.4, colorscale: scaleOf(colours.elements), showscale: false, hovertemplate: '%{text}<extra></extra>', hoverongaps: false}], layout({}, {
      shapes: [cursor(), ...limits.map(([y]) => ({type: 'line', xref: 'paper', x0: 0, x1: 1, y0: y, y1: y, line: {color: colours.critical, width: 1, dash: 'dash'}}))],
      annotations: limits.map(([y, text_]) => ({xref: 'paper', x: 1, xanchor: 'right', y, yanchor: 'bottom', text: text_, showarrow: false, bgcolor: faint(colours.card, 0.85), borderpad: 1, font: {size: 11, color: colours.critical}})),
      xaxis: stepAxis('histogram', 68, {showgrid: false}), yaxis: {...powers(low, high, 2), range: [low, high], showgrid: false},
    }));
    legend('histogram', [[`linear-gradient(90deg, ${colours.elements.join(',')})`, '0.01% … 40% of the elements', 'ramp']]);
  }
  $('histogram-note').textContent = `Powers of two of |element|; blank where there is none.${layers[layer].dtype === 'bfloat16' ? ' bfloat16 reaches down to 2⁻¹³³, below this axis.' : ''}`;
  describe('histogram', `Histogram of |gradient| from 2^${exponent(0)} to 2^${exponent(count)} over ${columns.length} columns of steps`);
  tables.histogram = () => ({caption: 'Share of the elements by power of two', head: ['step', ...bins.map((bin) => power(2, exponent(bin)))], rows: columns.map((c) => [whole(time.first[c]), ...bins.map((bin) => (share(bin, c) === null ? '' : percent(share(bin, c))))])});
};
const drawLayer = async () => {
  if (!$('layer')) return;
  const layer = state.layer, found = await linesOf(layer), missing = [], facts = [], shown = (id, wanted) => { $(`${id}-figure`).hidden = !wanted; };
  if (layer !== state.layer) return;
  for (const [id, title] of Object.entries(TIME_CHARTS)) {
    const {lines, bad, matrix} = found[id], drawn = bad.length > 1 || lines.some((line) => finite(line) > 1);
    shown(id, drawn);
    if (drawn && !lines.length) lines.push(matrix);
    else if (!drawn && lines.length) facts.push(...lines.map((line) => `${title}${id === 'ratio' ? '' : ' rms'} ${short(line.y.find((v) => v !== null))} (${line.name})`));
    else if (!drawn && matrix?.codes.includes(1)) facts.push(`${title}: none (None) at every captured step`);
    else if (!drawn) missing.push(title);
  }
  shown('shares', found.shares.lines.length > 0);
  if (!found.shares.lines.length && metricOf.get('zeros')?.layers.includes(layer)) facts.push('no element exactly zero or non-finite');
  shown('histogram', Boolean(meta.histograms.layers[layer]));
  for (const id of [...Object.keys(TIME_CHARTS), 'shares']) if (!$(`${id}-figure`).hidden) timeChart(id, found[id]);
  if (meta.histograms.layers[layer]) await drawHistogram(layer); else missing.push('histogram of the gradient');
  heading(layer, facts);
  $('layer-missing').textContent = missing.length ? `Not captured for this layer: ${missing.join(', ')}.` : '';
  for (const id of CHARTS) if (!$(`${id}-figure`).hidden) refreshTable(id);
};
const heading = (layer, facts = []) => {
  const {name, kind, level: health, parameters, more, found} = layers[layer], levels = $('layer-level'), list = make('span');
  $('layer-name').replaceChildren(make('bdi', ellipsis(name, 160), {title: name}));
  levels.dataset.level = health;
  levels.replaceChildren(...(SHAPES[health] ? [make('i', SHAPES[health], {'aria-hidden': 'true'}), make('b', health)] : [make('span', health === 'unseen' ? 'not judged' : health)]));
  $('layer-place').textContent = `layer ${whole(layer + 1)} of ${whole(layers.length)}`;
  for (const index of found.slice(0, 8)) list.append(make('a', `${SHAPES[findings[index].severity]} ${findings[index].word}`, {href: `#finding-${index}`, 'data-finding': index}));
  const words = [...(kind ? [kind] : []), ...parameters, ...(more ? [`and ${more} more parameters`] : []), ...facts];
  $('layer-facts').replaceChildren(...words.map((text) => make('bdi', text)), ...(found.length ? [list] : []));
};

// Moving about: find, keys, links, tables.

const openLayer = (layer, {scroll = true, write = true} = {}) => {
  state.layer = Math.max(0, Math.min(layers.length - 1, layer));
  if (!$('layer')) return;
  heading(state.layer);
  if (ready) drawLayer();
  if (scroll) { $('layer').scrollIntoView({block: 'start'}); $('layer-name').focus({preventScroll: true}); }
  if (write) remember();
};
const openFinding = (index) => {
  const card = $(`finding-${index}`);
  card.open = true;
  card.scrollIntoView({block: 'start'});
  card.querySelector('summary').focus({preventScroll: true});
};
const showFinding = ({metric, view, first}) => {
  state.x = state.y = null;
  setMetric(metric, view);
  if (first !== null && meta.flow) setStep(nearest(first));
  $('layers').scrollIntoView({block: 'start'});
};
const match = (text, query) => {
  const at = text.indexOf(query);
  if (at >= 0) return at + (text.length - query.length) / 100;
  let from = 0, score = 1000;
  for (const character of query) { const next = text.indexOf(character, from); if (next < 0) return Infinity; score += next - from; from = next + 1; }
  return score;
};
const finder = {hits: [], at: 0}, search = () => {
  const query = $('find').value.trim().toLowerCase(), scored = query ? layers.map((layer, i) => [match(layer.name.toLowerCase(), query), i]) : [];
  Object.assign(finder, {at: 0, hits: scored.filter(([score]) => score < Infinity).sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, 50).map(([, i]) => i)});
  listHits(Boolean(query));
};
const listHits = (open) => {
  const list = $('hits'), items = finder.hits.map((layer, i) => {
    const {name, level: health} = layers[layer], item = make('li', undefined, {role: 'option', id: `hit-${i}`, 'aria-selected': String(i === finder.at), 'data-level': health});
    item.append(make('span', SHAPES[health] ?? '', {class: 'shape', 'aria-label': health}), make('bdi', ellipsis(name, 120)));
    item.onmousedown = (event) => { event.preventDefault(); choose(i); };
    return item;
  });
  list.replaceChildren(...(items.length ? items : [make('li', 'No layer of this name', {class: 'none'})]));
  list.hidden = !open;
  $('find').setAttribute('aria-expanded', String(open));
  $('find').setAttribute('aria-activedescendant', items.length ? `hit-${finder.at}` : '');
  items[finder.at]?.scrollIntoView({block: 'nearest'});
};
const choose = (i) => { const layer = finder.hits[i]; closeFind(); if (layer !== undefined) openLayer(layer); };
const closeFind = () => { $('find').value = ''; finder.hits = []; listHits(false); $('find').blur(); };
const findKey = (event) => {
  const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (move && finder.hits.length) { finder.at = (finder.at + move + finder.hits.length) % finder.hits.length; listHits(true); event.preventDefault(); }
  if (event.key === 'Enter') choose(finder.at);
  if (event.key === 'Escape') closeFind();
};
const nearest = (step) => meta.flow.steps.reduce((best, s, i) => (Math.abs(s - step) < Math.abs(meta.flow.steps[best] - step) ? i : best), 0);
const remember = () => {
  const link = new URLSearchParams({l: layers[state.layer]?.name ?? '', i: state.layer});
  if (meta.flow) link.set('step', currentStep());
  if (state.metric) { link.set('metric', state.metric); link.set('view', state.view); }
  if (state.x) link.set('x', state.x.map(Math.round).join('~'));
  try { history.replaceState(null, '', `#${link}`); } catch { /* a page inside another page has no address of its own */ }
};
const readLink = () => {
  const link = new URLSearchParams(location.hash.slice(1)), named = layers.findIndex((layer) => layer.name === link.get('l')), x = (link.get('x') ?? '').split('~').map(Number);
  if (metricOf.has(link.get('metric'))) state.metric = link.get('metric');
  if (['change', 'value'].includes(link.get('view'))) state.view = link.get('view');
  if (x.length === 2 && x[0] < x[1]) state.x = x;
  if (link.has('step') && meta.flow && Number.isFinite(Number(link.get('step')))) state.step = nearest(Number(link.get('step')));
  return named >= 0 ? named : link.has('i') && layers[link.get('i')] ? Number(link.get('i')) : null;
};
const refreshTable = (id) => { if (!$(`${id}-table`).hidden) fillTable(id); };
const fillTable = (id) => {
  const {caption, head, rows} = tables[id](), stride = Math.ceil(rows.length / 400), table = make('table'), [top, body] = [make('thead'), make('tbody')];
  const line = (cells, tag) => { const row = make('tr'); row.append(...cells.map((cell) => make(tag, ellipsis(String(cell), 90)))); return row; };
  top.append(line(head, 'th'));
  body.append(...rows.filter((_, i) => i % stride === 0).map((cells) => line(cells, 'td')));
  table.append(make('caption', stride > 1 ? `${caption}; every ${stride}th of ${rows.length} rows` : caption), top, body);
  $(`${id}-table`).replaceChildren(table);
};
const toggleTable = (button) => {
  const place = $(`${button.dataset.table}-table`);
  place.hidden = !place.hidden;
  button.setAttribute('aria-expanded', String(!place.hidden));
  refreshTable(button.dataset.table);
};
const setTheme = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; readTheme(); return drawAll(); };
const turn = (by) => { const box = $('layer')?.getBoundingClientRect(); openLayer(state.layer + by, {scroll: box?.top > window.innerHeight * 0.8 || box?.bottom < 0}); };
const KEYS = {
  '/': () => $('find').focus(), j: () => turn(1), k: () => turn(-1), d: () => setTheme(dark() ? 'light' : 'dark'), '?': () => $('keys').showModal(),
  ArrowLeft: (event) => setStep(state.step - (event.shiftKey ? 10 : 1)), ArrowRight: (event) => setStep(state.step + (event.shiftKey ? 10 : 1)),
  m: () => $('heatmap') && setMetric(metrics[(metrics.findIndex((m) => m.key === state.metric) + 1) % metrics.length].key),
  v: () => $('heatmap') && setMetric(state.metric, state.view === 'change' ? 'value' : 'change'),
};
const CLICKS = {
  layer: (element) => openLayer(Number(element.dataset.layer)), finding: (element) => openFinding(Number(element.dataset.finding)),
  view: (element) => setMetric(state.metric, element.dataset.view), show: (element) => showFinding(findings[element.dataset.show]), table: toggleTable,
};
const wire = () => {
  Object.assign($('find'), {oninput: search, onkeydown: findKey, onblur: () => listHits(false)});
  $('theme').onclick = KEYS.d;
  if ($('heatmap')) { $('metric').append(...metrics.map(({key, title}) => make('option', title, {value: key}))); $('metric').onchange = () => setMetric($('metric').value); $('reset').onclick = resetZoom; }
  if ($('flow')) { $('step').oninput = () => setStep(Number($('step').value)); $('play').onclick = play; }
  if ($('layer')) { $('previous').onclick = () => openLayer(state.layer - 1, {scroll: false}); $('next').onclick = () => openLayer(state.layer + 1, {scroll: false}); }
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $('keys').open || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key](event);
  });
  document.addEventListener('click', (event) => {
    for (const [name, action] of Object.entries(CLICKS)) {
      const element = event.target.closest(`[data-${name}]`);
      if (element) { event.preventDefault(); action(element); return; }
    }
  });
  window.addEventListener('hashchange', () => { const layer = readLink(); if (layer !== null) { openLayer(layer, {write: false}); drawHeatmap(); } });
  let timer;
  window.addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(drawAll, 150); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTheme(root.dataset.theme));
  const before = {};
  window.addEventListener('beforeprint', () => { Object.assign(before, {theme: root.dataset.theme, folded: [...document.querySelectorAll('details:not([open])')]}); before.folded.forEach((d) => { d.open = true; }); root.classList.add('printing'); setTheme('light'); });
  window.addEventListener('afterprint', () => { before.folded.forEach((d) => { d.open = false; }); root.classList.remove('printing'); setTheme(before.theme); });
};
const drawAll = async () => { if (ready) { await drawHeatmap(); drawLanes(); drawFlow(); await drawLayer(); } };
const main = async () => {
  const worst = findings[0], first = layers.findIndex((layer) => layer.name === start.layer);
  if (meta.flow) state.step = worst && worst.first !== null ? nearest((worst.first + (worst.last ?? start.steps[1])) / 2) : meta.flow.steps.length - 1;
  const linked = readLink();
  state.layer = linked ?? Math.max(0, first);
  readTheme();
  wire();
  openLayer(state.layer, {scroll: linked !== null, write: false});
  document.head.append(make('script', new TextDecoder().decode(await inflate('plotly'))));
  await readFlow();
  ready = true;
  if (metrics.length) await drawAll();
  if ($('heatmap')) wireHeatmap();
  root.dataset.ready = 'true';
};
const fail = (sentence) => { $('trouble').hidden = false; $('trouble').textContent = `The plots are missing: ${sentence}`; for (const id of ['layers', 'time', 'depth', 'layer']) if ($(id)) $(id).hidden = true; };
if ('DecompressionStream' in window) main().catch((error) => { fail(error.message); throw error; });
else fail('this browser cannot unpack compressed data (it needs Chrome 80, Safari 16.4, Firefox 113 or newer).');
})();
