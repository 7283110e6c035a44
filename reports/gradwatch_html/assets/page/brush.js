// Steps marked in one plot are marked in all; a zoom over steps is shared by all as well.

const STEP_PLOTS = ['heatmap', 'lanes', ...CHARTS];
const stepPlots = () => STEP_PLOTS.map($).filter((plot) => plot?.layout?.shapes?.length && plot.offsetParent);
const brushed = () => ({type: 'rect', xref: 'x', yref: 'paper', y0: 0, y1: 1, ...brushEnds(), fillcolor: faint(colours.second, 0.16), line: {color: colours.second, width: 1}});
const brushEnds = () => ({x0: place(state.brush?.[0] ?? start.steps[0]), x1: place(state.brush?.[1] ?? start.steps[0]), visible: state.brush !== null});
const setBrush = (range) => {
  state.brush = range;
  const {x0, x1, visible} = brushEnds();
  for (const plot of stepPlots()) window.Plotly.relayout(plot, {'shapes[1].x0': x0, 'shapes[1].x1': x1, 'shapes[1].visible': visible});
  $('brush').hidden = range === null;
  if (range) $('brush-text').textContent = `${steps(Math.ceil(range[0]), Math.floor(range[1]))} marked`;
};
// Everything over steps, when the shown steps have changed.
const redrawSteps = async () => {
  await drawHeatmap();
  remember();
  await frame();
  drawLanes();
  await frame();
  await drawLayer();
};
const frame = () => new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });
const zoomToBrush = () => { Object.assign(state, {x: state.brush}); setBrush(null); redrawSteps(); };
const stepAt = (plot, clientX) => {
  const {_offset: left, _length: wide} = plot._fullLayout.xaxis, [low, high] = plot._fullLayout.xaxis.range, share = (clientX - plot.getBoundingClientRect().left - left) / wide;
  return stepOf(low + Math.max(0, Math.min(1, share)) * (high - low));
};
// Zoom by key and by button: around the step of the slider where that is shown, else around the middle.
const LEAST_STEPS = 4;
const ZOOMS = {in: 0.5, out: 2}, PANS = {left: -0.25, right: 0.25};
const zoomBy = (how) => {
  const [low, high] = fullRange().map(place), [a, b] = shownSteps().map(place), at = currentStep() === null ? NaN : place(currentStep()), middle_ = at > a && at < b ? at : (a + b) / 2;
  const wide = Math.min(high - low, (b - a) * (ZOOMS[how] ?? 1)), from = Math.max(low, Math.min(high - wide, how in PANS ? a + PANS[how] * wide : middle_ - wide / 2)), range = [from, from + wide].map(stepOf);
  if (how === 'in' && range[1] - range[0] < LEAST_STEPS) return;
  state.x = wide > 0.999 * (high - low) ? null : range;
  redrawSteps();
};
const setScale = (scale) => { state.scale = scale; redrawSteps(); };
const wireBrush = () => {
  let drag = null;
  document.addEventListener('mousedown', (event) => { if (drag) { event.preventDefault(); event.stopPropagation(); } }, true);
  document.addEventListener('pointerdown', (event) => {
    const plot = event.shiftKey && !event.button ? event.target.closest?.('.canvas') : null;
    if (!plot || !stepPlots().includes(plot)) return;
    event.preventDefault();
    event.stopPropagation();
    drag = {plot, from: stepAt(plot, event.clientX)};
  }, true);
  document.addEventListener('pointermove', (event) => {
    if (!drag) return;
    event.stopPropagation();
    const to = stepAt(drag.plot, event.clientX);
    drag.to = to;
    requestAnimationFrame(() => { if (drag) setBrush([Math.min(drag.from, to), Math.max(drag.from, to)]); });
  }, true);
  document.addEventListener('pointerup', () => {
    if (!drag) return;
    const {from, to} = drag;
    drag = null;
    setBrush(to === undefined || Math.abs(place(to) - place(from)) < (place(fullRange()[1]) - place(fullRange()[0])) / 1000 ? null : [Math.min(from, to), Math.max(from, to)]);
    remember();
  }, true);
  $('brush-zoom').onclick = zoomToBrush;
  $('brush-clear').onclick = () => { setBrush(null); remember(); };
};
