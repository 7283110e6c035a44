// The compare page: ratios of common layers, gradient flow and loss of every run laid over one another.

const {runs, losses} = meta;
const BAD_IN_FIRST = 4;
const named = ({label, name}) => `${label} ${ellipsis(name, 40)}`;
const both = ([a, b]) => (a === b ? a : `${a} → ${b}`);
const times = (log) => (Math.abs(log) < 0.005 ? 'the same' : `${short(10 ** log)} times`);
// Where a name is too long for its place, leaves out the modules that all names begin with: what tells them apart must be seen.
const tellApart = (names, characters) => {
  const split = names.map((name) => name.split('.')), shared = split[0].findIndex((part, i) => split.some((parts) => parts[i] !== part || i === parts.length - 1));
  const fits = names.every((name) => name.length <= characters);
  return (fits || names.length < 2 || shared < 1 ? names : split.map((parts) => `…${parts.slice(shared).join('.')}`)).map((name) => escaped(ellipsis(name, characters)));
};
const runLine = ({colour, dash}) => ({color: colours[colour], dash, width: 2});
const strokes = () => {
  for (const path of document.querySelectorAll('[data-line]')) {
    path.style.stroke = `var(--${path.dataset.line})`;
    path.style.strokeDasharray = {solid: 'none', dash: '8 5', dot: '2 4', dashdot: '8 4 2 4', longdash: '12 5', longdashdot: '12 4 2 4'}[path.dataset.dash];
  }
};

// The ratio.

let grid = {};
const strongest = (metric, data, [r0, r1], [c0, c1]) => {
  const columns = metric.first.length;
  let best = {code: 0, row: r0, strength: -1};
  for (let row = r0; row < r1; row++) {
    for (let at = row * columns + c0; at < row * columns + c1; at++) {
      const code = data[at], strength = code >= BAD_IN_FIRST && code < 7 ? 1000 : code > 7 ? Math.abs(code - metric.same) : code ? 0.5 : -1;
      if (strength > best.strength) best = {code, row, strength};
    }
  }
  return best;
};
const ratioOf = (metric, code) => (code > 7 ? (code - metric.same) / metric.decade : null);
const ratioText = (metric, code) => (code > 7 ? times(ratioOf(metric, code)) : metric.words[code]);
const gutter = () => (narrow() ? {l: 118, r: 14, b: 38} : {l: 188, r: 18, b: 38});
const rowNames = (names, high, characters) => {
  const stride = Math.max(1, Math.ceil(names.length / Math.min(14, Math.floor(high / 22)))), rows = names.map((_, i) => i).filter((i) => i % stride === 0);
  const labels = tellApart(names.map((name) => name[1]), characters);
  return {tickmode: 'array', tickvals: rows, ticktext: rows.map((i) => labels[i])};
};
const drawRatio = async () => {
  if (!$('ratio')) return;
  const metric = metricOf.get(state.metric), data = await codes(metric.key), edges = edgesOf(metric), room = gutter();
  const rows = metric.names.length, columns = metric.first.length, high = $('ratio').clientHeight - 46, nr = Math.min(rows, Math.max(1, Math.floor(high / 2)));
  const row = (i) => Math.floor(i * rows / nr), cells = Array.from({length: nr}, (_, i) => Array.from({length: columns}, (_, j) => strongest(metric, data, [row(i), row(i + 1)], [j, j + 1])));
  grid = {metric, data, cells};
  const z = cells.map((line) => line.map(({code}) => ratioOf(metric, code))), kinds = [colours.zero, colours.bad], special = cells.map((line) => line.map(({code}) => (code > 7 || !code ? null : code < BAD_IN_FIRST ? 0 : 1)));
  const base = {type: 'heatmap', hoverinfo: 'none', showscale: false, x: edges, y: Array.from({length: nr + 1}, (_, i) => row(i) - 0.5)};
  await draw('ratio', [
    {...base, z, zmin: -metric.range, zmax: metric.range, colorscale: scaleOf(colours.change)},
    {...base, z: special, zmin: -0.5, zmax: 1.5, colorscale: kinds.flatMap((colour, i) => [[i / 2, colour], [(i + 1) / 2, colour]])},
  ], layout(room, {
    shapes: [cursor()],
    xaxis: stepAxis('ratio', room.l + room.r, {range: [edges[0], edges.at(-1)], showgrid: false, ...stepTitle()}),
    yaxis: {range: [rows - 0.5, -0.5], showgrid: false, ...rowNames(metric.names, high, Math.floor((room.l - 10) / 6.4))},
  }));
  const seen = [...new Set(cells.flatMap((line) => line.map(({code}) => code)))].filter((code) => code > 1 && code < 7).sort(), most = metric.range < 1 ? short(10 ** metric.range) : power(10, metric.range), [first, other] = metric.runs;
  const ends = narrow() ? `÷${most} … ×${most}` : `${most} times larger in ${first} … the same … ${most} times larger in ${other}`;
  legend('ratio', [[`linear-gradient(90deg, ${colours.change.join(',')})`, ends, 'ramp'], ...seen.map((code) => [kinds[code < BAD_IN_FIRST ? 0 : 1], metric.words[code]])]);
  $('ratio-note').textContent = `${metric.title}: largest of each bucket of common steps; layers by their name in ${other}. Blank where it was not captured in both.`;
  describe('ratio', `${metric.title}, ${rows} common layers from input at the top to output, ${steps(metric.first[0], metric.last.at(-1))}`);
  $('metric').value = metric.key;
  refreshTable('ratio');
};
tables.ratio = () => {
  const {metric, data} = grid, columns = metric.first.length, at = [...new Set([0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (columns - 1))))];
  return {caption: metric.title, head: ['layer', ...at.map((c) => steps(metric.first[c], metric.last[c]))], rows: metric.names.map((name, row) => [both(name), ...at.map((c) => ratioText(metric, data[row * columns + c]))])};
};
const wireRatio = () => {
  const tip = $('tip');
  $('ratio').on('plotly_hover', ({points, event}) => {
    const [i, j] = points[0].pointNumber, {metric, cells} = grid, {code, row} = cells[i][j];
    tip.textContent = [ellipsis(both(metric.names[row]), 120), steps(metric.first[j], metric.last[j]), `${metric.title}: ${ratioText(metric, code)}`].join('\n');
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(window.innerWidth - box.width - 6, event.clientX + 14))}px`;
    tip.style.top = `${event.clientY + 18 + box.height > window.innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
  });
  $('ratio').on('plotly_unhover', () => { tip.hidden = true; });
};

// Gradient flow by depth, at a step that all runs captured.

let flow;
const currentStep = () => (meta.flow ? meta.flow.steps[state.step] : null);
const readFlow = async () => {
  if (!meta.flow) return;
  const data = new Float32Array(await inflate('flow')), rows = meta.flow.names.length, columns = meta.flow.steps.length;
  const at = (run, step) => Array.from(data.subarray((run * columns + step) * rows, (run * columns + step + 1) * rows));
  flow = {at, extent: extent(Array.from(data).filter((v) => v > 0))};
  $('step').max = columns - 1;
  $('step').parentElement.hidden = columns < 2;
};
const rowName = (names) => names.join(' … ');
const drawFlow = () => {
  if (!$('flow')) return;
  const {names, steps: all} = meta.flow, x = names.map((_, i) => i), y = logAxis(flow.extent), wide = $('flow').clientWidth - 70;
  const most = Math.max(2, Math.min(12, Math.floor(wide / 120))), stride = Math.ceil(x.length / most), room = Math.floor(wide / Math.min(x.length, most) / 7), ticks = x.filter((i) => i % stride === 0), labels = tellApart(names.map((name) => name[0]), room);
  const curves = runs.map((_, run) => flow.at(run, state.step)), texts = names.map((name) => escaped(ellipsis(rowName(name), 70)));
  const special = (kind, test) => marks(x.filter((i) => curves.some((line) => test(line[i]))), y, kind, {hovertemplate: undefined, hoverinfo: 'skip'});
  const line = (run, i) => ({
    type: 'scatter', mode: x.length > 60 ? 'lines' : 'lines+markers', x, y: curves[i].map((v) => (Number.isFinite(v) && v > 0 ? v : null)), connectgaps: true, line: runLine(run), marker: {size: 5, color: colours[run.colour]},
    text: x.map((k) => `${texts[k]}<br>${escaped(named(run))}: ${short(curves[i][k])}`), hovertemplate: '%{text}<extra></extra>',
  });
  draw('flow', [...runs.map(line), special('bad', (v) => v === Infinity), special('zero', (v) => v === 0)], layout({b: 46, r: 16}, {
    xaxis: {range: [-0.5, x.length - 0.5], showgrid: false, tickmode: 'array', tickvals: ticks, ticktext: ticks.map((i) => labels[i]), tickangle: 0, ticklabelstandoff: 8, title: {text: 'input → output', standoff: 6}}, yaxis: y,
  }));
  const step = whole(all[state.step]);
  [$('step').value, $('step-text').textContent] = [state.step, `step ${step}`];
  $('step').setAttribute('aria-valuetext', `step ${step}`);
  const bad = curves.some((line_) => line_.includes(Infinity)), zero = curves.some((line_) => line_.includes(0));
  legend('flow', [...runs.map((run) => [colours[run.colour], named(run), `stroke ${run.dash}`]), ...(bad ? [[colours.bad, 'non-finite']] : []), ...(zero ? [[colours.soft, 'exactly zero', 'cross']] : [])]);
  $('flow-note').textContent = `Median gradient rms of each layer’s parameters at step ${step}. Layers of all runs in one order; a line passes over layers that its run does not have.`;
  describe('flow', `Gradient rms by depth at step ${step}: ${runs.map((run, i) => `${named(run)} ${extent(curves[i].filter((v) => v > 0)).map(short).join(' to ')}`).join('; ')}`);
  refreshTable('flow');
};
tables.flow = () => ({caption: `Gradient rms at step ${whole(currentStep())}`, head: ['layer', ...runs.map(named)], rows: meta.flow.names.map((name, i) => [rowName(name), ...runs.map((_, run) => short(flow.at(run, state.step)[i]))])});
const setStep = (index) => {
  if (!meta.flow) return;
  state.step = Math.max(0, Math.min(meta.flow.steps.length - 1, index));
  if (!ready) return;
  drawFlow();
  for (const id of ['ratio', 'loss']) if ($(id)?.layout?.shapes?.length) window.Plotly.relayout($(id), {'shapes[0].x0': currentStep(), 'shapes[0].x1': currentStep()});
};

// The loss.

const drawLoss = () => {
  if (!$('loss')) return;
  const all = losses.flatMap((loss) => (loss ? [...loss.low, ...loss.high] : [])), [low, high] = extent(all), room = (high - low || Math.abs(high) || 1) * 0.08;
  const y = low > 0 && high / low > 100 ? logAxis(all) : roundAxis(Number.isFinite(low) ? [low - room, high + room] : [0, 1], 6);
  const data = losses.flatMap((loss, i) => (loss ? curve({time: loss, ...loss, name: named(runs[i])}, colours[runs[i].colour]).map((trace) => (trace.line.width ? {...trace, line: runLine(runs[i])} : trace)) : []));
  const bad = losses.flatMap((loss, i) => (loss?.bad.length ? [marksAt(loss.bad, y, 'bad', {word: `${escaped(named(runs[i]))}: not finite`})] : []));
  draw('loss', [...data, ...bad], layout({b: 38}, {shapes: [cursor()], xaxis: stepAxis('loss', 68, stepTitle()), yaxis: y}));
  const lacking = runs.filter((_, i) => !losses[i]);
  legend('loss', [...runs.filter((_, i) => losses[i]).map((run) => [colours[run.colour], named(run), `stroke ${run.dash}`]), ...(bad.length ? [[colours.bad, 'non-finite']] : [])]);
  $('loss-note').textContent = `${losses.some((loss) => loss?.banded) ? 'Mean and range of neighbouring steps. ' : ''}${lacking.length ? `No loss logged in ${lacking.map(named).join(', ')}.` : ''}`;
  describe('loss', `Loss: ${runs.filter((_, i) => losses[i]?.y.length).map((run) => `${named(run)} ${[losses[runs.indexOf(run)].y[0], losses[runs.indexOf(run)].y.at(-1)].map(short).join(' to ')}`).join('; ')}`);
  refreshTable('loss');
};
tables.loss = () => {
  const at = losses.map((loss) => new Map(loss ? loss.first.map((step, i) => [step, loss.y[i]]) : [])), first = [...new Set(at.flatMap((map) => [...map.keys()]))].sort((a, b) => a - b);
  return {caption: 'Loss', head: ['step', ...runs.map(named)], rows: first.map((step) => [whole(step), ...at.map((map) => (map.has(step) ? short(map.get(step)) : ''))])};
};

// Keys, and the beginning.

const drawAll = async () => { if (ready) { await drawRatio(); drawFlow(); drawLoss(); } };
const setTheme = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; readTheme(); return drawAll(); };
const setMetric = (key) => { state.metric = key; return drawRatio(); };
const KEYS = {
  d: () => setTheme(dark() ? 'light' : 'dark'), m: () => $('ratio') && setMetric(metrics[(metrics.findIndex((m) => m.key === state.metric) + 1) % metrics.length].key),
  ArrowLeft: () => setStep(state.step - 1), ArrowRight: () => setStep(state.step + 1),
};
const wire = () => {
  $('theme').onclick = KEYS.d;
  if ($('ratio')) { $('metric').append(...metrics.map(({key, title}) => make('option', title, {value: key}))); $('metric').onchange = () => setMetric($('metric').value); }
  if ($('flow')) $('step').oninput = () => setStep(Number($('step').value));
  for (const button of document.querySelectorAll('[data-table]')) button.onclick = () => toggleTable(button);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key](event);
  });
  let timer;
  window.addEventListener('resize', () => { clearTimeout(timer); timer = setTimeout(drawAll, 150); });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTheme(root.dataset.theme));
  const before = {};
  window.addEventListener('beforeprint', () => { Object.assign(before, {theme: root.dataset.theme, folded: [...document.querySelectorAll('details:not([open])')]}); before.folded.forEach((d) => { d.open = true; }); root.classList.add('printing'); setTheme('light'); });
  window.addEventListener('afterprint', () => { before.folded.forEach((d) => { d.open = false; }); root.classList.remove('printing'); setTheme(before.theme); });
};
const main = async () => {
  if (meta.flow) state.step = meta.flow.steps.length - 1;
  readTheme();
  strokes();
  wire();
  document.head.append(make('script', new TextDecoder().decode(await inflate('plotly'))));
  await readFlow();
  ready = true;
  await drawAll();
  if ($('ratio')) wireRatio();
  root.dataset.ready = 'true';
};
const fail = (sentence) => { $('trouble').hidden = false; $('trouble').textContent = `The plots are missing: ${sentence}`; for (const id of ['layers', 'depth', 'losses']) if ($(id)) $(id).hidden = true; };
if ('DecompressionStream' in window) main().catch((error) => { fail(error.message); throw error; });
else fail('this browser cannot unpack compressed data (it needs Chrome 80, Safari 16.4, Firefox 113 or newer).');
