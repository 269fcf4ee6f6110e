// Values of schemes at any arguments: embedded by Python, or computed by a twin. These scripts know
// no scheme by name.

const DATA = JSON.parse(document.getElementById('data').textContent);
const dark = matchMedia('(prefers-color-scheme: dark)');
const make = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};
const signed = (x) => Number.isFinite(x)
  ? (Math.abs(x) < 2e-6 ? '0' : `${x < 0 ? '−' : '+'}${Number(Math.abs(x).toPrecision(5))}`)
  : 'none'; // smaller values are rounding errors of float32
const plain = (x) => Number.isFinite(x)
  ? (x && Math.abs(x) < 1e-5 ? x.toExponential(3)
    : x.toLocaleString('en', {maximumSignificantDigits: 5})).replaceAll('-', '−') : '∞';

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const unpacked = (text) => new Float32Array(bytesOf(text).buffer);

// Values of the Python module at one length.
class Embedded {
  constructor(given, length) {
    const values = given.values[length];
    this.length = length;
    this.width = given.dims.width;
    this.arrays = Object.fromEntries(
      Object.entries(values).map(([kind, text]) => [kind, text && unpacked(text)]));
    this.heads = this.arrays.modifier.length / length ** 2;
    this.pairs = (this.arrays.angles?.length ?? 0) / length;
  }

  #of(kind, h, m, n) { return this.arrays[kind][(h * this.length + m) * this.length + n]; }
  row(m) {
    const {arrays: {added}, width} = this;
    return added && [...added.subarray(m * width, (m + 1) * width)];
  }
  turn(m, i) { return this.arrays.angles[m * this.pairs + i]; }
  bias(h, m, n) { return this.arrays.bias ? this.#of('bias', h, m, n) : 0; }
  modifier(h, m, n) { return this.#of('modifier', h, m, n); }
}

// Values of a twin, with the methods of Embedded, at any arguments and length.
class Computed {
  constructor(given, name, args, dims, length) {
    const own = given.parameters[Math.min(dims.layer, given.parameters.length - 1)];
    this.twin = new TWINS[name](args, dims, own, given);
    Object.assign(this, {dims, length, heads: this.twin.heads, pairs: this.twin.pairs});
    const turn = (m) => range(this.pairs).map((i) => this.twin.angle(m, i, length));
    this.turns = range(length).map(turn);
    this.rows = this.twin.added(0) && range(length).map((m) => this.twin.added(m));
  }

  row(m) { return this.rows && this.rows[m]; }
  turn(m, i) {
    const turn = 2 * Math.PI, angle = this.turns[m][i];
    return angle - turn * Math.round(angle / turn);
  }
  bias(h, m, n) { return this.twin.bias(h, m, n); }

  modifier(h, m, n) {
    const {twin, dims: {rotary: width, width: whole}} = this;
    if (m - n >= twin.sees) return NaN;
    let content = width - 2 * this.pairs;
    for (let i = 0; i < this.pairs; i++) {
      const fade = Math.exp(twin.fade(m, i) - twin.fade(n, i));
      content += 2 * fade * Math.cos(this.turns[m][i] - this.turns[n][i]);
    }
    if (this.rows) {
      const [a, b] = [this.rows[m], this.rows[n]];
      content += width / whole * a.reduce((sum, x, c) => sum + x * b[c], 0);
    }
    const scaled = twin.scale(h, m, this.length) * content;
    return (scaled - width) / Math.sqrt(width) + twin.bias(h, m, n);
  }
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// Values from Python if they are embedded for these arguments, otherwise from the twin; null if
// there are none, and `refusal` says why.
function valuesOf(name, args, shared, length) {
  const given = DATA.schemes[name];
  if (given.limit && length > given.limit) return null;
  const dims = {...given.dims, ...shared};
  const asBuilt = same(args, given.arguments) && same(dims, given.dims);
  if (asBuilt && given.values[length]) return new Embedded(given, length);
  const covered = given.twin && TWINS[name].covers(args);
  return covered ? new Computed(given, name, args, dims, length) : null;
}

function refusal(name, length) {
  const given = DATA.schemes[name], known = Object.keys(given.values).join(', ');
  if (given.limit && length > given.limit) {
    return `'${given.label}' holds ${given.limit} positions; asked for ${length}. ${given.remedy}`;
  }
  return `${given.label}: the page has its values at lengths ${known} and default arguments only.`;
}

function kindOf(name, values) {
  const {kind} = DATA.schemes[name];
  return kind === 'angles' && !values.pairs ? 'modifier' : kind;
}

