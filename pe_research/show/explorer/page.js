// Sets up the page, and redraws it.

const panels = [], decays = [], shared = {};
let waiting = false;

function redraw() {
  const tops = panels.map((panel) => panel.prepare());
  showShared();
  return Promise.all(panels.map((panel, i) => panel.draw(tops[i])));
}

// Shows the shared inputs that affect at least one panel, with their limits.
function showShared() {
  const most = (of) => Math.max(0, ...panels.map(of));
  const heads = most(({values, alike}) => values && !alike ? values.heads : 0);
  const layers = most(({given}) => given.layered ? given.parameters.length : 0);
  shared.head.hidden = heads < 2;
  shared.heads.hidden = !panels.some(({twin, args}) => twin?.byHeads(args));
  shared.layer.hidden = layers < 2;
  shared.head.querySelector('input').max = Math.max(heads - 1, 1);
  shared.layer.querySelector('input').max = Math.max(layers - 1, 1);
}

// Redraws at most once per frame.
function update() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    redraw();
    decays.forEach((decay) => decay.draw());
  });
}

function move() { panels.forEach((panel) => panel.move()); }

// The panels are drawn before the sections below them.
async function setUp() {
  const bar = document.getElementById('bar'), {shared: dims, wave} = state;
  document.getElementById('modifier').onchange = (event) => {
    state.modifier = event.target.checked;
    update();
  };
  const of = (object, field, then) => (value) => { object[field] = value; then(); };
  Object.assign(shared, {
    length: control('length (tokens)', [8, 256, 1], state.length, of(state, 'length', update)),
    head: control('head', [0, 15, 1], state.head, of(state, 'head', update), 'of panels'),
    heads: control('heads', [1, 16, 1], dims.heads, of(dims, 'heads', update), 'of panels'),
    layer: control('layer', [0, 3, 1], dims.layer, of(dims, 'layer', update), 'of panels'),
    trained: control('training length (tokens)', [8, 256, 8], dims.length,
      of(dims, 'length', () => { update(); drawWaves(); })),
  });
  bar.append(...Object.values(shared));
  DATA.first.forEach((name, i) =>
    panels.push(new Panel(document.getElementById('panels'), name, i + 1)));
  await redraw();
  await new Promise(requestAnimationFrame);
  decays.push(...panels.map((panel) => new Decay(document.getElementById('decay'), panel)));
  document.getElementById('wave-bar').append(
    control('stretch (×)', [1, 16, 0.5], wave.factor, of(wave, 'factor', drawWaves),
      'of wavelengths'),
    control('base', [10, 1000000, 'log'], wave.base, of(wave, 'base', drawWaves),
      'of wavelengths'));
  for (const name of turning) {
    const box = make('input', {type: 'checkbox', value: name, onchange: drawWaves});
    box.checked = atFirst.includes(name);
    document.getElementById('wave-schemes').append(
      make('label', {}, box, DATA.schemes[name].label));
  }
  const again = () => { update(); drawWaves(); if (DATA.looks.length) drawLooks(); };
  dark.addEventListener('change', again);
  addEventListener('resize', again);
  await Promise.all([...decays.map((decay) => decay.draw()), drawWaves(), setUpLooks()]);
}

const ready = setUp();
