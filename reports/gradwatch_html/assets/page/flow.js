// Gradient flow by depth.

let flow;
const currentStep = () => (meta.flow ? meta.flow.steps[state.step] : null);
const slopeText = (slope, per) => (Math.abs(slope) < 0.005 ? 'flat' : `${slope > 0 ? '+' : '−'}${Math.abs(slope).toFixed(2)} decades per ${per}`);
const readFlow = async () => {
  if (!meta.flow) return;
  const data = new Float32Array(await inflate('flow')), groups = meta.flow.names.length, columns = meta.flow.steps.length;
  const at = (part, step) => Array.from(data.subarray((part * columns + step) * groups, (part * columns + step + 1) * groups));
  flow = {at, extent: extent(Array.from(data).filter((v) => v > 0))};
  $('step').max = columns - 1;
  $('step').parentElement.hidden = columns < 2;
};
// Straight lines through the middle of the medians: what is fitted, what weights of this size hand back, what is healthy.
const straight = (median, tilts, line) => {
  const at = median.flatMap((v, i) => (Number.isFinite(v) && v > 0 ? [i] : [])), mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const middle_ = mean(at), height = mean(at.map((i) => Math.log10(median[i]))), ends = [at[0], at.at(-1)];
  return tilts.map(([slope, colour, dash]) => ({...line, x: ends, y: ends.map((i) => 10 ** (height + slope * (i - middle_))), line: {color: colour, width: 1.4, dash}}));
};
const trends = () => {
  const {slopes, expected, grouped} = meta.flow, [slope, theory] = [slopes, expected].map((list) => list[state.step]), per = grouped ? 'group of layers' : 'layer';
  if (slope === null) return [];
  const known = theory === null ? [] : [[theory, colours.ink, 'longdash', `theory for these weights: ${slopeText(theory, per)}`, 'dashed']];
  return [[slope, colours.second, 'dash', `fitted: ${slopeText(slope, per)}`, 'dashed'], ...known, [0, colours.passed, 'longdashdot', 'healthy: flat', 'dashed']];
};
// The end of a name that has no room: what tells it from its neighbours.
const tail = (name, room) => {
  const parts = name.split('.');
  while (parts.length > 1 && parts.join('.').length + 1 > room) parts.shift();
  const rest = parts.join('.');
  return name.length <= room ? name : ellipsis(rest === name ? name : `…${rest}`, room);
};
const drawFlow = () => {
  if (!$('flow')) return;
  const {steps: all, names: groups, grouped} = meta.flow, [median, low, high] = [0, 1, 2].map((part) => flow.at(part, state.step)), ghost = flow.at(0, 0), x = median.map((_, i) => i);
  const positive = (list) => list.map((v) => (Number.isFinite(v) && v > 0 ? v : null));
  const wide = $('flow').clientWidth - 70, longest = Math.min(narrow() ? 16 : 30, Math.max(...groups.map((name) => name.length))), most = Math.max(2, Math.min(12, Math.floor(wide / (longest * 6.8 + 14)))), stride = Math.ceil(x.length / most), room = Math.min(40, Math.floor(wide / Math.ceil(x.length / stride) / 6.8));
  const y = logAxis(flow.extent), ticks = x.filter((i) => i % stride === 0), zeros = x.filter((i) => median[i] === 0), bad = x.filter((i) => median[i] === Infinity), lines = trends();
  const names = groups.map((name) => escaped(ellipsis(name, 70))), line = {type: 'scatter', mode: 'lines', x, hoverinfo: 'skip'}, hover = (list, word) => ({text: list.map((i) => `${names[i]}: ${word}`), hovertemplate: '%{text}<extra></extra>'});
  draw('flow', [
    band(x, positive(low), positive(high), faint(colours.accent, 0.2)),
    {...line, y: state.step ? positive(ghost) : [], line: {color: colours.soft, width: 1.3, dash: 'dot'}},
    {type: 'scatter', mode: x.length > 60 ? 'lines' : 'lines+markers', x, y: positive(median), text: x.map((i) => `${names[i]}<br>median ${short(median[i])}, range ${short(low[i])} to ${short(high[i])}`), hovertemplate: '%{text}<extra></extra>', line: {color: colours.accent, width: 2}, marker: {size: 5}},
    ...straight(median, lines, line),
    marks(bad, y, 'bad', hover(bad, 'non-finite')), marks(zeros, y, 'zero', hover(zeros, 'exactly zero')),
  ], layout({b: 46, r: 16}, {
    xaxis: {range: [-0.5, x.length - 0.5], showgrid: false, tickmode: 'array', tickvals: ticks, ticktext: ticks.map((i) => escaped(tail(groups[i], room))), tickangle: 0, ticklabelstandoff: 8, title: {text: 'input → output', standoff: 6}}, yaxis: y,
  }));
  const step = whole(all[state.step]), slope = meta.flow.slopes[state.step];
  [$('step').value, $('step-text').textContent] = [state.step, `step ${step}`];
  $('slope').textContent = slope === null ? '' : Math.abs(slope) < 0.005 ? 'flat from input to output' : `${Math.abs(slope).toFixed(2)} decades ${slope > 0 ? 'more' : 'less'} per ${grouped ? 'group of layers' : 'layer'} towards the output`;
  legend('flow', [[colours.accent, `median of the ${grouped ? 'group' : 'layer'}’s parameters`, 'stroke'], [faint(colours.accent, 0.3), 'range'], ...lines.map(([, colour, , text, kind]) => [colour, text, `stroke ${kind}`]), ...(state.step ? [[colours.soft, `start (step ${whole(all[0])})`, 'stroke dotted']] : []), ...(bad.length ? [[colours.bad, 'non-finite']] : []), ...(zeros.length ? [[colours.soft, 'exactly zero', 'cross']] : [])]);
  $('flow-note').textContent = lines.length > 2 ? 'Theory: the slope that mean-field theory gives random weights of the size that these have, with these activations. A healthy network stays near flat.' : '';
  describe('flow', `Gradient rms by depth at step ${step}: ${$('slope').textContent || 'no finite gradients'}${lines.length > 2 ? `; ${lines[1][3]}` : ''}`);
  refreshTable('flow');
};
tables.flow = () => ({caption: `Gradient rms at step ${whole(currentStep())}`, head: ['layer', 'median', 'smallest', 'largest'], rows: meta.flow.names.map((name, i) => [name, ...[0, 1, 2].map((part) => short(flow.at(part, state.step)[i]))])});
let pending = false, playing = null;
const setStep = (index) => {
  if (!meta.flow) return;
  state.step = Math.max(0, Math.min(meta.flow.steps.length - 1, index));
  if (!ready || pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    drawFlow();
    for (const plot of stepPlots()) window.Plotly.relayout(plot, {'shapes[0].x0': place(currentStep()), 'shapes[0].x1': place(currentStep())});
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
