// One of the four places: a scheme, drawn as it is or as what it does to logits.

const MOST = 8; // heads of which lines are drawn

class Panel {
  constructor(root, decay, first) {
    this.pick(first);
    this.chooser = chooser(first, (name) => { this.pick(name); this.controls(); update(); });
    this.formula = make('p', {className: 'formula'});
    this.figure = make('div', {className: 'chart', tabIndex: 0});
    this.figure.setAttribute('role', 'application');
    this.figure.setAttribute('aria-roledescription', 'heatmap');
    this.readout = make('output', {className: 'readout'});
    this.readout.setAttribute('aria-live', 'polite');
    this.inputs = make('div', {className: 'controls'});
    const title = make('h3', {}, this.chooser);
    const parts = [title, this.formula, this.figure, this.readout, this.inputs];
    root.append(make('section', {className: 'panel'}, ...parts));
    this.chart = new Chart(this.figure, (datum) => this.point(datum));
    this.figure.addEventListener('keydown', (event) => this.key(event));
    this.decayTitle = make('h3');
    this.decayFigure = make('div', {className: 'chart'});
    this.decayFigure.setAttribute('role', 'img');
    decay.append(make('section', {className: 'panel'}, this.decayTitle, this.decayFigure));
    this.decay = new Chart(this.decayFigure);
    this.controls();
  }

  pick(name) {
    this.name = name;
    this.args = structuredClone(DATA.schemes[name].arguments);
  }

  controls() {
    this.inputs.replaceChildren();
    const given = DATA.schemes[this.name], covered = given.twin && TWINS[this.name].covers(this.args);
    const known = covered ? TWINS[this.name].controls : {};
    for (const [field, kind] of Object.entries(known)) {
      if (!(field in this.args)) continue;
      const set = (value) => { this.args[field] = value; update(); };
      this.inputs.append(control(field.replaceAll('_', ' '), kind, this.args[field], set));
    }
  }

  prepare() {
    this.values = valuesOf(this.name, this.args, state.shared, state.length);
    if (!this.values) return 0;
    this.kind = state.modifier ? 'modifier' : kindOf(this.name, this.values);
    this.head = Math.min(state.head, this.values.heads - 1);
    this.cells = this.rows();
    return this.cells.reduce((top, {v}) => Math.max(top, Math.abs(v) || 0), 0);
  }

  rows() {
    const {values, kind, head} = this, cells = [], count = state.length;
    if (kind === 'penalty') {
      const line = (h) => range(count).map((d) => ({x: d, y: values.bias(h, d, 0), by: `${h}`}));
      return range(Math.min(values.heads, MOST)).flatMap(line);
    }
    if (kind === 'bias' || kind === 'modifier') {
      for (let m = 0; m < count; m++) {
        for (let n = 0; n <= m; n++) {
          const v = values[kind](head, m, n);
          if (!Number.isNaN(v)) cells.push({x: n, y: m, v});
        }
      }
      return cells;
    }
    for (let m = 0; m < count; m++) {
      const row = kind === 'added' ? values.row(m) : range(values.pairs).map((i) => values.turn(m, i));
      row.forEach((v, c) => { if (!Number.isNaN(v)) cells.push({x: c, y: m, v}); });
    }
    return cells;
  }

  draw(top) {
    const given = DATA.schemes[this.name];
    this.formula.innerHTML = given.formula;
    this.formula.append(make('span', {}, ...papers(given.paper)));
    this.decayTitle.textContent = given.label;
    this.figure.hidden = this.decayFigure.hidden = !this.values || !this.cells.length;
    if (!this.values || !this.cells.length) {
      const known = Object.keys(given.values).join(', ');
      this.readout.textContent = this.values ? `${given.label}: nothing at ${state.length} tokens.`
        : `${given.label}: of its values, the page has those at lengths ${known}, and its defaults.`;
      return;
    }
    const angles = state.length <= DATA.hands ? 'hands' : 'angles';
    const kind = this.kind === 'angles' ? angles : this.kind;
    const scale = {top: this.kind === 'angles' ? Math.PI : top || 1};
    const lines = kind === 'penalty';
    const shape = lines ? [1, 1] : [this.onPairs ? this.across : state.length, state.length];
    this.chart.draw(kind, {cells: this.cells, ...this.pointed()}, lines ? {} : scale, shape);
    this.say();
    this.drawDecay();
  }

  drawDecay() {
    const {values} = this, last = state.length - 1, cells = [];
    const line = (h) => range(last + 1).map((d) => values.modifier(h, last, last - d));
    const lines = range(values.heads).map(line);
    const alike = lines.every((v) => same(v, lines[0]));
    lines.slice(0, alike ? 1 : MOST).forEach((found, h) => found.forEach((v, d) => {
      if (!Number.isNaN(v)) cells.push({x: d, y: v, by: alike ? 'every head' : `${h}`});
    }));
    const label = DATA.schemes[this.name].label;
    this.decayFigure.setAttribute('aria-label', `${label}: from ${signed(lines[0][0])} logits at ` +
      `distance 0 to ${signed(lines[0][last])} at ${last}, head 0.`);
    const trained = state.shared.length;
    const marks = trained < last ? [{at: trained, name: `trained at ${trained}`}] : [];
    this.decay.draw('decay', {cells, marks});
  }

  // What is drawn at the cursor.
  pointed() {
    const {x, y} = this.cursor();
    return this.kind === 'penalty' ? {marks: [{at: y - x, name: ''}]} : {cursor: [{x, y}]};
  }

  get onPairs() { return this.kind === 'added' || this.kind === 'angles'; }

  cursor() {
    const y = Math.min(state.m, state.length - 1);
    return {x: this.onPairs ? Math.min(state.c, this.across - 1) : Math.min(state.n, y), y};
  }

  get across() { return this.kind === 'added' ? this.values.row(0).length : this.values.pairs; }

  point(datum) {
    if (datum?.x === undefined) return;
    if (this.kind === 'penalty' && 'by' in datum) {
      state.n = Math.max(Math.min(state.m, state.length - 1) - datum.x, 0);
      return move();
    }
    state.m = datum.y;
    if (this.onPairs) state.c = datum.x; else state.n = datum.x;
    move();
  }

  key(event) {
    const steps = {ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0]};
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const {x, y} = this.cursor();
    const down = clip(y + step[1], 0, state.length - 1);
    const along = this.kind === 'penalty' ? -step[0] : step[0]; // drawn by distance
    const across = clip(x + along, 0, this.onPairs ? this.across - 1 : down);
    state.m = down;
    if (this.onPairs) state.c = across; else state.n = across;
    move();
  }

  say() {
    const {values, head} = this, {x, y: m} = this.cursor(), n = Math.min(state.n, m);
    const given = DATA.schemes[this.name], parts = [];
    if (this.kind === 'penalty') {
      parts.push(`distance ${m - n}: bias ${signed(values.bias(head, m, n))}`);
    } else if (this.kind === 'added') {
      parts.push(`position ${m}, channel ${x}: ${signed(values.row(m)[x])} onto the embedding`);
    } else if (this.kind === 'angles') {
      parts.push(`position ${m}, pair ${x}: turned by ${plain(values.turn(m, x))} rad`);
    } else if (this.kind === 'bias') {
      parts.push(`query ${m}, key ${n}: bias ${signed(values.bias(head, m, n))}`);
    }
    const effect = values.modifier(head, m, n);
    parts.push(Number.isNaN(effect) ? `query ${m} does not see key ${n}`
      : `on the logit of query ${m} and key ${n}, ${m - n} back: ${signed(effect)}`);
    if (values.heads > 1) parts.push(`head ${head} of ${values.heads}`);
    if (given.source) parts.push(`parameters ${given.source}`);
    if (given.drawn) parts.push('trains at drawn positions, which this does not show');
    this.readout.textContent = `${parts.join('; ')}.`;
    this.figure.setAttribute('aria-label', `${given.label}: ${parts.join('; ')}`);
  }

  move() {
    if (!this.values || !this.cells.length) return;
    for (const [name, rows] of Object.entries(this.pointed())) this.chart.view?.data(name, rows);
    this.chart.view?.runAsync();
    this.say();
  }
}

function papers(text) {
  return text.split(/(arXiv:\d{4}\.\d{4,5})/).map((part) => part.startsWith('arXiv:')
    ? make('a', {href: `https://arxiv.org/abs/${part.slice(6)}`}, part) : part);
}

