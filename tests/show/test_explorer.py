"""What schemes do to logits, as the explorer says, against closed forms and against sampling."""

import dataclasses
import io
import itertools
import xml.etree.ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from pe_research import positions
from pe_research.explorer import main
from pe_research.positions.base import Dims
from pe_research.show.explorer import effects, figure, page, panels

DIMS = Dims(width=12, heads=3, rotary=8, length=32)
LENGTH = 10


def built(name: str, dims: Dims = DIMS, **changes):
  given = positions.example(name, dims.rotary // 2) | changes
  return positions.build(given, dims, nnx.Rngs(0))


def effect(name: str, length: int = LENGTH, dims: Dims = DIMS, **changes) -> effects.Effect:
  return effects.of(built(name, dims, **changes), dims, length)


def distances(length: int = LENGTH) -> np.ndarray:
  return np.subtract.outer(np.arange(length), np.arange(length)).astype(float)


def seen_only(values: np.ndarray, length: int = LENGTH) -> np.ndarray:
  return np.where(np.tri(length, dtype=bool), values, np.nan)


def close(found, wanted, tolerance=1e-6):
  np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_alibi_is_its_penalty():
  found = effect('alibi')
  slopes = np.array([2.0**-4, 2.0**-8, 2.0**-2])
  wanted = seen_only(-slopes[:, None, None] * distances())
  close(found.bias, wanted)
  close(found.modifier, wanted)


def test_rope_takes_what_turning_costs():
  found = effect('rope')
  theta = 10_000.0 ** (-2 * np.arange(4) / 8)
  turned = 2 * np.cos(distances()[..., None] * theta).sum(-1)
  close(found.modifier, np.broadcast_to(seen_only((turned - 8) / 8**0.5), (3, 10, 10)), 2e-6)
  wanted = np.arange(LENGTH)[:, None] * theta
  close(np.angle(np.exp(1j * (found.angles - wanted))), np.zeros((LENGTH, 4)))
  assert found.fades is None and found.bias is None and found.added is None


@pytest.mark.parametrize('layout', ['half', 'interleaved'])
def test_pairs_are_found_in_either_layout(layout):
  close(effect('rope', layout=layout).angles, effect('rope').angles)


def test_sinusoidal_adds_its_product():
  found = effect('sinusoidal')
  theta = 10_000.0 ** (-2 * np.arange(6) / 12)
  product = np.cos(distances()[..., None] * theta).sum(-1)
  wanted = seen_only(8 / 12 * product / 8**0.5)
  close(found.modifier, np.broadcast_to(wanted, (3, 10, 10)), 2e-6)


def test_xpos_fades():
  found, scheme = effect('xpos'), built('xpos')
  close(found.fades, np.arange(LENGTH)[:, None] * np.asarray(scheme.rate))


def test_a_window_is_seen_and_no_more():
  found = effect('rnope', window=3)
  assert (found.seen == (np.tri(LENGTH, dtype=bool) & (distances() < 3))).all()
  assert (np.isnan(found.modifier) == ~found.seen).all()


@pytest.mark.kinds
@pytest.mark.parametrize('name', positions.SCHEMES)
def test_the_modifier_is_the_mean_over_random_tokens(name):
  """Tokens and projections drawn, logits computed by the hooks as attention does."""
  draws, length = 4000, 6
  scheme = built(name)
  x, w = jax.random.normal(jax.random.key(0), (draws, 1, 12)), jax.random.key(1)
  w = jax.random.normal(w, (draws, 12, 8)) / 12**0.5
  pos = jnp.arange(length)[None]
  given = length if scheme.depends_on_length else None
  heads = jnp.einsum(
    'bld,bdk->blk', scheme.embed(jnp.broadcast_to(x, (draws, length, 12)), pos), w
  )[:, :, None]
  q, k = scheme.query(heads, pos, given)[:, :, 0], scheme.key(heads, pos, given)[:, :, 0]
  scale = jnp.asarray(scheme.logit_scale(pos, given))
  scale = jnp.broadcast_to(scale.reshape(*scale.shape, *(1,) * (3 - scale.ndim)), (1, length, 3))
  logits = jnp.einsum('bmk,bnk->bmn', q, k)[:, None] * jnp.moveaxis(scale, -1, 1)[..., None]
  plain = jnp.einsum('bk,bk->b', *(jnp.einsum('bld,bdk->bk', x, w),) * 2)[:, None, None, None]
  change = np.asarray(logits - plain, np.float64) / 8**0.5
  bias = scheme.bias(pos, pos)
  mean = change.mean(0) + (0 if bias is None else np.asarray(bias[0], np.float64))
  error = change.std(0) / draws**0.5
  found = effect(name, length)
  away = np.abs(found.modifier - mean)[:, found.seen]
  assert (away <= 5 * error[:, found.seen] + 1e-5).all(), away.max()


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_every_scheme_says_what_it_does(name):
  assert positions.scheme(name).formula


def test_formulas_as_html():
  assert page.formula('a_h 2^(−8h/H) b^((m − n)/B)') == (
    'a<sub>h</sub> 2<sup>−8h/H</sup> b<sup>(m − n)/B</sup>'
  )
  assert page.formula('m < n') == 'm &lt; n'


def contrast(one: str, other: str) -> float:
  """WCAG 2.2's ratio of two colours '#rrggbb'."""

  def luminance(color):
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]

  dark, light = sorted(map(luminance, (one, other)))
  return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize('theme', panels.THEMES.values(), ids=panels.THEMES)
def test_colours_can_be_told_from_the_paper(theme):
  assert min(contrast(color, theme.paper) for color in (theme.ink, theme.soft)) >= 4.5
  assert min(contrast(color, theme.paper) for color in theme.series) >= 3
  assert contrast(theme.edge, theme.paper) >= 3
  ends = theme.diverging[0], theme.diverging[-1], theme.sequential[-1]
  assert min(contrast(color, theme.paper) for color in ends) >= 3


@pytest.mark.parametrize('theme', panels.THEMES.values(), ids=panels.THEMES)
def test_a_frame_can_be_seen_on_every_cell(theme):
  strokes = [color for color, _ in panels.two_tone(theme)]
  for scale in (theme.diverging, theme.cyclic, theme.sequential):
    for one, other in itertools.pairwise(scale):
      of = lambda color: np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
      for share in np.linspace(0, 1, 9):
        mixed = np.round((1 - share) * of(one) + share * of(other)).astype(int)
        cell = '#' + ''.join(f'{channel:02x}' for channel in mixed)
        assert max(contrast(cell, stroke) for stroke in strokes) >= 3
  assert contrast(*strokes) >= 4.5


def test_a_figure_holds_the_numbers_of_its_effects():
  shown = [page.shown(name) for name in positions.FAMILIES]
  spec = figure.drawn(shown, LENGTH, head=1)
  above, below = (row['hconcat'] for row in spec['vconcat'])
  assert [panel['title']['text'] for panel in above] == [
    positions.scheme(name).label for name in positions.FAMILIES
  ]
  for one, panel in zip(shown, below, strict=True):
    wanted = effects.of(one.layers[0], one.dims, LENGTH).modifier[1]
    cells = panel['layer'][0]['data']['values']
    assert len(cells) == LENGTH * (LENGTH + 1) // 2
    assert all(cell['v'] == wanted[cell['y'], cell['x']] for cell in cells)
    ends = panel['layer'][0]['encoding']['color']['scale']['domain']
    assert ends[-1] == -ends[0] == np.nanmax(np.abs(wanted))


def test_figures_at_both_sizes(tmp_path):
  main(['--figure=png', f'--out={tmp_path}/p.png', '--schemes=alibi,rope', '--length=8'])
  one, two = (Image.open(tmp_path / name).size for name in ('p.png', 'p@2x.png'))
  assert two == tuple(2 * n for n in one)
  main(['--figure=svg', f'--out={tmp_path}/p.svg', '--schemes=alibi', '--length=8'])
  drawing = xml.etree.ElementTree.parse(io.BytesIO((tmp_path / 'p.svg').read_bytes()))
  said = ' '.join(drawing.getroot().itertext())
  assert 'ALiBi' in said and 'query position m (tokens)' in said


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--schemes=alibi,rpoe'], "'rpoe'. Did you mean rope"),
    (['--length=1'], '--length is 1'),
    (['--out=x.png'], 'does not end in .html'),
    (['--figure=svg', '--schemes=learned', '--length=65', '--out=x.svg'], 'holds 64 positions'),
  ],
)
def test_bad_flags_are_refused(flags, says, capsys):
  with pytest.raises(SystemExit) as stopped:
    main(flags)
  assert stopped.value.code and says in capsys.readouterr().err


def test_dims_of_the_page_are_those_of_the_config():
  from configs import lm

  config = lm.get_config('position=rope')
  model = config.model
  assert Dims(model.width, model.heads, model.width // model.heads, config.length) == page.DIMS


def test_a_scheme_that_holds_few_positions_is_shown_at_those():
  dims = dataclasses.replace(page.DIMS, length=9)
  found = page.embedded(page.shown('learned', dims), ['learned'])
  assert list(found['values']) == [9] and found['kind'] == 'added'
