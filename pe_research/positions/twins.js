// What every scheme computes, a second time, for a page that cannot call Python. A scheme needs
// none; with one, a page has controls for its arguments. Tests hold both to the same numbers.
//
// Hooks, each the identity unless overridden: `added(m)` [D] goes onto the embedding at position m,
// pair i of queries and keys turns by `angle(m, i, length)` and fades by exp(`fade(m, i)`) (keys:
// its inverse), `bias(h, m, n)` goes onto the logit and `scale(h, m, length)` multiplies q.k.
//
// `args` are the arguments of the Python scheme, `dims` its Dims, `learned` its parameters by name.
'use strict';

const BASE = [10, 1000000, 'log'], FACTOR = [1, 16, 0.5], FRACTION = [0.125, 1, 0.125];
const range = (n) => Array.from({length: n}, (_, i) => i);
const clip = (x, low, high) => Math.min(Math.max(x, low), high);

class NoPE {
  static controls = {};

  constructor(args, dims, learned) {
    Object.assign(this, {args, dims, learned, heads: dims.heads, pairs: 0, sees: Infinity});
  }

  // Whether these arguments are none of the few that no twin follows.
  static covers(args) { return (args.slice_factor ?? 1) === 1 && !args.bidirectional; }

  // The arguments for a stretch by `factor`, where there is one.
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
  static controls = {base: BASE, layout: ['paper', 'tensor2tensor', 'concatenated']};

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
  static controls = {buckets: [4, 64, 2], max_distance: [40, 512, 8]};

  constructor(args, dims, learned, trained) {
    super(args, dims, learned);
    this.heads = learned.table[0].length;
    const {buckets, max_distance: most} = args;
    // Buckets that were not trained read what was at their nearest distance.
    const given = trained ?? args, seen = Array(buckets);
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
  static controls = {max_bias: [1, 16, 0.5]};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    const biased = args.biased_heads ?? dims.heads, lower = 2 ** Math.floor(Math.log2(biased));
    const slope = (h) => h < lower
      ? 2 ** (-args.max_bias * (h + 1) / lower)
      : 2 ** (-args.max_bias * (2 * (h - lower) + 1) / (2 * lower));
    this.slopes = range(dims.heads).map((h) => h < biased ? slope(h) : 0);
  }

  bias(h, m, n) { return -this.slopes[h] * (m - n); }
}

class Kerple extends NoPE {
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
  static controls = {threshold: [8, 1024, 'log']};

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

class RoPE extends NoPE {
  static controls = {base: BASE, fraction: FRACTION};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    const {fraction = 1, partial = 'width'} = args;
    const share = Math.floor(dims.rotary * fraction + 1e-6);
    this.rotated = partial === 'width' ? share - share % 2 : dims.rotary;
    this.pairs = Math.floor(share / 2); // that turn
    this.trained = args.train_length ?? dims.length; // tokens
  }

  spectrum(base) {
    return range(this.pairs).map((i) => base ** (-2 * i / this.rotated));
  }

  widened(factor) { return this.args.base * factor ** (this.rotated / (this.rotated - 2)); }

  frequencies() { return this.spectrum(this.args.base); }

  angle(m, i, length) { return m * this.frequencies(length)[i]; }
}

class PRoPE extends RoPE {}

class RNoPE extends RoPE {
  static controls = {base: BASE, period: [1, 8, 1], window: [1, 256, 1]};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.turns = (dims.layer + 1) % args.period !== 0;
    const window = args.window ?? Math.max(1, Math.floor(dims.length / 2));
    if (this.turns && window) this.sees = window;
    if (!this.turns) this.pairs = 0;
  }
}

class XPos extends RoPE {
  static controls = {base: BASE, scale_base: [16, 2048, 'log'], gamma: [0.1, 2, 0.1]};

  fade(m, i) {
    const {gamma, scale_base: spread} = this.args;
    return m * Math.log((2 * i / this.rotated + gamma) / (1 + gamma)) / spread;
  }
}

class ByHead extends RoPE {
  static controls = {base: BASE};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.heads = learned.scale.length;
  }

  scale(h, m) { return Math.log(m + 1) * this.learned.scale[h]; }
}

class SSMax extends ByHead {
  static controls = {};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.pairs = 0;
  }
}

class LogN extends RoPE {
  scale(h, m) { return Math.max(Math.log(m + 1) / Math.log(this.trained), 1); }
}

class PI extends RoPE {
  static controls = {base: BASE, factor: FACTOR};

  frequencies() { return super.frequencies().map((f) => f / this.args.factor); }
}

class NTK extends PI {
  frequencies() { return this.spectrum(this.widened(this.args.factor)); }
}

class DynamicNTK extends PI {
  static stretched(args) { return args; } // by the length alone

  frequencies(length) {
    const {factor} = this.args, over = Math.max(length / this.trained, 1);
    return this.spectrum(this.widened(factor * over - (factor - 1)));
  }
}

class ABF extends RoPE {
  static controls = {base: BASE, new_base: BASE};

  frequencies() { return this.spectrum(this.args.new_base); }
}

class DroPE extends PI {
  static controls = {factor: FACTOR, coefficient: [0, 1, 0.05]};

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.pairs = 0;
  }

  scale() { return 1 + this.args.coefficient * Math.log(this.args.factor); }
}

class ByParts extends PI {
  mixed(factor) {
    const own = this.spectrum(this.args.base);
    const gamma = this.gamma(own.map((f) => f * this.trained / (2 * Math.PI)));
    return own.map((f, i) => f * (gamma[i] + (1 - gamma[i]) / factor));
  }

  frequencies() { return this.mixed(this.args.factor); }
}

class NTKByParts extends ByParts {
  static controls = {
    base: BASE, factor: FACTOR, ramp: ['pairs', 'unrounded', 'rotations'],
    beta_fast: [2, 64, 0.5], beta_slow: [0.25, 1.75, 0.25],
  };

  gamma(rotations) {
    const {ramp, beta_fast: fast, beta_slow: slow, base} = this.args;
    if (ramp === 'rotations') return rotations.map((r) => clip((r - slow) / (fast - slow), 0, 1));
    const pair = (turns) =>
      this.rotated * Math.log(this.trained / (2 * Math.PI * turns)) / (2 * Math.log(base));
    let [low, high] = [pair(fast), pair(slow)];
    if (ramp === 'pairs') [low, high] = [Math.floor(low), Math.ceil(high)];
    [low, high] = [Math.max(low, 0), Math.min(high, this.rotated - 1)];
    if (low === high) high += 0.001;
    return rotations.map((_, i) => 1 - clip((i - low) / (high - low), 0, 1));
  }
}

class Llama3 extends ByParts {
  static controls = {
    base: BASE, factor: FACTOR, low_freq_factor: [0.25, 3.75, 0.25], high_freq_factor: [4, 16, 0.5],
  };

  gamma(rotations) {
    const {low_freq_factor: low, high_freq_factor: high} = this.args;
    return rotations.map((r) => clip((r - low) / (high - low), 0, 1));
  }
}

class YaRN extends NTKByParts {
  temperature(factor) {
    const {attention_factor: given, mscale, mscale_all_dim: all} = this.args;
    const by = (weight) => 0.1 * weight * Math.log(factor) + 1;
    return given ?? (mscale && all ? by(mscale) / by(all) : by(1));
  }

  scale() { return this.temperature(this.args.factor) ** 2; }
}

class DynamicYaRN extends YaRN {
  factor(length) { return Math.max(length / this.trained, this.args.factor ?? 1, 1); }
  frequencies(length) { return this.mixed(this.factor(length)); }
  scale(h, m, length) { return this.temperature(this.factor(length)) ** 2; }
}

class LongRoPE extends PI {
  static controls = {
    base: BASE, start_tokens: [0, 64, 1], temperature: ['none', 'su', 'yarn'],
  };

  static stretched(args, factor) {
    const last = args.long_factor.length - 1;
    const long = args.long_factor.map((_, i) => factor ** ((i / Math.max(last, 1)) ** 2));
    return {...args, factor, long_factor: long};
  }

  isShort(length) {
    const {short_factor: short, switch_length: last} = this.args;
    return short != null && length <= (last ?? this.trained);
  }

  frequencies(length) {
    const {short_factor: short, long_factor: long} = this.args;
    const factors = this.isShort(length) ? short : long;
    return this.spectrum(this.args.base).map((f, i) => f / factors[i]);
  }

  angle(m, i, length) {
    const {short_start_tokens: short, start_tokens: long} = this.args;
    const first = (this.isShort(length) ? short : long) ?? 0;
    return m < first ? m * this.spectrum(this.args.base)[i] : super.angle(m, i, length);
  }

  scale() {
    const {temperature, factor, attention_factor: given} = this.args;
    if (given != null) return given ** 2;
    if (temperature === 'yarn') return (0.1 * Math.log(factor) + 1) ** 2;
    return temperature === 'su' ? 1 + Math.log(factor) / Math.log(this.trained) : 1;
  }
}

const TWINS = {
  nope: NoPE, learned: Learned, sinusoidal: Sinusoidal, t5: T5, rope: RoPE, alibi: ALiBi,
  kerple: Kerple, fire: FIRE, xpos: XPos, p_rope: PRoPE, rnope: RNoPE, ssmax: SSMax,
  ssmax_rope: ByHead, randomized: RoPE, pi: PI, ntk: NTK, dynamic_ntk: DynamicNTK,
  ntk_by_parts: NTKByParts, yarn: YaRN, dynamic_yarn: DynamicYaRN, longrope: LongRoPE,
  llama3: Llama3, abf: ABF, log_n: LogN, drope: DroPE, pose: PI, rand_pos: PI,
};
