// Findings over time, with the run's scalars; the step axis stands exactly under the heatmap's.

const drawLanes = () => {
  if (!$('lanes')) return;
  const small = narrow(), [lane, scalar, head] = small ? [48, 92, 24] : [40, 78, 12], labels = [...$('lane-labels').children];
  const shown = findings.slice(0, labels.length - lanes.length), gutter = gutters(), high = shown.length * lane + lanes.length * scalar - 8, data = [];
  const put = (i, top, height, used) => Object.assign(labels[i].style, {top: `${top + 8}px`, height: `${height}px`, width: small ? '100%' : `${gutter.l - used}px`});
  $('lanes').style.height = `${high + 46}px`;
  const settings = layout({...gutter, b: 38}, {shapes: [cursor(), brushed()], xaxis: stepAxis('lanes', gutter.l + gutter.r, {anchor: 'free', position: 0, ...stepTitle()})});
  settings.yaxis = {domain: [Math.max(0, 1 - shown.length * lane / high), 1], range: [shown.length - 0.5, -0.5], showticklabels: false, showgrid: false, visible: shown.length > 0};
  shown.forEach(({first, last, severity, title}, i) => {
    const y = i + (small ? 0.26 : 0), from = first ?? start.steps[0], to = last ?? start.steps[1], colour = colours[severity];
    data.push({type: 'scatter', mode: 'lines', x: [from, to].map(place), y: [y, y], line: {color: faint(colour, 0.55), width: small ? 8 : 10}, hovertemplate: `${escaped(ellipsis(title, 70))}<br>${steps(from, to)}<extra></extra>`});
    data.push({type: 'scatter', mode: 'markers', x: [place(from)], y: [y], marker: {symbol: MARKERS[severity], size: 12, color: colour, line: {color: colours.card, width: 1.5}}, hoverinfo: 'skip', cliponaxis: false});
    put(i, i * lane, small ? 22 : lane, 14);
  });
  lanes.forEach((line, k) => {
    const top = shown.length * lane + k * scalar, axisName = `yaxis${k + 2}`, yaxis = `y${k + 2}`, values = [...line.low, ...line.high];
    const domain = [1 - (top + scalar - 4) / high, 1 - (top + head) / high].map((v) => Math.max(0, v));
    settings[axisName] = {...(line.log ? logAxis(values, 3) : roundAxis(padded(values), 3)), domain};
    data.push(...curve({time: line, y: line.high, low: line.low, high: line.high, banded: line.first.some((step, i) => step !== line.last[i]), name: line.title}, colours.accent, {yaxis}));
    if (line.bad.length) data.push(marksAt(line.bad, settings[axisName], 'bad', {yaxis}));
    put(shown.length + k, top + (small ? 0 : head), small ? 24 : scalar - head - 8, 58);
  });
  draw('lanes', data, settings);
  const found = findings.map(({title, first, last}) => `${title}: ${steps(first ?? start.steps[0], last ?? start.steps[1])}`), scalars = lanes.map((line) => `${line.title} from ${extent([...line.low, ...line.high]).map(short).join(' to ')}`);
  describe('lanes', `Over ${steps(...start.steps)}. ${[...found.slice(0, 12), ...scalars].join('; ')}.`);
};
const padded = (values) => { const [low, high] = extent(values), room = (high - low || Math.abs(high) || 1) * 0.12; return Number.isFinite(low) ? [low - room, high + room] : [0, 1]; };
tables.lanes = () => ({caption: 'Findings', head: ['finding', 'severity', 'first step', 'last step'], rows: findings.map((f) => [f.title, f.severity, ...[f.first, f.last].map((step) => (step === null ? '' : whole(step)))])});
