// Plotly: one base look, few round ticks that cannot collide.

const scaleOf = (list) => list.map((colour, i) => [i / (list.length - 1), colour]);
const dark = () => (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
const readTheme = () => { colours = meta.palettes[dark() ? 'dark' : 'light']; $('theme').lastElementChild.textContent = dark() ? 'Light' : 'Dark'; };
const faint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, '0');
const layout = (margin, more) => ({template: colours.template, margin, dragmode: false, font: {family: getComputedStyle(document.body).fontFamily}, ...more});
const describe = (id, sentence) => $(id).setAttribute('aria-label', sentence);
const draw = (id, data, settings) => {
  const size = {width: $(id).clientWidth, height: $(id).clientHeight};
  return window.Plotly.react($(id), data, {...settings, ...size}, {displayModeBar: false, responsive: false, doubleClick: false, showTips: false});
};
const powers = (low, high, base = 10, most = 6) => {
  const stride = Math.max(1, Math.ceil((high - low + 1) / most)), list = [];
  for (let p = Math.ceil(low / stride) * stride; p <= high; p += stride) list.push(p);
  return {tickmode: 'array', tickvals: list.map((p) => (base === 10 ? 10 ** p : p)), ticktext: list.map((p) => power(base, p))};
};
// Round ticks of a linear axis: two at least, and about as many as there is room for.
const roundAxis = ([low, high], most) => {
  const rough = (high - low) / most, power_ = 10 ** Math.floor(Math.log10(rough)), ticksOf = (step) => { const list = []; for (let n = Math.ceil(low / step); n * step <= high; n++) list.push(n * step); return list; };
  const lists = [0.5, 1, 2, 2.5, 5, 10].map((n) => ticksOf(n * power_)), found = lists.find((list) => list.length > 1 && list.length <= most) ?? lists[0];
  return {range: [low, high], tickmode: 'array', tickvals: found, ticktext: found.map((v) => (Math.abs(v) < 1e5 ? String(Number(v.toPrecision(4))) : short(v)))};
};
const logAxis = (values, most = 6) => {
  let [low, high] = extent(values.filter((v) => v > 0)).map(Math.log10);
  if (!Number.isFinite(low)) [low, high] = [-1, 0];
  if (high - low < 1.2) {
    const room = Math.max(0.1, 0.35 - (high - low) / 2), ticks = [];
    [low, high] = [low - room, high + room];
    for (let p = Math.floor(low); p <= high; p++) for (const n of [1, 2, 5]) if (Math.log10(n * 10 ** p) >= low && Math.log10(n * 10 ** p) <= high) ticks.push(n * 10 ** p);
    return {type: 'log', range: [low, high], tickmode: 'array', tickvals: ticks, ticktext: ticks.map(short)};
  }
  [low, high] = [Math.floor(low - 0.02), Math.ceil(high + 0.02)];
  return {type: 'log', range: [low, high], ...powers(low, high, 10, most)};
};
const legend = (id, entries) => $(`${id}-legend`).replaceChildren(...entries.map(([colour, text, kind = 'block']) => {
  const item = make('span'), mark = item.appendChild(make('i', undefined, {class: kind}));
  mark.style.setProperty('--mark', colour);
  item.append(numbers(make('bdi'), text));
  return item;
}));

// What lies between two curves: a closed shape for each stretch in which both are known.
const band = (x, low, high, fillcolor, more = {}) => {
  const [xs, ys] = [[], []], known = (i) => Number.isFinite(low[i] ?? NaN) && Number.isFinite(high[i] ?? NaN);
  for (let from = 0, to; from < x.length; from = to) {
    for (to = from + 1; known(from) && to < x.length && known(to);) to++;
    if (to - from < 2) continue;
    const there = Array.from({length: to - from}, (_, i) => from + i), back = [...there].reverse();
    xs.push(...there.map((i) => x[i]), ...back.map((i) => x[i]), null);
    ys.push(...there.map((i) => low[i]), ...back.map((i) => high[i]), null);
  }
  return {type: 'scatter', mode: 'lines', x: xs, y: ys, line: {width: 0}, fill: 'toself', fillcolor, hoverinfo: 'skip', ...more};
};
// Curves: lines where samples follow one another, points where they stand apart.

const curve = ({time, y, low, high, banded, name}, colour, more = {}, format = short) => {
  const follows = followsOf(time), x = [], ys = [], dots = [], text = [], made = [], known = (i) => Number.isFinite(y[i] ?? NaN);
  for (let i = 0; i < y.length; i++) {
    const before = known(i) && follows[i] && known(i - 1), after = known(i) && follows[i + 1] && known(i + 1);
    if (!before) { x.push(place(middle(time, i))); ys.push(null); dots.push(0); text.push(''); }
    x.push(place(middle(time, i)));
    ys.push(known(i) ? y[i] : null);
    dots.push(before || after ? 0 : 5);
    text.push(known(i) ? `${escaped(ellipsis(name, 60))}<br>${steps(time.first[i], time.last[i])}: ${format(y[i])}` : '');
  }
  if (banded) made.push(band(time.first.map((_, i) => place(middle(time, i))), low, high, faint(colour, 0.22), more));
  const mode = dots.some((size) => size) ? 'lines+markers' : 'lines';
  return [...made, {type: 'scatter', mode, x, y: ys, text, hovertemplate: '%{text}<extra></extra>', line: {color: colour, width: 1.6}, marker: {color: colour, size: dots, line: {width: 0}}, ...more}];
};
const marks = (x, {type, range: [low, high]}, kind, more = {}) => {
  const inner = kind === 'bad' ? high - (high - low) * 0.004 : low + (high - low) * 0.004, y = type === 'log' ? 10 ** inner : inner;
  const marker = kind === 'bad' ? {symbol: 'line-ns', size: 9, line: {color: colours.bad, width: 1.4}} : {symbol: 'x-thin', size: 6, line: {color: colours.soft, width: 1.3}};
  return {type: 'scatter', mode: 'markers', x, y: x.map(() => y), marker, cliponaxis: false, ...more};
};
const marksAt = (steps_, y, kind, {word = kind === 'bad' ? 'non-finite' : 'exactly zero', ...more} = {}) => marks(steps_.map(place), y, kind, {text: steps_.map((step) => `${word} at step ${whole(step)}`), hovertemplate: '%{text}<extra></extra>', ...more});
