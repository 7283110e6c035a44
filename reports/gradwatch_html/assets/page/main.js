// Keys, clicks, and the beginning.

const setTheme = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; readTheme(); return drawAll(); };
const turn = (by) => { const box = $('layer')?.getBoundingClientRect(); openLayer(state.layer + by, {scroll: box?.top > window.innerHeight * 0.8 || box?.bottom < 0}); };
// On the heatmap the arrows move what is shown of the steps; everywhere else they move the step.
const arrow = (event, by) => (event.target.closest?.('#heatmap, #zoom') ? zoomBy(by < 0 ? 'left' : 'right') : setStep(state.step + by * (event.shiftKey ? 10 : 1)));
const KEYS = {
  '/': () => $('find').focus(), j: () => turn(1), k: () => turn(-1), d: () => setTheme(dark() ? 'light' : 'dark'), '?': () => $('keys').showModal(),
  ArrowLeft: (event) => arrow(event, -1), ArrowRight: (event) => arrow(event, 1),
  '+': () => $('heatmap') && zoomBy('in'), '=': () => $('heatmap') && zoomBy('in'), '-': () => $('heatmap') && zoomBy('out'), 0: () => (state.x || state.y) && resetZoom(),
  l: () => $('heatmap') && setScale(logarithmic() ? 'linear' : 'log'),
  r: () => $('heatmap') && setRows(Object.keys(ORDERS)[(Object.keys(ORDERS).indexOf(state.rows) + 1) % 3]),
  Escape: () => { if (state.brush) { setBrush(null); remember(); } else if (state.x || state.y) resetZoom(); },
  m: () => $('heatmap') && setMetric(metrics[(metrics.findIndex((m) => m.key === state.metric) + 1) % metrics.length].key),
  v: () => $('heatmap') && setMetric(state.metric, state.view === 'change' ? 'value' : 'change'),
};
const CLICKS = {
  layer: (element) => openLayer(Number(element.dataset.layer)), finding: (element) => openFinding(Number(element.dataset.finding)),
  zoom: (element) => zoomBy(element.dataset.zoom), view: (element) => setMetric(state.metric, element.dataset.view), fold: (element) => fold(element.dataset.fold), show: (element) => showFinding(findings[element.dataset.show]), table: toggleTable,
};
const wire = () => {
  Object.assign($('find'), {oninput: search, onkeydown: findKey, onblur: () => listHits(false)});
  $('theme').onclick = KEYS.d;
  if ($('heatmap')) { $('metric').append(...metrics.map(({key, title}) => make('option', title, {value: key}))); $('metric').onchange = () => setMetric($('metric').value); $('reset').onclick = resetZoom; $('rows').onchange = () => setRows($('rows').value); $('fold').onclick = foldAll; $('scale').onclick = KEYS.l; }
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
  window.addEventListener('hashchange', () => { const layer = readLink(); if (layer !== null) openLayer(layer, {write: false}); drawAll(); });
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
  if (document.querySelector('.canvas')) { wireBrush(); setBrush(state.brush); }
  root.dataset.ready = 'true';
};
const fail = (sentence) => { $('trouble').hidden = false; $('trouble').textContent = `The plots are missing: ${sentence}`; for (const id of ['layers', 'time', 'depth', 'layer']) if ($(id)) $(id).hidden = true; };
if ('DecompressionStream' in window) main().catch((error) => { fail(error.message); throw error; });
else fail('this browser cannot unpack compressed data (it needs Chrome 80, Safari 16.4, Firefox 113 or newer).');
