// The tables of numbers behind the plots: filled when they are opened, and when what they show has changed.

const refreshTable = (id) => { if (!$(`${id}-table`).hidden) fillTable(id); };
const fillTable = (id) => {
  const {caption, head, rows} = tables[id](), stride = Math.max(1, Math.ceil(rows.length / 400)), table = make('table'), [top, body] = [make('thead'), make('tbody')];
  const line = (cells, tag) => { const row = make('tr'); row.append(...cells.map((cell) => make(tag, ellipsis(String(cell), 90)))); return row; };
  top.append(line(head, 'th'));
  body.append(...rows.filter((_, i) => i % stride === 0).map((cells) => line(cells, 'td')));
  table.append(make('caption', stride > 1 ? `${caption}; one row in ${stride} of ${whole(rows.length)}` : caption), top, body);
  $(`${id}-table`).replaceChildren(table);
};
const toggleTable = (button) => {
  const place = $(`${button.dataset.table}-table`);
  place.hidden = !place.hidden;
  button.setAttribute('aria-expanded', String(!place.hidden));
  refreshTable(button.dataset.table);
};
