// Moving about: find, keys, links.

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
  drawLanes();
  drawLayer();
  $('layers').scrollIntoView({block: 'start'});
};
const nearest = (step) => meta.flow.steps.reduce((best, s, i) => (Math.abs(s - step) < Math.abs(meta.flow.steps[best] - step) ? i : best), 0);
const MOST_FOLDS = 40;
const remember = () => {
  const link = new URLSearchParams({l: layers[state.layer]?.name ?? '', i: state.layer});
  if (meta.flow) link.set('step', currentStep());
  if (state.metric) { link.set('metric', state.metric); link.set('view', state.view); }
  if (logarithmic()) link.set('scale', 'log');
  if (state.rows !== 'depth') link.set('rows', state.rows);
  if (state.folds && state.folds.size <= MOST_FOLDS) for (const key of state.folds.size ? state.folds : ['']) link.append('fold', key);
  if (state.brush) link.set('mark', state.brush.map(Math.round).join('-'));
  if (state.x) link.set('x', state.x.map(Math.round).join('-'));
  try { history.replaceState(null, '', `#${link}`); } catch { /* a page inside another page has no address of its own */ }
};
const spanOf = (text) => { const span = /^(\d+)-(\d+)$/.exec(text ?? '')?.slice(1).map(Number); return span && span[0] < span[1] ? span : null; };
const readLink = () => {
  const link = new URLSearchParams(location.hash.slice(1)), named = layers.findIndex((layer) => layer.name === link.get('l')), x = spanOf(link.get('x'));
  if (metricOf.has(link.get('metric'))) state.metric = link.get('metric');
  if (['change', 'value'].includes(link.get('view'))) state.view = link.get('view');
  Object.assign(state, {x, scale: link.get('scale') === 'log' ? 'log' : 'linear'});
  state.brush = spanOf(link.get('mark'));
  state.rows = Object.hasOwn(ORDERS, link.get('rows')) ? link.get('rows') : 'depth';
  state.folds = link.has('fold') ? new Set(link.getAll('fold').filter(Boolean)) : null;
  if (link.has('step') && meta.flow && Number.isFinite(Number(link.get('step')))) state.step = nearest(Number(link.get('step')));
  return named >= 0 ? named : link.has('i') && layers[link.get('i')] ? Number(link.get('i')) : null;
};
