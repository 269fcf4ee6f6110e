// Charts that Vega draws, and the inputs beside them.

const OPTIONS = {mode: 'vega', renderer: 'canvas', actions: false, hover: false,
  tooltip: () => {}, logLevel: 1};

class Chart {
  constructor(element, onPoint) {
    Object.assign(this, {element, onPoint, kind: null, theme: null});
  }

  // `shape` is the height in pixels of a wide chart; or [columns, rows] of a square one, whose cells
  // are whole pixels if they can be.
  async draw(kind, data, signals = {}, shape = [1, 1]) {
    const theme = dark.matches ? 'dark' : 'light', across = this.element.clientWidth;
    if (this.kind !== kind || this.theme !== theme) {
      Object.assign(this, {kind, theme});
      const before = this.view;
      this.view = null;
      before?.finalize();
      const spec = structuredClone(DATA.specs[theme][kind]);
      for (const set of spec.data) if (set.name in data) set.values = data[set.name];
      this.made = vegaEmbed(this.element, spec, OPTIONS);
    }
    const {made} = this, {view} = await made;
    if (made !== this.made) return; // something else is asked for by now
    if (!this.view) view.addEventListener('pointermove', (_, item) => this.onPoint?.(item?.datum));
    this.view = view;
    for (const [name, value] of Object.entries(signals)) view.signal(name, value);
    for (const [name, rows] of Object.entries(data)) view.data(name, rows);
    const most = clip(across - 76, 160, 420), fit = (n) => n * Math.floor(most / n) || most;
    const [width, height] = Array.isArray(shape)
      ? shape.map(fit) : [Math.max(across - 76, 160), shape];
    view.width(width).height(height);
    await view.runAsync();
  }
}

function chooser(first, set) {
  const select = make('select', {onchange: () => set(select.value)});
  select.setAttribute('aria-label', 'scheme');
  for (const [name, {label}] of Object.entries(DATA.schemes)) {
    select.append(make('option', {value: name, selected: name === first}, label));
  }
  return select;
}

// A label and an input. `kind` is a list of words, or [least, most, step]; a step of 'log' is a
// logarithmic slider.
function control(name, kind, value, set) {
  const shown = make('b', {}, value === null ? 'default' : `${value.toLocaleString('en')}`);
  const title = make('span', {}, `${name} `, shown);
  if (typeof kind[0] === 'string') {
    const select = make('select', {onchange: () => { shown.textContent = ''; set(select.value); }});
    kind.forEach((word) => select.append(make('option', {selected: word === value}, word)));
    shown.textContent = '';
    return make('label', {}, title, select);
  }
  const [least, most, step] = kind, log = step === 'log';
  const input = make('input', {
    type: 'range', min: log ? Math.log10(least) : least, max: log ? Math.log10(most) : most,
    step: log ? 0.05 : step,
  });
  const start = value ?? (least + most) / 2;
  input.value = log ? Math.log10(start) : start;
  input.oninput = () => {
    const found = log ? Number((10 ** input.value).toPrecision(2)) : Number(input.value);
    shown.textContent = found.toLocaleString('en');
    input.setAttribute('aria-valuetext', shown.textContent);
    set(found);
  };
  return make('label', {}, title, input);
}

