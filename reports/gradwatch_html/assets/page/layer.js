// The page of one layer.

const TIME_CHARTS = {gradient: 'gradient', ratio: 'update / weight', activation: 'activation', delta: 'activation gradient'};
const CHARTS = [...Object.keys(TIME_CHARTS), 'shares', 'histogram'];
const LINE_COLOURS = ['accent', 'second', 'notice', 'warning', 'critical', 'soft'];
const USUAL = [10 ** -3.5, 10 ** -2.5], FLOAT16 = [[-24, 'smallest'], [-14, 'smallest<br>normal'], [16, 'largest']];
const finite = (line) => line.y.filter((v) => Number.isFinite(v ?? NaN)).length;
const siteName = (name) => { const {name: layer} = layers[state.layer]; return name === layer ? 'output' : name.startsWith(layer) ? name.slice(layer.length + 1) : name; };
const matrixLine = async (key, layer) => {
  const metric = metricOf.get(key), row = metric ? metric.layers.indexOf(layer) : -1;
  if (row < 0) return null;
  const mine = (await codes(key)).subarray(row * metric.first.length, (row + 1) * metric.first.length);
  return {metric, codes: mine, time: metric, y: Array.from(mine, (code) => valueOf(metric, code)), name: metric.title, rounded: !metric.share};
};
const exactLines = async (chart, layer) => {
  const found = (meta.series.lines[layer] ?? []).filter((line) => line.chart === chart), data = new Float32Array(await inflate('series'));
  return found.map(({time: axis_, at, band, site}) => {
    const time = meta.series.times[axis_], n = time.first.length, part = (k) => Array.from(data.subarray(at + k * n, at + (k + 1) * n), (v) => (Number.isNaN(v) ? null : v));
    return {time, y: part(0), low: band ? part(1) : null, high: band ? part(2) : null, banded: band, name: siteName(site)};
  });
};
const linesOf = async (layer) => {
  const found = {};
  for (const id of Object.keys(TIME_CHARTS)) {
    const matrix = await matrixLine(id, layer), exact = await exactLines(id, layer), at = (code) => (matrix ? matrix.time.first.filter((_, i) => matrix.codes[i] === code) : []);
    found[id] = {lines: exact.length ? exact : matrix && finite(matrix) ? [matrix] : [], bad: at(255), zeros: at(2), matrix};
  }
  const shares = [['zeros', 'accent', 'exactly zero'], ['nonfinite', 'bad', 'NaN or infinite']].map(async ([key, colour, name]) => ({...await matrixLine(key, layer), colour, name}));
  found.shares = {lines: (await Promise.all(shares)).filter((line) => line.y && finite(line) > 1 && line.y.some((v) => v > 0)), bad: [], zeros: []};
  return found;
};
const timeChart = (id, {lines, bad, zeros}) => {
  const all = lines.flatMap((line) => [...line.y, ...(line.low ?? []), ...(line.high ?? [])]), share = id === 'shares', format = share ? percent : short, usual = id === 'ratio';
  const y = share ? {range: [0, Math.min(1.04, Math.max(0.0105, extent(all)[1] * 1.15))], tickformat: '~%', nticks: 5} : logAxis([...all, ...(usual ? USUAL : [])]);
  const colour = (line, i) => colours[line.colour ?? LINE_COLOURS[i]], band = {type: 'rect', layer: 'below', xref: 'paper', x0: 0, x1: 1, y0: USUAL[0], y1: USUAL[1], fillcolor: colours.band, line: {width: 0}};
  const data = [...lines.flatMap((line, i) => curve(line, colour(line, i), {}, format)), marksAt(bad, y, 'bad'), ...(share ? [] : [marksAt(zeros, y, 'zero')])];
  draw(id, data, layout({}, {shapes: [cursor(), brushed(), ...(usual ? [band] : [])], xaxis: stepAxis(id, 68), yaxis: y}));
  legend(id, [...lines.map((line, i) => [colour(line, i), ellipsis(line.name, 40), 'stroke']), ...(usual ? [[colours.band, 'usual: 10⁻³·⁵ to 10⁻²·⁵']] : []), ...(bad.length ? [[colours.bad, 'non-finite']] : []), ...(zeros.length ? [[colours.soft, 'exactly zero', 'cross']] : [])]);
  const notes = [[lines.some((line) => line.rounded), 'Largest of the layer, rounded to 12%.'], [lines.some((line) => line.banded), 'Mean and range of neighbouring steps.'], [lines.some((line) => line.time.breaks.length > 1), 'Points: sampled steps.']];
  $(`${id}-note`).textContent = notes.filter(([applies]) => applies).map(([, text]) => text).join(' ');
  describe(id, `${TIME_CHARTS[id] ?? id}: ${lines.map((line) => line.name).join(', ')}; from ${extent(all).map(format).join(' to ')}${bad.length ? `; non-finite from step ${whole(bad[0])}` : ''}`);
  const cells = (line, step) => { const at = line.time.first.indexOf(step); return at < 0 ? '' : format(line.y[at]); };
  tables[id] = () => ({caption: TIME_CHARTS[id] ?? id, head: ['step', ...lines.map((line) => line.name)], rows: lines[0].time.first.map((step) => [whole(step), ...lines.map((line) => cells(line, step))])});
};
const drawHistogram = async (layer) => {
  const {at, low: first, bins: count, time: axis_} = meta.histograms.layers[layer], data = new Uint8Array(await inflate('histograms')), time = meta.histograms.times[axis_];
  const share = (bin, column) => { const code = data[at + column * count + bin]; return code ? 2 ** ((code - 255) / 4) : null; }, bins = Array.from({length: count}, (_, i) => i);
  const exponent = (bin) => first + bin - 41, limits = layers[layer].dtype === 'float16' ? FLOAT16 : [], low = Math.min(exponent(0), ...limits.map(([y]) => y - 1)), high = Math.max(exponent(count), ...limits.map(([y]) => y + 1));
  const name = (bin) => `${power(2, exponent(bin))} to ${power(2, exponent(bin) + 1)}`, columns = time.first.map((_, c) => c);
  if (columns.length === 1) {
    const bars = {type: 'bar', x: bins.map((bin) => exponent(bin) + 0.5), y: bins.map((bin) => share(bin, 0) ?? 0), text: bins.map((bin) => `${name(bin)}: ${percent(share(bin, 0) ?? 0)}`), textposition: 'none', hovertemplate: '%{text}<extra></extra>', marker: {color: colours.accent}, width: 0.86};
    draw('histogram', [bars], layout({}, {xaxis: powers(low, high, 2), yaxis: {tickformat: '~%', nticks: 5, rangemode: 'tozero'}}));
    legend('histogram', [[colours.accent, 'share of elements']]);
  } else {
    const text = bins.map((bin) => columns.map((c) => `${name(bin)}<br>${steps(time.first[c], time.last[c])}: ${percent(share(bin, c) ?? 0)}`)), z = bins.map((bin) => columns.map((c) => (share(bin, c) === null ? null : Math.log10(share(bin, c)))));
    draw('histogram', [{type: 'heatmap', x: edgesOf(time).map(place), y: [...bins, count].map(exponent), z, text, zmin: -4, zmax: -0.4, colorscale: scaleOf(colours.elements), showscale: false, hovertemplate: '%{text}<extra></extra>', hoverongaps: false}], layout(limits.length ? {r: 66} : {}, {
      shapes: [cursor(), brushed(), ...limits.map(([y]) => ({type: 'line', xref: 'paper', x0: 0, x1: 1, y0: y, y1: y, line: {color: colours.critical, width: 1, dash: 'dash'}}))],
      annotations: limits.map(([y, text_]) => ({xref: 'paper', x: 1, xshift: 4, xanchor: 'left', align: 'left', y, yanchor: 'middle', text: text_, showarrow: false, font: {size: 11, color: colours.critical}})),
      xaxis: stepAxis('histogram', limits.length ? 120 : 68, {showgrid: false}), yaxis: {...powers(low, high, 2), range: [low, high], showgrid: false},
    }));
    legend('histogram', [[`linear-gradient(90deg, ${colours.elements.join(',')})`, '0.01% … 40% of the elements', 'ramp'], ...(limits.length ? [[colours.critical, 'limits of float16', 'stroke dashed']] : [])]);
  }
  $('histogram-note').textContent = `Powers of two of |element|; blank where there is none.${layers[layer].dtype === 'bfloat16' ? ' bfloat16 reaches down to 2⁻¹³³, below this axis.' : ''}`;
  describe('histogram', `Histogram of |gradient| from 2^${exponent(0)} to 2^${exponent(count)} over ${columns.length} columns of steps`);
  tables.histogram = () => ({caption: 'Share of the elements by power of two', head: ['step', ...bins.map((bin) => power(2, exponent(bin)))], rows: columns.map((c) => [whole(time.first[c]), ...bins.map((bin) => (share(bin, c) === null ? '' : percent(share(bin, c))))])});
};
const drawLayer = async () => {
  if (!$('layer')) return;
  const began = performance.now(), layer = state.layer, found = await linesOf(layer), missing = [], facts = [], shown = (id, wanted) => { $(`${id}-figure`).hidden = !wanted; };
  if (layer !== state.layer) return;
  for (const [id, title] of Object.entries(TIME_CHARTS)) {
    const {lines, bad, matrix} = found[id], drawn = bad.length > 1 || lines.some((line) => finite(line) > 1);
    shown(id, drawn);
    if (drawn && !lines.length) lines.push(matrix);
    else if (!drawn && lines.length) facts.push(...lines.map((line) => `${title}${id === 'ratio' ? '' : ' rms'} ${short(line.y.find((v) => v !== null))} (${line.name})`));
    else if (!drawn && matrix?.codes.includes(1)) facts.push(`${title}: none (None) at every captured step`);
    else if (!drawn) missing.push(title);
  }
  shown('shares', found.shares.lines.length > 0);
  if (!found.shares.lines.length && metricOf.get('zeros')?.layers.includes(layer)) facts.push('no element exactly zero or non-finite');
  shown('histogram', Boolean(meta.histograms.layers[layer]));
  for (const id of [...Object.keys(TIME_CHARTS), 'shares']) if (!$(`${id}-figure`).hidden) timeChart(id, found[id]);
  if (meta.histograms.layers[layer]) await drawHistogram(layer); else missing.push('histogram of the gradient');
  heading(layer, facts);
  $('layer-missing').textContent = missing.length ? `Not captured for this layer: ${missing.join(', ')}.` : '';
  for (const id of CHARTS) if (!$(`${id}-figure`).hidden) refreshTable(id);
  performance.measure('layer', {start: began});
};
const heading = (layer, facts = []) => {
  const {name, kind, level: health, parameters, more, found} = layers[layer], levels = $('layer-level'), list = make('span');
  $('layer-name').replaceChildren(make('bdi', ellipsis(name, 160), {title: name}));
  levels.dataset.level = health;
  levels.replaceChildren(...(SHAPES[health] ? [make('i', SHAPES[health], {'aria-hidden': 'true'}), make('b', health)] : [make('span', health === 'unseen' ? 'not judged' : health)]));
  $('layer-place').textContent = `layer ${whole(layer + 1)} of ${whole(layers.length)}`;
  for (const index of found.slice(0, 8)) list.append(make('a', `${SHAPES[findings[index].severity]} ${findings[index].word}`, {href: `#finding-${index}`, 'data-finding': index}));
  const words = [...(kind ? [kind] : []), ...parameters, ...(more ? [`and ${more} more parameters`] : []), ...facts];
  $('layer-facts').replaceChildren(...words.map((text) => numbers(make('bdi'), text)), ...(found.length ? [list] : []));
};
