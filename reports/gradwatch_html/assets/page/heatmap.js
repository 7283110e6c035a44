// Every layer over time: cells are painted on a canvas at the screen's own resolution, under plotly's axes and outlines.

let heat = {};
const gutters = () => (narrow() ? {l: 104, r: 26} : {l: 196, r: findings.length ? 140 : 20});
// Which cells a pixel covers: runs of pixels over the same cells are one band.
const bandsOf = (edges, low, high, pixels) => {
  const count = edges.length - 1, of = new Int32Array(pixels), from = [], to = [], per = (high - low) / pixels;
  let a = 0;
  for (let p = 0; p < pixels; p++) {
    const left = low + p * per, right = left + per;
    while (a < count && edges[a + 1] <= left) a++;
    let b = a;
    while (b < count && edges[b] < right) b++;
    if (b === a) { of[p] = -1; continue; }
    if (from.at(-1) !== a || to.at(-1) !== b) { from.push(a); to.push(b); }
    of[p] = from.length - 1;
  }
  return {of, from, to};
};
// Rows wider than a pixel are cut at the pixel's middle, so that neighbours do not mix.
const rowBands = (r0, r1, pixels) => {
  if (r1 - r0 > pixels) return bandsOf(Array.from({length: r1 - r0 + 1}, (_, i) => r0 + i), r0, r1, pixels);
  const of = Int32Array.from({length: pixels}, (_, p) => Math.min(r1 - r0 - 1, Math.floor((p + 0.5) / pixels * (r1 - r0)))), from = Array.from({length: r1 - r0}, (_, i) => i);
  return {of, from, to: from.map((i) => i + 1)};
};
// The strongest of some cells: non-finite wins, then the largest change or value. No row and no spike is skipped.
const strongest = ({metric, data, change}, rows, ca, cb) => {
  const columns = metric.first.length;
  let strength = -Infinity, shown = NaN, code = 0, row = rows[0];
  for (const r of rows) {
    const base = change ? metric.start[r] : 0;
    for (let at = r * columns + ca; at < r * columns + cb; at++) {
      const c = data[at];
      if (c === 255) return {shown: NaN, code: 255, row: r};
      if (c > 2 && base !== null) {
        const v = metric.low + (c - 3) * metric.step - base, s = change ? Math.abs(v) : v;
        if (s > strength) { strength = s; shown = v; code = c; row = r; }
      } else if (c < 3 && c > code) { code = c; row = r; }
    }
  }
  return {shown, code, row};
};
const bandRows = (shown, from, to) => (to === from + 1 ? shown[from].rows : shown.slice(from, to).flatMap((node) => node.rows));
const measureCells = (view) => {
  const {across, down} = view, wide = across.from.length, shown = new Float32Array(wide * down.from.length), mark = new Uint8Array(shown.length);
  down.from.forEach((from, i) => {
    const rows = bandRows(view.shown, view.r0 + from, view.r0 + down.to[i]);
    for (let j = 0; j < wide; j++) {
      const cell = strongest(view, rows, across.from[j], across.to[j]);
      shown[i * wide + j] = cell.shown;
      mark[i * wide + j] = cell.code > 2 && cell.code < 255 ? 0 : cell.code === 0 ? 4 : cell.code === 255 ? 3 : cell.code;
    }
  });
  return {shown, mark, wide};
};
const rgba = (hex) => [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
const packed = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
const tableOf = (map) => Uint32Array.from({length: 256}, (_, i) => {
  const at = i / 255 * (map.length - 1), k = Math.min(map.length - 2, Math.floor(at)), [a, b] = [rgba(map[k]), rgba(map[k + 1])];
  return packed(a.map((v, c) => Math.round(v + (b[c] - v) * (at - k))));
});
const paintCells = (canvas, {across, down, cells, zmin, zmax, map, kinds}) => {
  const [width, height] = [across.of.length, down.of.length], image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const table = tableOf(map), marked = [0, ...kinds.map((colour) => packed(rgba(colour))), 0], scale = 255 / (zmax - zmin);
  const colours_ = Uint32Array.from(cells.shown, (v, at) => (cells.mark[at] ? marked[cells.mark[at]] : table[Math.max(0, Math.min(255, Math.round((v - zmin) * scale)))]));
  for (let y = 0; y < height; y++) {
    const row = down.of[y] * cells.wide;
    for (let x = 0; x < width; x++) if (across.of[x] >= 0) pixels[y * width + x] = colours_[row + across.of[x]];
  }
  Object.assign(canvas, {width, height});
  canvas.getContext('2d').putImageData(image, 0, 0);
};
// The rows of a finding as they now stand: the longest runs of neighbours.
const runsOf = (finding, metric, {placeOf, shown}) => {
  const marked = new Uint8Array(shown.length), runs = [];
  for (const [a, b] of finding.rows[metric.key]) for (let row = a; row <= b; row++) marked[placeOf[row]] = 1;
  marked.forEach((on, at) => { if (on && marked[at - 1]) runs.at(-1)[1] = at; else if (on) runs.push([at, at]); });
  return runs.sort((a, b) => b[1] - b[0] - (a[1] - a[0])).slice(0, 12);
};
// Boxes of at least a visible height; those that then touch become one.
const joinedBoxes = (boxes, least) => {
  const joined = [];
  for (const [top, bottom] of [...boxes].sort((a, b) => b[0] - a[0])) {
    const grow = Math.max(0, least - (top - bottom)) / 2, last = joined.at(-1);
    if (last && top + grow >= last[1]) last[1] = Math.min(last[1], bottom - grow); else joined.push([top + grow, bottom - grow]);
  }
  return joined;
};
const outlines = (metric, view, [x0, x1], [r0, r1], room) => {
  const [p0, p1] = [x0, x1].map(place), across = (step) => (place(step) - p0) / (p1 - p0), up = (row) => 1 - (row - r0) / (r1 - r0), clip = (v) => Math.max(0, Math.min(1, v));
  const shapes = [], labels = [], paper = {xref: 'paper', yref: 'paper'}, least = 7 / room.wide;
  findings.forEach((finding, index) => {
    const from = across((finding.first ?? start.steps[0]) - 0.5), to = across((finding.last ?? start.steps[1]) + 0.5);
    const boxes = runsOf(finding, metric, view).map(([a, b]) => [clip(up(a)), clip(up(b + 1))]).filter(([top, bottom]) => top > bottom);
    if (!boxes.length || to <= 0 || from >= 1) return;
    const left = clip(Math.min(from, 1 - least)), right = clip(Math.max(to, left + least)), colour = colours[finding.severity], own = finding.metric === metric.key;
    for (const [top, bottom] of joinedBoxes(boxes, 9 / room.high)) {
      const box = {type: 'rect', ...paper, x0: left, x1: right, y0: clip(bottom), y1: clip(top)};
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

const windowOf = (metric, view) => {
  const [c0, c1] = shownSteps(), rows = view.shown.length, [a, b] = state.y ?? [0, rows];
  const r0 = Math.max(0, Math.min(rows - 1, Math.floor(a)));
  return {x: [c0, c1], r0, r1: Math.min(rows, Math.max(Math.ceil(b), r0 + 1))};
};
const scaleOfView = ({metric, change, cells}) => {
  if (change) return {zmin: -4, zmax: 4, map: colours.change};
  const [least, most] = metric.share ? [0, 1] : extent(cells.shown), zmin = Number.isFinite(least) ? least : metric.low;
  return {zmin, zmax: Number.isFinite(most) ? Math.max(most, zmin + 1) : zmin + 1, map: colours.value};
};
const drawHeatmap = async () => {
  if (!$('heatmap')) return;
  const began = performance.now(), metric = metricOf.get(state.metric), data = await codes(metric.key), change = state.view === 'change' && !metric.share;
  const gutter = gutters(), {clientWidth, clientHeight} = $('heatmap'), size = {high: clientHeight - 46, wide: clientWidth - gutter.l - gutter.r}, dots = Math.min(2, window.devicePixelRatio || 1);
  const view = {metric, data, change, ...arrange(metric, data)};
  Object.assign(view, windowOf(metric, view), {kinds: [colours.absent, colours.zero, colours.bad]});
  Object.assign(view, {across: bandsOf(edgesOf(metric).map(place), ...view.x.map(place), Math.round(size.wide * dots)), down: rowBands(view.r0, view.r1, Math.round(size.high * dots))});
  view.cells = measureCells(view);
  heat = Object.assign(view, scaleOfView(view));
  paintCells($('cells'), heat);
  Object.assign($('cells').style, {left: `${gutter.l}px`, top: '8px', width: `${size.wide}px`, height: `${size.high}px`});
  drawGutter(metric, heat, [heat.r0, heat.r1], size.high, gutter.l);
  await drawAxes(heat, gutter, size);
  tellHeatmap(heat);
  performance.measure('heatmap', {start: began});
};
const drawAxes = ({metric, x, r0, r1, ...view}, gutter, size) => {
  const outline = outlines(metric, view, x, [r0, r1], size), mouse = matchMedia('(pointer: fine)').matches;
  return draw('heatmap', [{type: 'scatter', x: [], y: [], hoverinfo: 'skip'}], layout({...gutter, b: 38}, {
    dragmode: mouse ? 'zoom' : false, hovermode: false, shapes: [cursor(), brushed(), ...outline.shapes], annotations: outline.annotations,
    xaxis: stepAxis('heatmap', gutter.l + gutter.r, {range: x, fixedrange: false, showgrid: false, ...stepTitle()}),
    yaxis: {range: [r1 - 0.5, r0 - 0.5], fixedrange: false, showgrid: false, showticklabels: false},
  }));
};
const tellHeatmap = ({metric, change, cells, kinds, map, zmin, zmax, shown}) => {
  const seen = new Set(cells.mark), rows = metric.layers.length, mouse = matchMedia('(pointer: fine)').matches;
  const ends = change ? (narrow() ? '÷10⁴ … ×10⁴' : '10⁴× smaller … same … 10⁴× larger') : metric.share ? '0% … 100%' : `${short(10 ** zmin)} … ${short(10 ** zmax)}`;
  legend('heatmap', [[`linear-gradient(90deg, ${map.join(',')})`, ends, 'ramp'], ...['no gradient (None)', 'exactly zero', 'non-finite'].map((word, i) => [kinds[i], word]).filter((_, i) => seen.has(i + 1))]);
  const how = change ? ' Colour: change from the layer’s own start, the median of 8 to 18% of the run.' : '', apart = metric.breaks.length > 1 ? ' Sampled: a cell reaches half-way to the next captured step.' : '', folded = shown.length < rows ? ' A folded module shows the strongest of its layers.' : '';
  numbers($('heatmap-note'), `${metric.note}${apart}${how}${folded}`);
  $('heatmap-note').append(make('span', ` Click a cell for its layer${mouse ? '; drag to zoom, double-click to reset; drag with Shift to mark steps in every plot' : ''}.`, {class: 'how'}));
  describe('heatmap', `${metric.title}, ${change ? 'change from own start' : 'value'}, ${whole(rows)} layers ${{depth: 'from input at the top to output', kind: 'by kind', change: 'the most changed first'}[state.rows]}, ${steps(...start.steps)}${logarithmic() ? ' on a logarithmic axis' : ''}. ${findings.slice(0, 8).map((f) => f.title).join('. ')}`);
  $('reset').hidden = !(state.x || state.y);
  $('scale').setAttribute('aria-pressed', String(logarithmic()));
  $('shown').textContent = state.x ? steps(Math.max(start.steps[0], Math.ceil(state.x[0])), Math.floor(state.x[1])) : '';
  for (const button of document.querySelectorAll('[data-view]')) {
    button.setAttribute('aria-pressed', String((button.dataset.view === 'change') === change));
    button.disabled = metric.share && button.dataset.view === 'change';
  }
  Object.assign($('metric'), {value: metric.key});
  Object.assign($('rows'), {value: state.rows});
  $('fold').hidden = !heat.nodes.some((node) => node.children.length);
  refreshTable('heatmap');
};
const cellAt = ({clientX, clientY}) => {
  const box = $('cells').getBoundingClientRect(), at = (bands, share) => bands.of[Math.floor(share * bands.of.length)] ?? -1;
  const {metric, across, down, shown, r0} = heat, i = at(down, (clientY - box.top) / box.height), j = at(across, (clientX - box.left) / box.width);
  if (i < 0 || j < 0) return null;
  const nodes = shown.slice(r0 + down.from[i], r0 + down.to[i]), {row, code} = strongest(heat, nodes.flatMap((node) => node.rows), across.from[j], across.to[j]);
  const base = metric.start[row], node = nodes.find(({rows}) => rows.includes(row)), layer = metric.layers[row];
  const change = !metric.share && code > 2 && code < 255 && base !== null ? `, ${short(10 ** (level(metric, code) - base))}× its start` : '';
  const inside = node.rows.length > 1 ? [`strongest of ${whole(node.rows.length)} layers in ${ellipsis(node.label, 60)}`] : [];
  return {layer, text: [ellipsis(layers[layer].name, 90), ...inside, steps(metric.first[across.from[j]], metric.last[across.to[j] - 1]), `${metric.title} ${cellText(metric, code)}${change}`].join('\n')};
};
const overCells = ({clientX, clientY}) => { const box = $('cells').getBoundingClientRect(); return clientX > box.left && clientX < box.right && clientY > box.top && clientY < box.bottom; };
const showTip = (event) => {
  const tip = $('tip'), cell = overCells(event) ? cellAt(event) : null;
  tip.hidden = !cell;
  if (!cell) return;
  tip.textContent = cell.text;
  const {clientX, clientY} = event, box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(window.innerWidth - box.width - 6, clientX + 14))}px`;
  tip.style.top = `${clientY + 18 + box.height > window.innerHeight ? clientY - box.height - 12 : clientY + 18}px`;
};
const wireHeatmap = () => {
  const plot = $('heatmap');
  // While zoomed a click waits for the second one that would undo the zoom.
  let pressed = null, waiting;
  const zoomed = () => Boolean(state.x || state.y);
  plot.addEventListener('pointermove', showTip);
  plot.addEventListener('pointerleave', () => { $('tip').hidden = true; });
  plot.addEventListener('pointerdown', (event) => { pressed = !event.shiftKey && !event.button && overCells(event) ? event : null; }, true);
  document.addEventListener('pointerup', (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 4, cell = still ? cellAt(event) : null;
    pressed = null;
    clearTimeout(waiting);
    if (cell && zoomed()) waiting = setTimeout(() => openLayer(cell.layer), 400); else if (cell) openLayer(cell.layer);
  }, true);
  document.addEventListener('mouseup', (event) => { if (event.detail === 2 && zoomed() && overCells(event)) { clearTimeout(waiting); resetZoom(); } }, true);
  plot.on('plotly_clickannotation', (event) => openFinding(Number(event.annotation.name)));
  plot.on('plotly_relayout', (event) => {
    const range = (name) => [event[`${name}.range[0]`], event[`${name}.range[1]`]].sort((a, b) => a - b);
    const [x, y] = [range('xaxis'), range('yaxis')], [low, high] = fullRange();
    if (x[0] !== undefined) state.x = [Math.max(low, stepOf(x[0])), Math.min(high, stepOf(x[1]))];
    if (y[0] !== undefined) state.y = [Math.max(0, Math.floor(y[0] + 0.5)), Math.min(heat.shown.length, Math.ceil(y[1] + 0.5))];
    if (x[0] !== undefined || y[0] !== undefined) redrawSteps();
  });
};
const resetZoom = () => { state.x = state.y = null; redrawSteps(); };
const setMetric = (key, view = state.view) => { Object.assign(state, {metric: key, view, y: key === state.metric ? state.y : null}); drawHeatmap().then(remember); };
tables.heatmap = () => {
  const {metric, data, shown} = heat, columns = metric.first.length, at = [...new Set([0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (columns - 1))))];
  const strongestAt = (rows, c) => rows.reduce((code, row) => Math.max(code, data[row * columns + c]), 0);
  return {caption: metric.title, head: ['layer', ...at.map((c) => steps(metric.first[c], metric.last[c]))], rows: shown.map(({label, rows}) => [rows.length > 1 ? `${label} (${rows.length} layers)` : label, ...at.map((c) => cellText(metric, strongestAt(rows, c)))])};
};
