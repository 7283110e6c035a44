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
