// The rows of the heatmap: layers in an order, or whole modules folded into one row.

const partsOf = (row, metric) => layers[metric.layers[row]].name.split('.');
// What a layer is, whichever its block: attn.q of blocks.3.attn.q, features of features.3.
const kindOf = (name) => {
  const parts = name.split('.'), last = parts.findLastIndex((part) => /^\d+$/.test(part));
  return last < 0 ? name : parts.slice(last + 1).join('.') || parts.filter((part) => !/^\d+$/.test(part)).join('.') || name;
};
const leafOf = (row, metric) => ({label: layers[metric.layers[row]].name, rows: [row], children: [], key: ''});
// Modules are runs of neighbouring layers; one with a single child is that child.
const branch = (rows, level, metric, seen) => {
  const runs = [];
  for (const row of rows) {
    const parts = partsOf(row, metric), path = parts.slice(0, level + 1).join('.');
    if (runs.at(-1)?.path === path) runs.at(-1).rows.push(row); else runs.push({path, rows: [row]});
  }
  return runs.flatMap(({path, rows: mine}) => {
    if (mine.length === 1) return [leafOf(mine[0], metric)];
    const children = branch(mine, level + 1, metric, seen);
    if (children.length === 1 && children[0].rows.length === mine.length) return children;
    return [module(path, mine, children, seen)];
  });
};
const module = (path, rows, children, seen) => {
  seen.set(path, (seen.get(path) ?? 0) + 1);
  return {label: path, rows, children, key: seen.get(path) > 1 ? `${path} #${seen.get(path)}` : path};
};
const byKind = (rows, metric) => {
  const kinds = new Map();
  for (const row of rows) {
    const kind = kindOf(layers[metric.layers[row]].name);
    if (kinds.has(kind)) kinds.get(kind).push(row); else kinds.set(kind, [row]);
  }
  return [...kinds].map(([kind, mine]) => (mine.length === 1 ? leafOf(mine[0], metric) : module(kind, mine, mine.map((row) => leafOf(row, metric)), new Map())));
};
const changeOf = (row, metric, data) => {
  const columns = metric.first.length, base = metric.share ? 0 : metric.start[row];
  let most = -1;
  for (let at = row * columns; at < (row + 1) * columns; at++) {
    if (data[at] === 255) return Infinity;
    if (data[at] > 2 && base !== null) most = Math.max(most, Math.abs(level(metric, data[at]) - base));
  }
  return most;
};
const byChange = (rows, metric, data) => {
  const change = rows.map((row) => changeOf(row, metric, data));
  return [...rows].sort((a, b) => (change[b] === change[a] ? a - b : change[b] - change[a])).map((row) => leafOf(row, metric));
};
const ORDERS = {depth: (rows, metric) => branch(rows, 0, metric, new Map()), kind: byKind, change: byChange};
const MANY_ROWS = 2000, LARGEST_FOLD = 64;
const innermost = (nodes) => nodes.flatMap((node) => (!node.children.length ? [] : node.children.some((child) => child.children.length) ? innermost(node.children) : node.rows.length <= LARGEST_FOLD ? [node.key] : []));
// The tree of a metric in an order, and what of it is folded; a huge network begins with its innermost modules folded.
const trees = {};
const treeOf = (metric, data) => (trees[`${metric.key} ${state.rows}`] ??= ORDERS[state.rows](metric.layers.map((_, row) => row), metric, data));
const foldsOf = (nodes, count) => state.folds ?? (nodes.folded ??= new Set(count > MANY_ROWS ? innermost(nodes) : []));
// What is shown from top to bottom; every node learns its first and last row on the screen.
const arrange = (metric, data) => {
  const nodes = treeOf(metric, data), folds = foldsOf(nodes, metric.layers.length), shown = [];
  const walk = (node) => {
    node.top = shown.length;
    if (!node.children.length || folds.has(node.key)) shown.push(node); else node.children.forEach(walk);
    node.bottom = shown.length;
  };
  nodes.forEach(walk);
  const placeOf = new Int32Array(metric.layers.length);
  shown.forEach((node, at) => { for (const row of node.rows) placeOf[row] = at; });
  return {nodes, shown, folds, placeOf};
};
const fold = (key) => {
  const folds = new Set(heat.folds);
  if (!folds.delete(key)) folds.add(key);
  Object.assign(state, {folds, y: null});
  drawHeatmap().then(remember);
};
// Folds the outermost modules, or opens everything when they are folded.
const foldAll = () => {
  const modules = heat.nodes.filter((node) => node.children.length).map((node) => node.key);
  Object.assign(state, {folds: new Set(modules.every((key) => heat.folds.has(key)) ? [] : modules), y: null});
  drawHeatmap().then(remember);
};
const setRows = (rows) => { Object.assign(state, {rows, folds: null, y: null}); drawHeatmap().then(remember); };

// The gutter: names of what stands there where there is room, and a bar beside every opened module that folds it.

const LABEL = 16, BAR = 9, ROOMY = 6 * LABEL;
const gutterItems = (nodes, [r0, r1], high, folds) => {
  const px = high / (r1 - r0), labels = [], bars = [], y = (place) => Math.max(0, Math.min(high, (place - r0) * px));
  const visit = (node, level_, within) => {
    const top = y(node.top), bottom = y(node.bottom), closed = node.children.length && folds.has(node.key);
    if (bottom - top < 0.01) return;
    const open = node.children.length && !closed, inside = open ? node.children.filter((child) => y(child.bottom) > y(child.top)) : [];
    if (open && level_ < 4 && (bottom - top >= ROOMY || inside.every((child) => y(child.bottom) - y(child.top) >= LABEL - 1))) {
      bars.push({node, level: level_, top, bottom});
      inside.forEach((child) => visit(child, level_ + 1, node.label));
    } else labels.push({node, within, closed, y: (top + bottom) / 2, top, bottom});
  };
  nodes.forEach((node) => visit(node, 0, ''));
  let last = -Infinity;
  return {bars, labels: labels.filter((label) => label.y - last >= LABEL - 0.5 && (last = label.y))};
};
const drawGutter = (metric, {nodes, folds}, window_, high, wide) => {
  const {bars, labels} = gutterItems(nodes, window_, high, folds), most = Math.max(-1, ...bars.map((bar) => bar.level)) + 1, indent = (n) => 2 + n * BAR;
  const place = (element, style) => Object.assign(element.style, Object.fromEntries(Object.entries(style).map(([key, value]) => [key, `${value}px`])));
  const barButtons = bars.map(({node, level: at, top, bottom}) => {
    const button = make('button', undefined, {type: 'button', class: 'bar', 'data-fold': node.key, 'aria-expanded': 'true', 'aria-label': `Fold ${ellipsis(node.label, 60)}`, title: `Fold ${ellipsis(node.label, 200)} (${node.rows.length} layers)`});
    place(button, {left: indent(at), top: top + 1, height: Math.max(4, bottom - top - 2)});
    return button;
  });
  // A name too long for the gutter is written without that of the module whose bar stands beside it.
  const nameOf = ({label}, within, room) => ellipsis(label.length > room && label.startsWith(`${within}.`) ? label.slice(within.length + 1) : label, room);
  const names = labels.map(({node, within, closed, y}) => {
    const many = node.children.length > 0, words = Math.floor((wide - indent(most) - (many ? 20 : 6)) / 6.6), one = metric.layers[node.rows[0]];
    const button = make('button', undefined, {type: 'button', title: node.label.length > 200 ? ellipsis(node.label, 200) : node.label, ...(many ? {'data-fold': node.key, 'aria-expanded': String(!closed)} : {'data-layer': one})});
    if (many) button.append(make('span', closed ? '▸' : '▾', {class: 'twist', 'aria-hidden': 'true'}));
    button.append(make('bdi', nameOf(node, within, Math.max(6, words))));
    place(button, {left: indent(most), top: y - LABEL / 2, width: wide - indent(most) - 4, height: LABEL});
    return button;
  });
  $('tree').style.width = `${wide}px`;
  const kept = document.activeElement?.closest('#tree') ? document.activeElement.dataset.fold : undefined;
  $('tree').replaceChildren(...barButtons, ...names);
  if (kept !== undefined) [...$('tree').querySelectorAll('[data-fold]')].find((button) => button.dataset.fold === kept)?.focus({preventScroll: true});
};
