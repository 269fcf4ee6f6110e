// The logit modifier by distance, for the scheme in one panel.

class Decay {
  constructor(root, panel) {
    this.panel = panel;
    this.title = make('h3');
    this.section = make('section', {className: 'panel'}, this.title);
    root.append(this.section);
    this.reader = new Reader(this.section, ({x, y, by}) =>
      `${panel.given.label}, ${by === 'all' ? 'every head' : `head ${by}`}: ` +
      `${signed(y)} on the logit of a key ${x} back.`);
  }

  draw() {
    const {panel} = this, trained = state.shared.length;
    this.title.textContent = panel.given.label;
    const marks = trained < state.length - 1 ? [{at: trained, name: `trained at ${trained}`}] : [];
    return this.reader.draw('decay', panel.values ? panel.faded : [], {marks});
  }
}
