// Wavelengths of the schemes that turn, trained and stretched.

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
