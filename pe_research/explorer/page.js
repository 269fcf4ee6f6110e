// The order in which the page is set up, and drawn again.

const panels = [];
let waiting = false;

function redraw() {
  const tops = panels.map((panel) => panel.prepare());
  const shared = Math.max(...tops);
  panels.forEach((panel, i) => panel.draw(state.modifier ? shared : tops[i]));
}

// At most one drawing a frame, whatever moves.
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; redraw(); });
}

function move() { panels.forEach((panel) => panel.move()); }

function setUp() {
  const bar = document.getElementById('bar'), {shared, wave} = state;
  document.getElementById('modifier').onchange = (event) => {
    state.modifier = event.target.checked;
    update();
  };
  const of = (object, field, then) => (value) => { object[field] = value; then(); };
  bar.append(
    control('length (tokens)', [8, 256, 1], state.length, of(state, 'length', update)),
    control('head', [0, 15, 1], state.head, of(state, 'head', update)),
    control('heads', [1, 16, 1], shared.heads, of(shared, 'heads', update)),
    control('layer', [0, 3, 1], shared.layer, of(shared, 'layer', update)),
    control('training length (tokens)', [8, 256, 8], shared.length,
      of(shared, 'length', () => { update(); drawWaves(); })));
  const roots = ['panels', 'decay'].map((id) => document.getElementById(id));
  for (const name of DATA.first) panels.push(new Panel(...roots, name));
  document.getElementById('wave-bar').append(
    control('stretch (×)', [1, 16, 0.5], wave.factor, of(wave, 'factor', drawWaves)),
    control('base', [10, 1000000, 'log'], wave.base, of(wave, 'base', drawWaves)));
  for (const name of turning) {
    const box = make('input', {type: 'checkbox', value: name, onchange: drawWaves});
    box.checked = atFirst.includes(name);
    document.getElementById('wave-schemes').append(
      make('label', {}, box, DATA.schemes[name].label));
  }
  redraw();
  drawWaves();
  setUpLooks();
  const again = () => { update(); drawWaves(); if (DATA.looks.length) drawLooks(); };
  dark.addEventListener('change', again);
  addEventListener('resize', again);
}

setUp();
