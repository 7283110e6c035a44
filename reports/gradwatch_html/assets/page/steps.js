// The axis of steps: linear, or by the logarithm of the steps since the first one, in which the first hundred have half of a run.

const logarithmic = () => state.scale === 'log';
const place = (step) => (logarithmic() ? Math.log10(Math.max(0.1, step - start.steps[0] + 1)) : step);
const stepOf = (at) => (logarithmic() ? 10 ** at - 1 + start.steps[0] : at);
const fullRange = () => [start.steps[0] - 0.5, start.steps[1] + 0.5];
const shownSteps = () => state.x ?? fullRange();
const stepTitle = () => ({title: {text: logarithmic() ? 'step, logarithmic' : 'step', standoff: 4}});
const stepText = (step) => {
  const [size, unit] = step >= 1e6 ? [1e6, 'M'] : step >= 1000 ? [1000, 'k'] : [1, ''];
  return step % (size / 10) ? whole(step) : `${step / size}${unit}`;
};
// Ticks of a logarithmic axis: powers of ten first, then what has room between them.
const logTicks = (range, room) => {
  const [low, high] = range.map(place), first = start.steps[0], powers_ = Array.from({length: 16}, (_, n) => 10 ** n), taken = [];
  const wanted = [0, ...powers_, ...powers_.map((n) => 3 * n)].map((n) => first + n).filter((step) => step >= range[0] && step <= range[1]);
  const even = roundAxis(range, 5).tickvals.filter(Number.isInteger), far = (step) => taken.every((other) => Math.abs(place(other) - place(step)) / (high - low) * room > 52);
  for (const step of wanted.length > 2 ? wanted : even) if (far(step)) taken.push(step);
  return {tickmode: 'array', tickvals: taken.map(place), ticktext: taken.map(stepText)};
};
const stepAxis = (id, margin, more = {}) => {
  const range = more.range ?? shownSteps(), room = $(id).clientWidth - margin;
  const spacing = logarithmic() ? logTicks(range, room) : range[1] - range[0] <= 8 ? {tick0: 0, dtick: 1} : {nticks: Math.max(3, Math.min(10, Math.round(room / 52)))};
  return {...spacing, tickformat: ',~s', hoverformat: ',d', ...more, range: range.map(place)};
};
const cursor = () => ({type: 'line', xref: 'x', yref: 'paper', x0: place(currentStep() ?? 0), x1: place(currentStep() ?? 0), y0: 0, y1: 1, visible: currentStep() !== null, line: {color: colours.ink, width: 1, dash: 'dot'}});
