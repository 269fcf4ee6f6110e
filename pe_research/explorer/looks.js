// Views into trained models.

// Parts of 65,535, at and below the diagonals of all maps, one after the other.
const shares = (text) => Float32Array.from(new Uint16Array(bytesOf(text).buffer), (x) => x / 65535);

const look = {run: 0, layer: 0, head: 0, charts: []};

function drawLooks() {
  const run = DATA.looks[look.run], count = 64;
  run.views.forEach((view, i) => {
    const maps = shares(view.maps), side = Math.min(view.length, count);
    const [layers, heads] = [run.layers, run.heads], size = side * (side + 1) / 2;
    const from = (Math.min(look.layer, layers - 1) * heads + Math.min(look.head, heads - 1)) * size;
    const cells = [], first = (cell) => Math.floor(cell * view.length / side); // token of a cell
    for (let m = 0; m < side; m++) {
      for (let n = 0; n <= m; n++) {
        cells.push({x: first(n), y: first(m), v: maps[from + m * (m + 1) / 2 + n]});
      }
    }
    const top = Math.max(...cells.map(({v}) => v));
    look.charts[i].draw('weights', {cells, cursor: []}, {top}, [side, side]);
  });
  const cells = run.views.flatMap((view) =>
    view.loss.map((y, i) => ({x: view.at[i], y, by: view.label})));
  const marks = [{at: run.trained, name: `trained at ${run.trained}`}];
  look.losses.draw('loss', {cells, marks}, {}, 300);
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
  show();
}

