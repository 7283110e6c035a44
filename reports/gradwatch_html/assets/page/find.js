// The find box: letters in order match, the best hits first.

const match = (text, query) => {
  const at = text.indexOf(query);
  if (at >= 0) return at + (text.length - query.length) / 100;
  let from = 0, score = 1000;
  for (const character of query) { const next = text.indexOf(character, from); if (next < 0) return Infinity; score += next - from; from = next + 1; }
  return score;
};
const finder = {hits: [], at: 0}, search = () => {
  const query = $('find').value.trim().toLowerCase(), scored = query ? layers.map((layer, i) => [match(layer.name.toLowerCase(), query), i]) : [];
  Object.assign(finder, {at: 0, hits: scored.filter(([score]) => score < Infinity).sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, 50).map(([, i]) => i)});
  listHits(Boolean(query));
};
const listHits = (open) => {
  const list = $('hits'), items = finder.hits.map((layer, i) => {
    const {name, level: health} = layers[layer], item = make('li', undefined, {role: 'option', id: `hit-${i}`, 'aria-selected': String(i === finder.at), 'data-level': health});
    item.append(make('span', SHAPES[health] ?? '', {class: 'shape', 'aria-label': health}), make('bdi', ellipsis(name, 120)));
    item.onmousedown = (event) => { event.preventDefault(); choose(i); };
    return item;
  });
  list.replaceChildren(...(items.length ? items : [make('li', 'No layer of this name', {class: 'none'})]));
  list.hidden = !open;
  $('find').setAttribute('aria-expanded', String(open));
  $('find').setAttribute('aria-activedescendant', items.length ? `hit-${finder.at}` : '');
  items[finder.at]?.scrollIntoView({block: 'nearest'});
};
const choose = (i) => { const layer = finder.hits[i]; closeFind(); if (layer !== undefined) openLayer(layer); };
const closeFind = () => { $('find').value = ''; finder.hits = []; listHits(false); $('find').blur(); };
const findKey = (event) => {
  const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (move && finder.hits.length) { finder.at = (finder.at + move + finder.hits.length) % finder.hits.length; listHits(true); event.preventDefault(); }
  if (event.key === 'Enter') choose(finder.at);
  if (event.key === 'Escape') closeFind();
};
