// Views into trained models.

// Attention in 65,535ths, at and below the diagonals of all maps, one after the other.
const shares = (text) => Float32Array.from(new Uint16Array(bytesOf(text).buffer), (x) => x / 65535);

const look = {run: 0, layer: 0, head: 0, maps: []};
const count = 64; // maximum cells on a side of a map

// An attention map, and below it the text that the model reads.
class AttentionMap {
  constructor(root, run, view) {
    const section = make('section', {className: 'panel'}, make('h3', {}, view.label));
    root.append(section);
    this.side = Math.min(view.length, count);
    this.view = view;
    this.tokens = run.tokens.slice(-view.length - 1);
    this.reader = new Reader(section, (cell) => this.tell(cell));
    this.text = make('p', {className: 'text'});
    section.append(this.text);
  }

  first(cell) { return Math.floor(cell * this.view.length / this.side); } // first token of a cell

  // The tokens of the cell that begins with this one.
  within(token) {
    const cell = Math.round(token * this.side / this.view.length);
    return range(this.view.length).slice(this.first(cell), this.first(cell + 1));
  }

  tell({x, y, v}) {
    const [keys, queries] = [this.within(x), this.within(y)];
    const named = (one, many, tokens) => {
      const text = tokens.map((i) => this.tokens[i]).join(''), [from, to] = [tokens[0], tokens.at(-1)];
      return `${from < to ? `${many} ${from}–${to}` : `${one} ${from}`} “${text}”`;
    };
    this.mark(keys, queries);
    return `${named('query', 'queries', queries)}: ${plain(100 * v)} % of the attention to ` +
      `${named('key', 'keys', keys)}.`;
  }

  mark(keys, queries) {
    if (!this.text) return;
    const text = (from, to) => this.tokens.slice(from, to).join('');
    const [a, b] = [keys[0], keys.at(-1) + 1], [c, d] = [queries[0], queries.at(-1) + 1];
    const key = make('mark', {className: 'key'}, text(a, b));
    const query = make('mark', {}, text(c, d));
    const before = a === c ? [text(0, a)] : [text(0, a), key, text(b, c)];
    this.text.replaceChildren(...before, query, text(d, this.view.length));
  }

  draw(run) {
    const maps = shares(this.view.maps), {side} = this, size = side * (side + 1) / 2, cells = [];
    const [layer, head] = [Math.min(look.layer, run.layers - 1), Math.min(look.head, run.heads - 1)];
    const from = (layer * run.heads + head) * size;
    for (let m = 0; m < side; m++) {
      for (let n = 0; n <= m; n++) {
        cells.push({x: this.first(n), y: this.first(m), v: maps[from + m * (m + 1) / 2 + n]});
      }
    }
    const top = Math.max(...cells.map(({v}) => v));
    return this.reader.draw('weights', cells, {signals: {top}, shape: [side, side]});
  }
}

function drawLooks() {
  const run = DATA.looks[look.run];
  const cells = run.views.flatMap((view) =>
    view.loss.map((y, i) => ({x: view.at[i], y, by: view.label})));
  const marks = [{at: run.trained, name: `trained at ${run.trained}`}];
  return Promise.all([...look.maps.map((map) => map.draw(run)),
    look.losses.draw('loss', cells, {marks, shape: 300})]);
}

function setUpLooks() {
  if (!DATA.looks.length) return null;
  document.getElementById('trained').hidden = false;
  const bar = document.getElementById('look-bar'), root = document.getElementById('maps');
  look.losses = new Reader(document.getElementById('losses'), ({x, y, by}) =>
    `${by}: ${plain(y)} nats/token after ${plain(x)} tokens of context.`);
  const show = () => {
    const run = DATA.looks[look.run];
    root.replaceChildren();
    look.maps = run.views.map((view) => new AttentionMap(root, run, view));
    return drawLooks();
  };
  const views = DATA.looks.map((run) => run.views.length);
  look.run = views.indexOf(Math.max(...views)); // one with an extension, if there is one
  const select = make('select', {onchange: () => { look.run = select.selectedIndex; show(); }});
  select.setAttribute('aria-label', 'model');
  DATA.looks.forEach(({label}, i) =>
    select.append(make('option', {selected: i === look.run}, label)));
  bar.append(make('label', {}, make('span', {}, 'model'), select));
  const most = (field) => Math.max(...DATA.looks.map((run) => run[field])) - 1;
  for (const [field, limit] of [['layer', most('layers')], ['head', most('heads')]]) {
    bar.append(control(field, [0, limit, 1], 0, (value) => { look[field] = value; drawLooks(); },
      'of the model'));
  }
  return show();
}
