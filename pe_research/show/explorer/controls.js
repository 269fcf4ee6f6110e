// Inputs with accessible names: what they set, and where.

function chooser(first, name, set) {
  const select = make('select', {onchange: () => set(select.value)});
  select.setAttribute('aria-label', name);
  for (const [key, {label}] of Object.entries(DATA.schemes)) {
    select.append(make('option', {value: key, selected: key === first}, label));
  }
  return select;
}

// A label with an input. `kind` is a list of words, or [least, most, step]; the step 'log' makes a
// logarithmic slider. `where` distinguishes inputs of one name. A value of null is derived from
// other arguments; `follow` of the label shows the derived value.
function control(name, kind, value, set, where = '') {
  const title = make('span', {}, name), called = [name, where].filter(Boolean).join(', ');
  if (typeof kind[0] === 'string') {
    const select = make('select', {onchange: () => set(select.value)});
    kind.forEach((word) => select.append(make('option', {selected: word === value}, word)));
    select.setAttribute('aria-label', called);
    return make('label', {follow: () => {}}, title, select);
  }
  const [least, most, step] = kind, log = step === 'log', shown = make('b');
  const input = make('input', {
    type: 'range', min: log ? Math.log10(least) : least, max: log ? Math.log10(most) : most,
    step: log ? 0.05 : step,
  });
  const say = (found, remark = '') => {
    shown.textContent = `${plain(found)}${remark}`;
    input.setAttribute('aria-valuetext', shown.textContent);
  };
  const show = (found, remark) => {
    input.value = log ? Math.log10(found) : found;
    say(found, remark);
  };
  input.setAttribute('aria-label', called);
  show(value ?? least);
  input.oninput = () => {
    const found = log ? Number((10 ** input.value).toPrecision(2)) : Number(input.value);
    say(found);
    set(found);
  };
  title.append(' ', shown);
  return make('label', {follow: (derived) => show(derived, ' (default)')}, title, input);
}
