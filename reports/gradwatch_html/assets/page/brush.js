// Steps marked in one plot are marked in all; a zoom over steps is shared by all as well.

const STEP_PLOTS = ['heatmap', 'lanes', ...CHARTS];
const stepPlots = () => STEP_PLOTS.map($).filter((plot) => plot?.layout?.shapes?.length && plot.offsetParent);
const brushed = () => ({type: 'rect', xref: 'x', yref: 'paper', y0: 0, y1: 1, ...brushEnds(), fillcolor: faint(colours.second, 0.16), line: {color: colours.second, width: 1}});
const brushEnds = () => ({x0: state.brush?.[0] ?? 0, x1: state.brush?.[1] ?? 0, visible: state.brush !== null});
const setBrush = (range) => {
  state.brush = range;
  const {x0, x1, visible} = brushEnds();
  for (const plot of stepPlots()) window.Plotly.relayout(plot, {'shapes[1].x0': x0, 'shapes[1].x1': x1, 'shapes[1].visible': visible});
  $('brush').hidden = range === null;
  if (range) $('brush-text').textContent = `${steps(Math.ceil(x0), Math.floor(x1))} marked`;
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
  return low + Math.max(0, Math.min(1, share)) * (high - low);
};
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
    setBrush(to === undefined || Math.abs(to - from) < (fullRange()[1] - fullRange()[0]) / 1000 ? null : [Math.min(from, to), Math.max(from, to)]);
    remember();
  }, true);
  $('brush-zoom').onclick = zoomToBrush;
  $('brush-clear').onclick = () => { setBrush(null); remember(); };
};
