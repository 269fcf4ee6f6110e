// The schemes in JavaScript ("twins"), for a page that cannot call Python. A scheme needs no twin;
// with one, the page has controls for its arguments. Tests compare both with each other.
//
// Hooks, each the identity unless overridden: `added(m)` [D] is added to the embedding at position
// m, pair i of queries and keys rotates by `angle(m, i, length)` and is multiplied by
// exp(`fade(m, i)`) (keys: by its inverse), `bias(h, m, n)` is added to the logit, and
// `scale(h, m, length)` multiplies q.k.
//
// `args` are the arguments of the Python scheme, `dims` its Dims, `learned` its parameters by name.
'use strict';

const BASE = [10, 1000000, 'log'];
const range = (n) => Array.from({length: n}, (_, i) => i);
const clip = (x, low, high) => Math.min(Math.max(x, low), high);

class NoPE {
  // Inputs for its arguments: a list of words, or [least, most, step].
  static controls() { return {}; }

  // Values of arguments that are null.
  static derived() { return {}; }

  // Arguments without effect at these values; `trained`: parameters are those of a run.
  static idle() { return []; }

  // Whether anything depends on the number of heads.
  static byHeads() { return false; }

  constructor(args, dims, learned) {
    Object.assign(this, {args, dims, learned, heads: dims.heads, pairs: 0, sees: Infinity});
  }

  // Whether the twin supports these arguments.
  static covers(args) { return (args.slice_factor ?? 1) === 1 && !args.bidirectional; }

  // The arguments for an extension by `factor`.
  static stretched(args, factor) { return 'factor' in args ? {...args, factor} : args; }

  added() { return null; }
  angle() { return 0; }
  fade() { return 0; }
  bias() { return 0; }
  scale() { return 1; }
}

class Learned extends NoPE {
  added(m) {
    const scale = this.args.scaled ? Math.sqrt(this.dims.width) : 1;
    const row = this.learned.table[m];
    return row ? row.map((x) => x * scale) : Array(this.dims.width).fill(NaN);
  }
}

class Sinusoidal extends NoPE {
  static controls() {
    return {base: BASE, layout: ['paper', 'tensor2tensor', 'concatenated'], scale: [0.1, 4, 0.1]};
  }

  added(m) {
    const {width} = this.dims, {base, layout, scale} = this.args, half = Math.floor(width / 2);
    const rate = layout === 'tensor2tensor'
      ? (i) => base ** (-i / (half - 1)) : (i) => base ** (-2 * i / width);
    const count = layout === 'tensor2tensor' ? half : Math.ceil(width / 2);
    const wave = (c) => {
      if (layout === 'paper') return (c % 2 ? Math.cos : Math.sin)(m * rate(c >> 1));
      if (c < count) return Math.sin(m * rate(c));
      return c < count + half ? Math.cos(m * rate(c - count)) : 0;
    };
    return range(width).map((c) => scale * wave(c));
  }
}

class T5 extends NoPE {
  static controls() { return {buckets: [4, 64, 2], max_distance: [40, 512, 8]}; }

  constructor(args, dims, learned, built) {
    super(args, dims, learned);
    this.heads = learned.table[0].length;
    const {buckets, max_distance: most} = args;
    // New buckets take the trained value at their smallest distance.
    const given = built.arguments, seen = Array(buckets);
    for (const d of range(most + 1).reverse()) seen[T5.bucket(d, buckets, most)] = d;
    this.row = seen.map((d) => T5.bucket(d, given.buckets, given.max_distance));
    this.unscaled = args.scale_logits ? 1 : Math.sqrt(dims.rotary);
  }

  static bucket(distance, buckets, most) {
    const exact = Math.floor(buckets / 2), f32 = Math.fround;
    if (distance < exact) return distance;
    const share = f32(f32(Math.log(f32(distance / exact))) / f32(Math.log(most / exact)));
    return Math.min(exact + Math.trunc(f32(share * (buckets - exact))), buckets - 1);
  }

  bias(h, m, n) {
    const {buckets, max_distance: most} = this.args;
    return this.learned.table[this.row[T5.bucket(Math.max(m - n, 0), buckets, most)]][h];
  }

  scale() { return this.unscaled; }
}

class ALiBi extends NoPE {
  static controls({heads}) { return {max_bias: [1, 16, 0.5], biased_heads: [1, heads, 1]}; }

  static derived(args, {heads}) { return {biased_heads: heads}; }

  static byHeads() { return true; }

  constructor(args, dims, learned) {
    super(args, dims, learned);
    const biased = Math.min(args.biased_heads ?? dims.heads, dims.heads);
    const lower = 2 ** Math.floor(Math.log2(biased));
    const slope = (h) => h < lower
      ? 2 ** (-args.max_bias * (h + 1) / lower)
      : 2 ** (-args.max_bias * (2 * (h - lower) + 1) / (2 * lower));
    this.slopes = range(dims.heads).map((h) => h < biased ? slope(h) : 0);
  }

  bias(h, m, n) { return -this.slopes[h] * (m - n); }
}

class Kerple extends NoPE {
  static controls() { return {kernel: ['log', 'power']}; }

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.heads = learned.r1.length;
  }

  bias(h, m, n) {
    const d = Math.max(m - n, 0), log = this.args.kernel === 'log';
    const r1 = Math.max(this.learned.r1[h], 0.01);
    const r2 = clip(this.learned.r2[h], 0.01, log ? Infinity : 2);
    if (log) return -r1 * Math.log1p(r2 * d);
    return d ? -r1 * d ** r2 : 0;
  }
}

class FIRE extends NoPE {
  static controls() { return {threshold: [8, 1024, 'log']}; }

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.heads = learned.outer_bias.length;
  }

  bias(h, m, n) {
    const p = this.learned, psi = (x) => Math.log(Math.abs(p.rate) * x + 1);
    const start = Math.abs(p.multiplier * this.args.threshold);
    const share = psi(Math.abs(m - n)) / (psi(Math.max(m, start)) + 1e-6);
    return p.inner.reduce(
      (sum, w, j) => sum + Math.max(share * w + p.inner_bias[j], 0) * p.outer[j][h],
      p.outer_bias[h]);
  }
}
