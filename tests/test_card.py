"""A scheme card's numbers against independent ones, its warnings, its flags and its drawing."""

import html
import itertools
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import jax.numpy as jnp
import matplotlib.text
import ml_collections
import numpy as np
import pytest
import small
import sweeps
import tiny
from flax import nnx
from matplotlib.backends import backend_agg

from experiments import report
from experiments.report import card_figure, cards, figures, summary
from pe_research import card as card_lib
from pe_research import positions
from pe_research.positions import alibi, base, facts

SVG = '{http://www.w3.org/2000/svg}'


def card(name, length, longest=None, *, head_dim=64, heads=4, preset=None, **position):
  """The card of a scheme with these arguments."""
  flags = {'position': name, 'length': length, 'heads': heads, 'head_dim': head_dim}
  flags |= {'preset': preset or 'published'} | position
  config, _ = card_lib.read([f'--{k}={v}' for k, v in flags.items()])
  return card_lib.card(config, longest)


def command(capsys, *arguments):
  card_lib.main(arguments)
  return capsys.readouterr().out


@pytest.mark.parametrize(
  'length, head_dim, base, turning',
  [
    (4096, 128, 1e4, 46),  # LLaMA-2
    (8192, 128, 5e5, 35),  # LLaMA-3
    (64, 64, 1e4, 9),
    (128, 64, 1e4, 11),
  ],
)
def test_pairs_that_complete_a_turn(length, head_dim, base, turning):
  made = card('rope', length, head_dim=head_dim, base=base)
  pairs = head_dim // 2
  waves = [2 * math.pi * base ** (2 * i / head_dim) for i in range(pairs)]
  assert sum(wave <= length for wave in waves) == turning
  assert made.fact('pairs that complete a turn in training') == turning
  assert made.fact('pairs that never do') == pairs - turning
  np.testing.assert_allclose(made.column('wavelength', 'trained'), waves, rtol=1e-12)
  turns = np.array(made.column('turns in training'))
  np.testing.assert_allclose(turns, length / np.array(waves), rtol=1e-12)
  # Plain RoPE turns on: at twice the length all pairs that were never whole are at new angles.
  assert (
    card('rope', length, 2 * length, head_dim=head_dim, base=base).fact(
      f'pairs that meet untrained angles at {2 * length:,} tokens'
    )
    == pairs - turning
  )


def test_pairs_of_a_partial_head():
  made = card('rope', 64, head_dim=64, fraction=0.5, partial='frequencies')
  assert made.fact('pairs that stand still') == 16
  assert made.column('wavelength', 'trained')[16:] == (math.inf,) * 16
  assert made.fact('longest wavelength in training') == pytest.approx(
    2 * math.pi * 1e4 ** (15 / 32)
  )


@pytest.mark.parametrize(
  'name, given, expected',
  [
    ('pi', {}, lambda i: 8.0),
    ('ntk', {}, lambda i: 8 ** (i / 31)),  # none for the fastest, all for the slowest
    ('abf', {'new_base': 5e5}, lambda i: 50 ** (i / 32)),
    ('llama3', {}, None),
    ('ntk_by_parts', {}, None),
    ('yarn', {}, None),
  ],
)
def test_interpolation_is_theta_over_frequency(name, given, expected):
  stretch = {} if name == 'abf' else {'factor': 8}
  made = card(name, 4096, **stretch, **given)
  got = np.array(made.column('interpolation', 'stretched'))
  if expected:
    np.testing.assert_allclose(got, [expected(i) for i in range(32)], rtol=1e-9)
  else:
    gamma = np.array(made.column('gamma'))
    np.testing.assert_allclose(got, 1 / (gamma + (1 - gamma) / 8), rtol=1e-12)
    assert made.fact('pairs that stay as they are') == (gamma == 1).sum() > 0
    assert made.fact('pairs interpolated by the whole factor') == (gamma == 0).sum() > 0
  waves = np.array(made.column('wavelength', 'stretched'))
  np.testing.assert_allclose(waves / made.column('wavelength', 'trained'), got, rtol=1e-9)


def test_what_reaches_the_target_without_a_new_angle():
  unseen = 'pairs that meet untrained angles at 1,024 tokens'
  assert card('pi', 128, factor=8).fact(unseen) == 0
  for factor in range(3, 20):  # whatever rounding makes of it
    made = card('pi', 100, factor=factor)
    assert made.fact(f'pairs that meet untrained angles at {100 * factor:,} tokens') == 0
  assert card('yarn', 128, factor=8, preset='matched').fact(unseen) < 4
  assert card('ntk', 128, factor=8).fact(unseen) > 10  # all but the slowest fall short


def test_yarn_at_4096():
  made = card('yarn', 4096, head_dim=128, factor=16)
  assert (made.fact('ramp begins at pair'), made.fact('ramp ends at pair')) == (20, 46)
  gamma = made.column('gamma')
  assert gamma[:21] == (1.0,) * 21 and gamma[46:] == (0.0,) * 18
  assert gamma[33] == pytest.approx(0.5)
  assert dict(made.marks) == {'training': 4096, 'target': 65536}
  assert made.fact('logit scale') == pytest.approx((0.1 * math.log(16) + 1) ** 2)


def test_what_follows_the_length_is_shown_by_length():
  made = card('dynamic_yarn', 128, 1024)
  assert made.fact('logit scale at 128 tokens') == 1
  assert made.fact('logit scale at 1,024 tokens') == pytest.approx((0.1 * math.log(8) + 1) ** 2)
  assert max(made.column('interpolation', 'at 1,024 tokens')) == pytest.approx(8)
  assert {c.at for c in made.columns} == {'trained', 'at 1,024 tokens', ''}
  slowest = card('dynamic_ntk', 128, 512).column('interpolation', 'at 512 tokens')[-1]
  assert slowest == pytest.approx(4)


def test_longrope_shows_both_sets_of_factors():
  long, short = np.geomspace(1, 4, 8).round(3), np.geomspace(1, 2, 8).round(3)
  given = {'long_factor': ';'.join(map(str, long)), 'short_factor': ';'.join(map(str, short))}
  made = card('longrope', 64, 512, head_dim=16, factor=4, start_tokens=3, **given)
  np.testing.assert_allclose(made.column('interpolation', 'at 64 tokens'), short)
  np.testing.assert_allclose(made.column('interpolation', 'at 256, 512 tokens'), long)
  assert made.fact('factors for short texts serve up to') == 64
  assert made.fact('first tokens left alone, long') == 3


def test_buckets_at_64():
  made = card('t5', 64)
  bucket = lambda d: d if d < 16 else min(16 + int(16 * math.log(d / 16) / math.log(8)), 31)
  trained = {bucket(d) for d in range(64)}
  assert made.fact('buckets that training reaches') == len(trained) == 27
  assert made.fact('buckets never trained') == 5
  first = next(d for d in itertools.count() if bucket(d) not in trained)
  assert made.fact('never trained from distance') == first
  distances = [[d for d in range(200) if bucket(d) == b] for b in range(32)]
  assert list(made.column('nearest distance')) == [d[0] for d in distances]
  assert list(made.column('farthest distance')) == [d[-1] for d in distances[:-1]] + [math.inf]
  assert list(made.column('distances in training')) == [sum(x < 64 for x in d) for d in distances]
  full = card('t5', 64, preset='matched')
  assert full.fact('buckets that training reaches') == 32 and not full.notes


def test_a_bucket_without_a_distance_has_no_place():
  made = card('t5', 64, max_distance=17)
  assert made.fact('buckets without a distance') == 14
  assert np.isnan(made.column('nearest distance')[17:31]).all()
  assert made.fact('buckets never trained') == 0


def test_windows_of_eight_heads():
  made = card('alibi', 64, heads=8)
  assert made.column('slope') == tuple(2.0**-h for h in range(1, 9))
  np.testing.assert_allclose(made.column('window'), [2**h * math.log(1000) for h in range(1, 9)])
  wider = [2**h * 6.9078 for h in range(1, 9) if 2**h * 6.9078 > 64]
  assert made.fact('windows wider than the training length') == len(wider) == 5
  scheme = alibi.ALiBi(base.Dims(64, 8, 8, 64))
  at = lambda head: round(made.column('window')[head])
  for head in (0, 7):
    bias = scheme.bias(jnp.array([[at(head)]]), jnp.array([[0]]))[0, head, 0, 0]
    assert float(bias) == pytest.approx(-math.log(1000), abs=0.3)
  some = card('alibi', 64, heads=8, biased_heads=2)
  assert some.fact('heads without a bias') == 6
  assert some.column('window')[2:] == (math.inf,) * 6
  assert [facts.text(bias) for bias in some.column('bias across training')] == [
    '−3.938', '−0.2461', *['0'] * 6,
  ]  # fmt: skip


def test_rows_of_a_table():
  made = card('learned', 64, 256, max_length=100)
  assert made.fact('rows never trained') == 36 and made.fact('defined up to') == 100
  assert made.fact('positions without a row at 256 tokens') == 156


def test_sinusoidal_pairs_are_those_of_the_width():
  made = card('sinusoidal', 64, heads=8, head_dim=8)  # width 64 all the same
  assert len(made.column('wavelength', 'trained')) == 32
  assert made.fact('pairs that complete a turn in training') == 9


@pytest.mark.parametrize('longest', [1024, 2_000_000, 2**24])
def test_angle_error_against_more_bits(longest):
  made = card('rope', 64, longest)
  pos, theta = np.arange(longest - 256, longest, dtype=np.longdouble), []
  for i in range(32):
    theta.append(np.longdouble(10_000) ** (-np.longdouble(2 * i) / 64))
  exact = pos[:, None] * np.array(theta)
  single = pos.astype(np.float32)[:, None] * np.array(theta, np.float32)
  turn = 2 * np.longdouble(np.pi)
  away = lambda a: np.abs((a - exact + turn / 2) % turn - turn / 2).max()
  want = float(away(single.astype(np.longdouble)))
  assert made.fact('angle error of a float32 product') == pytest.approx(want, rel=1e-2)
  error = made.fact(f'angle error at {longest:,} tokens')
  assert 0 < error < 1e-4 and error < want
  if longest == 2_000_000:
    assert error < 1e-5 and want > 0.05


def test_published_defaults_that_make_no_sense_are_named_with_what_would():
  made = card('yarn', 128, factor=8)
  (ramp,) = [note for note in made.notes if 'beta_fast' in note]
  assert 'beta_fast is 32' in ramp and 'turns 20.4 times within 128 tokens' in ramp
  assert float(re.search(r'beta_fast ([\d.]+) keeps', ramp)[1]) == pytest.approx(5.0, abs=0.05)
  assert any('11 of 32 rotary pairs' in note for note in made.notes)
  matched = card('yarn', 128, factor=8, preset='matched')
  assert not matched.notes
  assert matched.fact('pairs that complete a turn in training') == 23  # 46 of 64 in LLaMA-2
  given = card('yarn', 128, factor=8, preset='matched', beta_fast=32)
  assert any('beta_fast is 32' in note for note in given.notes)
  assert not card('yarn', 4096, factor=8, head_dim=128).notes


def test_a_length_too_short_for_any_pair_is_a_warning_still():
  assert any('beta_fast' in note for note in card('yarn', 5, factor=8).notes)


def test_lengths_are_those_of_the_weights():
  made = card('yarn', 256, 2048, factor=8, train_length=64)
  assert dict(made.marks) == {
    'training': 64, 'fine-tuning': 256, 'target': 512, 'longest': 2048,
  }  # fmt: skip
  assert any('within the training length 64' in note for note in made.notes)
  assert dict(card('dynamic_ntk', 256, 512, train_length=64).marks)['training'] == 64
  assert card('rope', 64).marks['longest'] == card_lib.FAR * 64
  assert list(card('rope', 64, 64).marks) == ['training']  # one length, said once


@pytest.mark.usefixtures('extra_schemes')
@pytest.mark.parametrize('name', tiny.NAMES)
def test_every_scheme_has_a_card(name):
  made = nnx.eval_shape(lambda: tiny.scheme(name)).card(tiny.TRAINED, 4096)
  label = positions.scheme(tiny.position(name)['name']).label
  assert made.label == label and made.marks['longest'] == 4096
  names = [fact.name for fact in made.facts]
  assert len(names) == len(set(names)) and any(n.startswith('logit scale') for n in names)
  assert len({len(column.values) for column in made.columns}) == bool(made.part)
  shown = card_lib.text(made)
  for fact in made.facts:
    line = (
      rf'^{re.escape(fact.name)} +{re.escape(facts.text(fact.value))}( {re.escape(fact.unit)})?$'
    )
    assert re.search(line, shown, re.MULTILINE), fact
  assert not re.search(r'\bnan\b|\binf\b| $', shown, re.MULTILINE)


@pytest.mark.usefixtures('extra_schemes')
@pytest.mark.parametrize('name', [n for n in tiny.NAMES if tiny.scheme(n).card(32, 64).part])
def test_a_drawing_has_a_mark_for_each_part(name):
  made = tiny.scheme(name).card(tiny.TRAINED, 4096)
  shown = [column for column in made.columns if column.drawn]
  marks, labels = 0, []
  for columns in card_figure.panels(made):
    (axes,) = card_figure.panel(made, columns).axes
    lines = [line for line in axes.lines if (line.get_gid() or '').startswith('marks-')]
    marks += sum(len(line.get_xdata()) for line in lines)
    labels.append((axes.get_xlabel(), axes.get_ylabel()))
    low, high = axes.get_ylim()
    assert all(low < y <= high for line in lines for y in line.get_ydata())
    for line, column in zip(lines, columns, strict=False):
      np.testing.assert_allclose(line.get_ydata(), column.values)
  assert marks == sum(len(column.values) for column in shown)
  assert all(x == f'{made.part} (index)' for x, _ in labels)
  assert all(re.fullmatch(r'\w[\w ]* \((tokens|×)\)', y) for _, y in labels)


def test_what_has_no_end_is_at_the_upper_edge_and_what_has_no_place_is_absent():
  made = card('alibi', 64, biased_heads=1)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  by_gid = {line.get_gid(): line for line in axes.lines}
  assert list(by_gid['marks-window'].get_xdata()) == [0]
  assert list(by_gid['marks-window-endless'].get_xdata()) == [1, 2, 3]
  assert set(by_gid['marks-window-endless'].get_ydata()) == {axes.get_ylim()[1]}
  made = card('t5', 64, max_distance=17)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  assert len(axes.lines[-1].get_xdata()) == 32 - 14


CROWDED = {
  'yarn': ('yarn', 128, 4096, {'factor': 8}),
  'close lengths': ('dynamic_yarn', 100, 130, {'factor': 2, 'train_length': 50}),
  'wide': ('abf', 4096, 16_000_000, {'new_base': 5e7, 'head_dim': 128}),
  'four lengths': ('yarn', 8192, 262_144, {'factor': 16, 'train_length': 4096}),
  'all the same': ('pi', 64, None, {'factor': 16}),
  'zero': ('t5', 64, None, {}),
  'endless': ('rope', 64, None, {'fraction': 0.5, 'partial': 'frequencies'}),
}


@pytest.mark.parametrize('case', CROWDED)
def test_no_text_of_a_drawing_is_on_another_or_cut_off(case):
  name, length, longest, given = CROWDED[case]
  made = card(name, length, longest, **given)
  whole = card_figure.figure(made)
  with figures.defaults():
    canvas = backend_agg.FigureCanvasAgg(whole)
    canvas.draw()
    texts = [t for t in whole.findobj(matplotlib.text.Text) if t.get_text()]
    hidden = [tick.label1 for axes in whole.axes for tick in axes.xaxis.get_major_ticks()
              if not axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]]  # fmt: skip
    texts = [t for t in texts if t not in hidden]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
  width, height = canvas.get_width_height()
  for text, box in boxes:
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
  for (one, a), (other, b) in itertools.combinations(boxes, 2):
    apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
    assert apart, f'{one!r} is on {other!r}'


def test_the_training_length_is_a_line_and_what_is_past_it_shaded():
  made = card('rope', 64)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  levels = {line.get_gid(): line.get_ydata()[0] for line in axes.lines if line.get_gid()}
  assert levels['level-64'] == 64 and levels['level-1024'] == 1024
  (shade,) = [patch for patch in axes.patches if patch.get_gid() == 'past-training']
  assert shade.get_y() == 64
  assert {'training 64', 'longest 1,024'} <= {text.get_text() for text in axes.texts}


@pytest.mark.parametrize('suffix', ['svg', 'png'])
def test_the_command_draws(suffix, tmp_path, capsys):
  target = tmp_path / f'card.{suffix}'
  said = command(capsys, '--position=yarn', '--factor=8', '--length=128', f'--output={target}')
  assert said.startswith('YaRN, arXiv:2309.00071') and said.endswith(f'wrote {target}\n')
  if suffix == 'png':
    assert target.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
  else:
    root = ET.fromstring(target.read_text())
    uses = [g for g in root.iter(f'{SVG}g') if g.get('id') == 'card-marks-wavelength-stretched']
    assert len(list(uses[0].iter(f'{SVG}use'))) == 8
    texts = [t.text for t in root.iter(f'{SVG}text')]
    assert 'wavelength (tokens)' in texts and 'interpolation (×)' in texts


def test_the_command_prints_what_the_card_says(capsys):
  said = command(capsys, '--position=yarn', '--factor=8', '--length=128', '--preset=matched')
  assert 'warning' not in said and 'beta_fast=5.02' in said and 'base=72.57' in said
  said = command(capsys, '--position', 'yarn', '--factor', '8', '--length', '128')
  assert said.count('warning: ') == 2
  assert re.search(r'^target length +1,024 tokens$', said, re.MULTILINE)
  assert re.search(r'^logit scale +1.459 ×$', said, re.MULTILINE)
  table = said[said.index('rotary pair ') :].splitlines()[1:]
  assert [line.split()[0] for line in table] == [str(i) for i in range(8)]
  assert table[-1].split()[4] == '8'
  assert said.splitlines()[1] == 'width 64, 4 heads of 16'


def test_flags_are_typed_as_arguments_are():
  read = lambda *given: card_lib.read(given)[0]['position']
  assert read('--position=t5', '--scale_logits=false', '--buckets=16')['scale_logits'] is False
  assert read('--base=500')['base'] == 500.0
  factors = read('--position=longrope', '--long_factor=1;2', '--factor=2')
  assert factors['long_factor'] == (1.0, 2.0) and factors['factor'] == 2.0
  for name in positions.SCHEMES:
    defaults = card_lib.read([f'--position={name}'])[0]['position']
    assert defaults == positions.defaults(name)
  sizes = card_lib.read(['--width=96', '--heads=6', '--length=7'])[0]
  assert sizes['model'] == {'width': 96, 'heads': 6, 'head_dim': 16} and sizes['length'] == 7


def test_the_default_model_is_that_of_the_config():
  values = card_lib.defaults()
  space = {}
  exec((small.ROOT / 'configs' / 'lm.py').read_text(), space)
  config: ml_collections.ConfigDict = space['get_config']()
  assert (values.width, values.heads, values.length) == (
    config.model.width, config.model.heads, config.length,
  )  # fmt: skip
  assert values.position == config.position.name


BAD = {
  '--position=yarn --betafast=3': '--betafast is unknown. Did you mean --beta_fast',
  '--lenght=3': '--lenght is unknown. Did you mean --length',
  '--position=rope --factor=3': '--factor is unknown.',
  '--position=yarm': "no positional scheme 'yarm'. Did you mean yarn",
  '--position=yarn': 'needs to know how far it stretches',
  '--length=abc': '--length=abc is not int.',
  '--base=abc': '--base=abc is not float.',
  '--position=t5 --scale_logits=maybe': '--scale_logits=maybe is not bool.',
  '--preset=matchd': 'Did you mean matched?',
  '--length': '--length',
  '--length=0': '--length is 0; it must be at least 1.',
  '--heads=5': '--width (64) is not a multiple of --heads (5)',
  '--longest=3': '--longest is 3 tokens; it must be at least 64.',
  '--output=card.pdf': '--output=card.pdf is neither .svg nor .png.',
  '--position=nope --output=card.png': "'NoPE' has no parts to draw",
  '--output=/absent/card.png': '/absent/card.png cannot be written',
  '--workdir=/absent': '/absent has no config.json',
  '--workdir=/absent --base=3': '--base is that of the run with --workdir',
  'yarn': 'yarn is unknown.',
  '--length=20000000': 'holds 16777216 positions; asked for 20000000',
  '--base=0.5': 'position.base is 0.5; it must be above 1.',
}


@pytest.mark.parametrize('line', BAD)
def test_a_bad_flag_is_one_line(line, capsys):
  with pytest.raises(SystemExit) as stopped:
    card_lib.main(line.split())
  said = capsys.readouterr().err
  assert stopped.value.code == 2
  assert said.startswith('error: ') and said.count('\n') == 1 and BAD[line] in said


def test_help_explains_the_arguments_of_the_scheme(capsys):
  with pytest.raises(SystemExit) as stopped:
    card_lib.main(['--position=yarn', '--help'])
  said = ' '.join(capsys.readouterr().out.split())
  assert stopped.value.code == 0
  assert '--beta_slow rotations below which it is interpolated by s' in said
  for field in positions.arguments('yarn'):
    assert f'--{field} ' in said


def test_it_needs_no_matplotlib_to_print():
  program = (
    'import sys; from pe_research import card; card.main(["--position=alibi"]); '
    'print([m for m in ("matplotlib", "experiments", "orbax") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=small.ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines()[-1] == '[]', done.stdout


def test_the_card_of_a_saved_run(tmp_path, capsys):
  run = sweeps.run(tmp_path, 'yarn')
  sweeps.save(run)
  said = command(capsys, f'--workdir={run.workdir}')
  made = card_lib.card(run.config, sweeps.LENGTHS[-1])
  assert said.endswith(f'\n\n{card_lib.text(made)}\n')
  assert dict(made.marks) == {'training': 64, 'target': 1024, 'longest': 4096}
  said = command(capsys, f'--workdir={run.workdir}', '--longest=1024')
  assert said.endswith(f'{card_lib.text(card_lib.card(run.config, 1024))}\n')


def cards_of(text):
  """{label: HTML of its card}."""
  found = re.findall(r'<details class="card"><summary>(.*?)</summary>(.*?)</details>', text, re.S)
  return {html.unescape(re.sub('<small>.*', '', label)).strip(): body for label, body in found}


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  root = tmp_path_factory.mktemp('sweep')
  runs = sweeps.runs(root)
  report.write(runs, root)
  return runs, (root / 'report.html').read_text()


def test_the_page_has_a_card_for_each_scheme(page):
  runs, text = page
  bodies = cards_of(text)
  assert list(bodies) == [scheme.label for scheme in positions.SCHEMES.values()]
  for run in runs:
    made = card_lib.card(run.config, 4096)
    body = ET.fromstring(f'<body>{bodies[made.label]}</body>')
    shown = {
      d.find('dt').text: d.find('dd').text for d in body.iter('div') if d.find('dt') is not None
    }
    for fact in made.facts:
      assert shown[fact.name] == f'{facts.text(fact.value)} {fact.unit}'.strip()
    assert len(list(body.iter('svg'))) == len(card_figure.panels(made))
    for note in made.notes:
      assert html.escape(note) in bodies[made.label]
    rows = [[td.text for td in tr.iter('td')] for tr in body.iter('tr')][1:]
    columns = [[facts.text(v) for v in column.values] for column in made.columns]
    assert rows == [list(row) for row in zip(*columns, strict=True)]
  assert re.search(r'<summary>YaRN <small>2 warnings</small></summary>', text)


def test_a_scheme_that_cannot_be_built_is_a_line(tmp_path):
  run = sweeps.run(tmp_path, 'rope', position={'base': 0.5})
  text = cards.section(summary.schemes([run]), 128)
  assert 'RoPE has no card: position.base is 0.5; it must be above 1.' in text
  assert '<details' not in text
