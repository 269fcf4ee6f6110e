// One of the four panels: a scheme, drawn as its mechanism or as its logit modifier.

const MOST = 40; // heads drawn as lines: the number of combinations of colour and dash

class Panel {
  constructor(root, first, place) {
    this.where = `panel ${place}`;
    this.family = make('h3');
    const set = (name) => { this.pick(name); update(); };
    this.chooser = chooser(first, `scheme of ${this.where}`, set);
    this.formula = make('p', {className: 'formula'});
    this.figure = make('div', {className: 'chart'});
    this.readout = make('p', {className: 'readout'});
    this.inputs = make('div', {className: 'controls'});
    const parts = [this.family, this.chooser, this.formula, this.figure, this.readout, this.inputs];
    root.append(make('section', {className: 'panel'}, ...parts));
    this.chart = new Chart(this.figure, (cell) => this.choose(cell));
    this.pick(first);
  }

  pick(name) {
    this.name = name;
    this.reset();
  }

  reset() { this.args = structuredClone(this.given.arguments); }

  get given() { return DATA.schemes[this.name]; }

  get twin() {
    const twin = this.given.twin ? TWINS[this.name] : null;
    return twin?.covers(this.args) ? twin : null;
  }

  get dims() { return {...this.given.dims, ...state.shared}; }

  // Inputs that have an effect; rebuilt when their set changes.
  controls() {
    const {twin, args, dims, given} = this, known = twin?.controls(dims) ?? {};
    const idle = twin?.idle(args, dims, given.trained) ?? [];
    const fields = Object.keys(known).filter((field) => field in args && !idle.includes(field));
    const asked = [this.name, fields.map((field) => [field, known[field]])];
    if (!same(asked, this.asked)) this.build(fields, known);
    this.asked = asked;
    const derived = twin?.derived(args, dims);
    fields.forEach((field, i) => {
      if (args[field] === null && field in derived) this.inputs.children[i].follow(derived[field]);
    });
  }

  build(fields, known) {
    const active = document.activeElement?.closest('.controls') === this.inputs
      && document.activeElement.getAttribute('aria-label');
    const input = (field) => control(field.replaceAll('_', ' '), known[field], this.args[field],
      (value) => { this.args[field] = value; update(); }, this.where);
    const reset = make('button', {type: 'button', onclick: () => this.restore()}, 'reset');
    reset.setAttribute('aria-label', `reset, ${this.where}`);
    this.inputs.replaceChildren(...fields.map(input), ...(fields.length ? [reset] : []));
    if (active) this.inputs.querySelector(`[aria-label="${active}"]`)?.focus();
  }

  restore() {
    this.reset();
    this.asked = null;
    update();
  }

  prepare() {
    this.m = Math.min(state.m, state.length - 1);
    this.n = Math.min(state.n, this.m);
    this.values = valuesOf(this.name, this.args, state.shared, state.length);
    this.controls();
    if (!this.values) return 0;
    this.kind = state.modifier ? 'modifier' : kindOf(this.name, this.values);
    this.head = Math.min(state.head, this.values.heads - 1);
    if (this.picked !== state.head) this.line = this.head;
    this.line = Math.min(this.line, this.values.heads - 1);
    this.picked = state.head;
    this.cells = this.rows();
    this.faded = this.decay();
    return this.cells.reduce((top, {v}) => Math.max(top, Math.abs(v) || 0), 0);
  }

  // The heads that are drawn as lines, the selected one included.
  heads() {
    const first = range(Math.min(this.values.heads, MOST));
    return first.includes(this.head) ? first : [...first.slice(0, -1), this.head];
  }

  rows() {
    const {values, kind, head} = this, cells = [], count = state.length;
    if (kind === 'penalty') {
      const line = (h) => range(count).map((d) => ({x: d, y: values.bias(h, d, 0), by: `${h}`}));
      return this.heads().flatMap(line);
    }
    const pairs = kind === 'bias' || kind === 'modifier';
    for (let m = 0; m < count; m++) {
      const row = pairs ? range(m + 1).map((n) => values[kind](head, m, n))
        : kind === 'added' ? values.row(m) : range(values.pairs).map((i) => values.turn(m, i));
      row.forEach((v, x) => { if (!Number.isNaN(v)) cells.push({x, y: m, v}); });
    }
    return cells;
  }

  // The modifier of the last query by distance: a line per head, or one if all are equal.
  decay() {
    const {values} = this, last = state.length - 1;
    const line = (h) => range(last + 1).map((d) => values.modifier(h, last, last - d));
    const lines = this.heads().map((h) => [`${h}`, line(h)]);
    this.alike = range(values.heads).every((h) => same(line(h), lines[0][1]));
    return (this.alike ? [['all', lines[0][1]]] : lines).flatMap(([by, found]) =>
      found.map((y, x) => ({x, y, by})).filter(({y}) => !Number.isNaN(y)));
  }

  draw(top) {
    const {given, values} = this, kind = values ? kindOf(this.name, values) : given.kind;
    const [family, means] = DATA.families[kind];
    this.family.replaceChildren(family, make('small', {}, means));
    this.formula.innerHTML = given.formula;
    const drawn = given.drawn && 'trained with random positions, which are not shown here';
    const notes = [...given.notes, drawn];
    this.formula.append(make('span', {}, ...papers(given.paper)),
      ...notes.filter(Boolean).map((note) => make('span', {}, `${note}.`)));
    this.figure.hidden = !values;
    if (!values) {
      this.readout.textContent = refusal(this.name, state.length);
      return null;
    }
    const angles = state.length <= DATA.hands ? 'hands' : 'angles';
    const shape = this.kind === 'penalty' ? [1, 1] : [this.across, state.length];
    this.say();
    return this.chart.draw(this.kind === 'angles' ? angles : this.kind, this.cells,
      {signals: {top: this.kind === 'angles' ? Math.PI : top || 1}, shape});
  }

  get onPairs() { return this.kind === 'added' || this.kind === 'angles'; }

  get across() {
    if (this.kind === 'added') return this.values.row(0).length;
    return this.kind === 'angles' ? this.values.pairs : state.length;
  }

  // A point of a line is a distance; the query moves if it is too short for that.
  choose({x, y, by}) {
    if (by !== undefined) {
      this.line = Number(by);
      state.m = Math.max(this.m, x);
      state.n = state.m - x;
    } else {
      state.m = y;
      state[this.onPairs ? 'c' : 'n'] = x;
    }
    move();
  }

  say() {
    const {values, kind, m, n} = this, parts = [], c = Math.min(state.c, this.across - 1);
    const head = kind === 'penalty' ? this.line : this.head, bias = values.bias(head, m, n);
    let cell = {x: this.onPairs ? c : n, y: m};
    if (kind === 'penalty') {
      cell = {x: m - n, y: bias, by: `${head}`};
      parts.push(`head ${head}, distance ${m - n}: bias ${signed(bias)}`);
    } else if (kind === 'added') {
      parts.push(`position ${m}, channel ${c}: ${signed(values.row(m)[c])} onto the embedding`);
    } else if (kind === 'angles') {
      parts.push(`position ${m}, pair ${c}: turned by ${plain(values.turn(m, c))} rad`);
    } else if (kind === 'bias') {
      parts.push(`query ${m}, key ${n}: bias ${signed(bias)}`);
    }
    const effect = values.modifier(head, m, n);
    parts.push(Number.isNaN(effect) ? `query ${m} does not see key ${n}`
      : `on the logit of query ${m} and key ${n}, ${m - n} back: ${signed(effect)}`);
    if (!this.alike) parts.push(`head ${head} of ${values.heads}`);
    this.readout.textContent = `${parts.join('; ')}.`;
    this.chart.read(cell, `${this.given.label}: ${parts.join('; ')}`);
  }

  move() {
    this.m = Math.min(state.m, state.length - 1);
    this.n = Math.min(state.n, this.m);
    if (this.values) this.say();
  }
}

function papers(text) {
  return text.split(/(arXiv:\d{4}\.\d{4,5})/).map((part) => part.startsWith('arXiv:')
    ? make('a', {href: `https://arxiv.org/abs/${part.slice(6)}`}, part) : part);
}
