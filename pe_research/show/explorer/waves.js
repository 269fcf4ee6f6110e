// Wavelengths of the rotary schemes, as trained and extended.

const waves = new Reader(document.getElementById('waves'), ({x, y, by}) => {
  const turns = state.shared.length / y;
  return `${by}, pair ${x}: rotates once in ${plain(y)} tokens, ${plain(turns)} times within the ` +
    `training length of ${state.shared.length}.`;
});

function wavelengths(name) {
  const given = DATA.schemes[name], {factor, base} = state.wave, kind = TWINS[name];
  const args = kind.stretched({...given.arguments, base}, factor);
  const dims = {...given.dims, length: state.shared.length};
  const twin = new kind(args, dims, given.parameters[0], given);
  const target = factor * state.shared.length;
  return twin.pairs ? twin.frequencies(target).map((f) => 2 * Math.PI / f) : [];
}

// Schemes with rotating pairs; shown at first are one that others extend, and its extensions that
// change wavelengths.
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
  const marks = [{at: trained, name: `training length, ${trained}`, side: 1}];
  if (target > trained) marks.push({at: target, name: `target length, ${target}`, side: -1});
  const most = Math.max(0, ...found.map(([, all]) => all.length));
  const row = (tag, first, rest) => make('tr', {}, make('th', {scope: tag}, first),
    ...rest.map((text) => tag === 'col' ? make('th', {scope: 'col'}, text) : make('td', {}, text)));
  document.getElementById('wave-table').replaceChildren(
    row('col', 'wavelength of pair (tokens)', range(most).map(String)),
    ...found.map(([label, all]) => row('row', label, all.map(plain))));
  const notes = chosen.map((name) => DATA.schemes[name]).filter(({factors}) => factors);
  document.getElementById('wave-notes').textContent =
    notes.map(({label, factors}) => `${label}: ${factors}.`).join(' ');
  return waves.draw('waves', cells, {marks, shape: 340});
}
