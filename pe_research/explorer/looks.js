// Wavelengths of the schemes that turn, and views into trained models.

const waves = new Chart(document.getElementById('waves'));

function wavelengths(name) {
  const given = DATA.schemes[name], {factor, base} = state.wave;
  const args = TWINS[name].stretched({...given.arguments, base}, factor);
  const dims = {...given.dims, length: state.shared.length};
  const twin = new TWINS[name](args, dims, given.parameters[0], given.arguments);
  const target = factor * state.shared.length;
  return twin.pairs ? twin.frequencies(target).map((f) => 2 * Math.PI / f) : [];
}

// Schemes of which pairs turn, and those shown at first: one that others stretch, and what moves it.
const turning = Object.keys(DATA.schemes).filter((name) =>
  DATA.schemes[name].twin && 'frequencies' in TWINS[name].prototype && wavelengths(name).length);
const atFirst = turning.filter((name) => {
  const {trains_as: own, drawn, by_length: follows} = DATA.schemes[name];
  if (!own) return turning.some((other) => DATA.schemes[other].trains_as === name);
  return !drawn && !follows && !same(wavelengths(name), wavelengths(own));
});

function drawWaves() {
  const chosen = [...document.querySelectorAll('#wave-schemes input:checked')].map((e) => e.value);
  const found = chosen.map((name) => [DATA.schemes[name].label, wavelengths(name)]);
  const cells = found.flatMap(([by, all]) => all.map((y, x) => ({x, y, by})));
  const trained = state.shared.length, target = trained * state.wave.factor;
  const marks = [{at: trained, name: `training length, ${trained}`}];
  if (target > trained) marks.push({at: target, name: `target length, ${target}`});
  waves.draw('waves', {cells, marks}, {}, 340);
  const most = Math.max(0, ...found.map(([, all]) => all.length));
  const row = (tag, first, rest) => make('tr', {}, make('th', {scope: tag}, first),
    ...rest.map((text) => make(tag === 'col' ? 'th' : 'td', tag === 'col' ? {scope: 'col'} : {}, text)));
  document.getElementById('wave-table').replaceChildren(
    row('col', 'wavelength of pair (tokens)', range(most).map(String)),
    ...found.map(([label, all]) => row('row', label, all.map(plain))));
}

// Parts of 65,535, at and below the diagonals of all maps, one after the other.
const shares = (text) => Float32Array.from(new Uint16Array(bytesOf(text).buffer), (x) => x / 65535);

const look = {run: 0, layer: 0, head: 0, charts: []};

function drawLooks() {
  const run = DATA.looks[look.run], count = 64;
  run.views.forEach((view, i) => {
    const maps = shares(view.maps), side = Math.min(view.length, count);
    const [layers, heads] = [run.layers, run.heads], size = side * (side + 1) / 2;
    const from = (Math.min(look.layer, layers - 1) * heads + Math.min(look.head, heads - 1)) * size;
    const cells = [];
    for (let m = 0; m < side; m++) {
      for (let n = 0; n <= m; n++) cells.push({x: n, y: m, v: maps[from + m * (m + 1) / 2 + n]});
    }
    const each = view.length / side;
    const scaled = cells.map(({x, y, v}) => ({x: x * each, y: y * each, v}));
    look.charts[i].draw('weights', {cells: scaled, cursor: []}, {top: Math.max(...cells.map((c) => c.v))},
      [side, side]);
  });
  const cells = run.views.flatMap((view) =>
    view.loss.map((y, i) => ({x: view.at[i], y, by: view.label})));
  look.losses.draw('loss', {cells, marks: [{at: run.trained, name: `trained at ${run.trained}`}]}, {}, 300);
}

function setUpLooks() {
  if (!DATA.looks.length) return;
  document.getElementById('trained').hidden = false;
  const bar = document.getElementById('look-bar'), maps = document.getElementById('maps');
  look.losses = new Chart(document.getElementById('losses'));
  const show = () => {
    const run = DATA.looks[look.run];
    maps.replaceChildren();
    look.charts = run.views.map((view) => {
      const figure = make('div', {className: 'chart'});
      figure.setAttribute('role', 'img');
      figure.setAttribute('aria-label', `Attention map, ${view.label}`);
      maps.append(make('section', {className: 'panel'}, make('h3', {}, view.label), figure));
      return new Chart(figure);
    });
    drawLooks();
  };
  const select = make('select', {onchange: () => { look.run = select.selectedIndex; show(); }});
  DATA.looks.forEach(({label}) => select.append(make('option', {}, label)));
  bar.append(make('label', {}, make('span', {}, 'model'), select));
  const most = (field) => Math.max(...DATA.looks.map((run) => run[field])) - 1;
  for (const [field, limit] of [['layer', most('layers')], ['head', most('heads')]]) {
    bar.append(control(field, [0, limit, 1], 0, (value) => { look[field] = value; drawLooks(); }));
  }
  look.show = show;
  show();
}

