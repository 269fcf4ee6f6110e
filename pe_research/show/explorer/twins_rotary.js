// Twins of rotary schemes, and the table of all twins.

const FACTOR = [1, 16, 0.5];
// Fractions of a head that are whole pairs, at least `pairs` of them.
const fraction = (rotary, pairs = 1) => [2 * pairs / rotary, 1, 2 / rotary];
const half = (length) => Math.max(1, Math.floor(length / 2));

class RoPE extends NoPE {
  static controls({rotary}) {
    return {base: BASE, fraction: fraction(rotary), partial: ['width', 'frequencies']};
  }

  static idle({fraction: share}) { return share === 1 ? ['partial'] : []; }

  constructor(args, dims, learned) {
    super(args, dims, learned);
    const {fraction = 1, partial = 'width'} = args;
    const share = Math.floor(dims.rotary * fraction + 1e-6);
    this.rotated = partial === 'width' ? share - share % 2 : dims.rotary;
    this.pairs = Math.floor(share / 2); // that rotate
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
  static controls(dims) {
    return {...super.controls(dims), period: [1, 8, 1], window: [0, 256, 1]};
  }

  static derived(args, {length}) { return {window: half(length)}; }

  static idle(args, {layer}) {
    const still = (layer + 1) % args.period === 0;
    return still ? ['base', 'fraction', 'partial', 'window'] : super.idle(args);
  }

  constructor(args, dims, learned) {
    super(args, dims, learned);
    this.turns = (dims.layer + 1) % args.period !== 0;
    const window = args.window ?? half(dims.length);
    if (this.turns && window) this.sees = window;
    if (!this.turns) this.pairs = 0;
  }
}

class XPos extends RoPE {
  static controls({rotary}) {
    return {
      base: BASE, fraction: fraction(rotary), scale_base: [16, 2048, 'log'], gamma: [0.1, 2, 0.1],
    };
  }

  // Pairs that do not rotate fade too, which the twin does not compute.
  static covers(args) {
    return super.covers(args) && (args.fraction === 1 || args.partial === 'width');
  }

  fade(m, i) {
    const {gamma, scale_base: spread} = this.args;
    return m * Math.log((2 * i / this.rotated + gamma) / (1 + gamma)) / spread;
  }
}

class ByHead extends RoPE {
  static controls(dims) { return {...super.controls(dims), initial: [0.05, 1, 0.05]}; }

  static derived(args, {length}) { return {initial: 1 / Math.log(Math.max(length, 2))}; }

  static idle(args, dims, trained) {
    return [...super.idle(args), ...(trained ? ['initial'] : [])];
  }

  // Without training every head has the initial value.
  constructor(args, dims, learned, built) {
    super(args, dims, learned);
    this.heads = learned.scale.length;
    const initial = args.initial ?? ByHead.derived(args, dims).initial;
    this.sharpness = built.trained ? learned.scale : learned.scale.map(() => initial);
  }

  scale(h, m) { return Math.log(m + 1) * this.sharpness[h]; }
}

class SSMax extends ByHead {
  static controls(dims) { return {initial: super.controls(dims).initial}; }

  constructor(args, dims, learned, built) {
    super(args, dims, learned, built);
    this.pairs = 0;
  }
}

class LogN extends RoPE {
  scale(h, m) { return Math.max(Math.log(m + 1) / Math.log(this.trained), 1); }
}

class PI extends RoPE {
  static controls(dims) { return {...super.controls(dims), factor: FACTOR}; }

  frequencies() { return super.frequencies().map((f) => f / this.args.factor); }
}

class NTK extends PI {
  static controls({rotary}) { return {...super.controls({rotary}), fraction: fraction(rotary, 2)}; }

  frequencies() { return this.spectrum(this.widened(this.args.factor)); }
}

class DynamicNTK extends NTK {
  static stretched(args) { return args; } // depends on the length only

  frequencies(length) {
    const {factor} = this.args, over = Math.max(length / this.trained, 1);
    return this.spectrum(this.widened(factor * over - (factor - 1)));
  }
}

class ABF extends RoPE {
  static controls({rotary}) {
    const {base, ...others} = super.controls({rotary});
    return {new_base: base, ...others};
  }

  static derived({base}) { return {new_base: 50 * base}; }

  frequencies() { return this.spectrum(this.args.new_base ?? 50 * this.args.base); }
}

class DroPE extends PI {
  static controls() { return {factor: FACTOR, coefficient: [0, 1, 0.05]}; }

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
  static controls(dims) {
    return {
      ...super.controls(dims), ramp: ['pairs', 'unrounded', 'rotations'],
      beta_fast: [2, 64, 0.5], beta_slow: [0.25, 1.75, 0.25],
    };
  }

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
  static controls(dims) {
    return {
      ...super.controls(dims), low_freq_factor: [0.25, 3.75, 0.25], high_freq_factor: [4, 16, 0.5],
    };
  }

  gamma(rotations) {
    const {low_freq_factor: low, high_freq_factor: high} = this.args;
    return rotations.map((r) => clip((r - low) / (high - low), 0, 1));
  }
}

class YaRN extends NTKByParts {
  static controls(dims) { return {...super.controls(dims), attention_factor: [0.5, 2, 0.05]}; }

  static derived(args) { return {attention_factor: YaRN.temperature(args, args.factor ?? 1)}; }

  static temperature(args, factor) {
    const {attention_factor: given, mscale, mscale_all_dim: all} = args;
    const by = (weight) => 0.1 * weight * Math.log(factor) + 1;
    return given ?? (mscale && all ? by(mscale) / by(all) : by(1));
  }

  scale() { return YaRN.temperature(this.args, this.args.factor) ** 2; }
}

class DynamicYaRN extends YaRN {
  static derived(args) { return {...super.derived(args), factor: 1}; }

  factor(length) { return Math.max(length / this.trained, this.args.factor ?? 1, 1); }
  frequencies(length) { return this.mixed(this.factor(length)); }
  scale(h, m, length) { return YaRN.temperature(this.args, this.factor(length)) ** 2; }
}

class LongRoPE extends PI {
  static controls() {
    return {
      base: BASE, start_tokens: [0, 64, 1], temperature: ['none', 'su', 'yarn'], factor: FACTOR,
    };
  }

  static derived() { return {start_tokens: 0}; }

  static idle({temperature}) { return ['su', 'yarn'].includes(temperature) ? [] : ['factor']; }

  // Searched factors are for one factor; those of an illustration are adapted to any.
  static stretched(args, factor) {
    if (args.lineage) return args;
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
