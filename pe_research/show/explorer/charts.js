// Charts that Vega draws. A frame marks the cell under the mouse or selected by arrow keys.

const OPTIONS = {mode: 'vega', renderer: 'canvas', actions: false, hover: false,
  defaultStyle: false, tooltip: () => {}, logLevel: 1};
const ARROWS = {ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0]};
const MARGIN = 76; // first guess of the pixels beside a plot
const rowOf = (cell) => cell.by ?? cell.y; // the line that a cell is on, or its row in a matrix

class Chart {
  // `choose(cell)` is called with the cell that the reader points at.
  constructor(element, choose) {
    const holder = make('div'); // Vega renames the element that it is given
    holder.setAttribute('aria-hidden', 'true');
    element.append(holder);
    element.tabIndex = 0;
    element.setAttribute('role', 'application');
    Object.assign(this, {element, holder, choose, cells: [], cursor: [], turn: 0});
    for (const type of ['pointermove', 'pointerdown']) {
      element.addEventListener(type, (event) => this.point(event));
    }
    element.addEventListener('keydown', (event) => this.key(event));
  }

  // `shape` is the height of a wide chart in pixels, or [columns, rows] of a square one, whose
  // cells are whole pixels if possible.
  draw(kind, cells, {marks = [], signals = {}, shape = [1, 1]} = {}) {
    this.cells = cells;
    const type = DATA.lines.includes(kind) ? 'line chart' : 'heatmap';
    this.element.setAttribute('aria-roledescription', type);
    this.drawn = this.drawLast(kind, {marks, signals, shape}, ++this.turn);
    return this.drawn;
  }

  // Of several drawings in progress only the last continues.
  async drawLast(kind, {marks, signals, shape}, turn) {
    const theme = dark.matches ? 'dark' : 'light', spec = DATA.specs[theme][kind];
    const rows = () => ({cells: this.cells, marks, cursor: this.cursor});
    const known = (all, values) => Object.entries(values)
      .filter(([name]) => all.some((one) => one.name === name));
    if (this.kind !== kind || this.theme !== theme) {
      Object.assign(this, {kind, theme});
      this.view?.finalize();
      this.view = null;
      const sets = spec.data.map((set) => ({...set, values: rows()[set.name] ?? set.values}));
      this.made = vegaEmbed(this.holder, structuredClone({...spec, data: sets}), OPTIONS);
    }
    const {view} = await this.made;
    if (turn !== this.turn) return;
    this.view = view;
    const columns = columnsFor(this.cells, this.element.clientWidth);
    known(spec.signals, {...signals, columns}).forEach(([name, value]) => view.signal(name, value));
    known(spec.data, rows()).forEach(([name, values]) => view.data(name, values));
    await this.fit(turn, shape);
  }

  // Sizes the plot so that axes and legends stay within the element.
  async fit(turn, shape) {
    const room = this.element.clientWidth;
    for (let across = room - MARGIN, tries = 0; tries < 3; tries++) {
      const most = clip(across, 120, 420), whole = (n) => n * Math.floor(most / n) || most;
      const [width, height] = Array.isArray(shape)
        ? shape.map(whole) : [Math.max(across, 120), shape];
      await this.view.width(width).height(height).resize().runAsync();
      if (turn !== this.turn) return;
      const over = this.holder.scrollWidth - room;
      if (over <= 0) return;
      across -= over;
    }
  }

  // Frames a cell; `words` describe it.
  read(cell, words) {
    this.cursor = [cell];
    this.words = words;
    this.element.setAttribute('aria-label', words);
    this.view?.data('cursor', this.cursor).runAsync();
  }

  point(event) {
    const cell = this.view && this.under(event);
    if (cell) this.choose(cell);
  }

  // The cell under the mouse, or the nearest point of a line; null outside the plot.
  under({clientX, clientY}) {
    const {view} = this, canvas = this.holder.querySelector('canvas').getBoundingClientRect();
    const [left, top] = view.origin(), padding = view.padding();
    const at = {x: clientX - canvas.left - left - padding.left,
      y: clientY - canvas.top - top - padding.top};
    if (at.x < 0 || at.y < 0 || at.x > view.width() || at.y > view.height()) return null;
    const gap = (cell) => {
      const [across, down] = ['x', 'y'].map((axis) => {
        const scale = view.scale(axis), half = (scale.bandwidth?.() ?? 0) / 2;
        const away = Math.abs(scale(cell[axis]) + half - at[axis]);
        return half && away > half ? Infinity : away;
      });
      return Math.hypot(across, down);
    };
    const near = this.cells.reduce(
      (best, cell) => { const away = gap(cell); return away < best.away ? {cell, away} : best; },
      {cell: null, away: Infinity});
    return near.cell;
  }

  key(event) {
    const step = ARROWS[event.key];
    if (!step || !this.cells.length) return;
    event.preventDefault();
    this.choose(this.beside(step));
    document.getElementById('said').textContent = this.words;
  }

  // The next cell of the row, or the nearest cell of the next row.
  beside([across, down]) {
    const from = this.cursor[0], rows = [...new Set(this.cells.map(rowOf))];
    const row = rows[clip(rows.indexOf(rowOf(from)) + down, 0, rows.length - 1)];
    const line = this.cells.filter((cell) => rowOf(cell) === row);
    const gap = (cell) => Math.abs(cell.x - from.x);
    const near = line.reduce((best, cell) => gap(cell) < gap(best) ? cell : best);
    return line[clip(line.indexOf(near) + across, 0, line.length - 1)];
  }
}

// Columns of a legend that fit into so many pixels, beside its title and the axis.
function columnsFor(cells, pixels) {
  const longest = Math.max(0, ...cells.map(({by}) => `${by ?? ''}`.length));
  return Math.max(1, Math.floor((pixels - 100) / (longest * 6.5 + 30)));
}

// A chart with its own cursor, and below it `tell(cell)`, the description of the cell there.
class Reader {
  constructor(root, tell) {
    this.tell = tell;
    this.figure = make('div', {className: 'chart'});
    this.readout = make('p', {className: 'readout'});
    root.append(this.figure, this.readout);
    this.chart = new Chart(this.figure, (cell) => this.read(cell));
  }

  read(cell) {
    this.cell = cell;
    const words = this.tell(cell);
    this.readout.textContent = words;
    this.chart.read(cell, words);
  }

  // The cursor stays on its cell if that is still drawn.
  draw(kind, cells, more) {
    this.figure.hidden = this.readout.hidden = !cells.length;
    if (!cells.length) return null;
    const was = this.cell, line = cells.filter(({by}) => by === cells[0].by);
    const again = (cell) => cell.x === was.x && rowOf(cell) === rowOf(was);
    this.chart.cells = cells;
    this.read((was && cells.find(again)) ?? line[line.length >> 1]);
    return this.chart.draw(kind, cells, more);
  }
}
