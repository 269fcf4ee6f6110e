"""Scale on paper: what programs say of their traffic, and what models need."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_fixtures

from experiments.bench import scale_estimate, scale_formula, scale_markdown, scale_rows
from pe_research.model import functional
from pe_research.training import costs

# Programs for eight devices, which only a process of its own has.
PROGRAMS = """
import json, jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
mesh = jax.make_mesh((8,), ('x',))
put = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
like = jax.ShapeDtypeStruct((64, 32), jnp.float32)
text = lambda work, out: jax.jit(
  work, in_shardings=put('x'), out_shardings=out).lower(like).compile().as_text()
print(json.dumps([
  text(lambda x: x, put()), text(lambda x: x.sum(0), put()), text(lambda x: 2 * x, put('x'))]))
"""


def test_traffic_is_what_collectives_bring():
  flags = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
  done = run_fixtures.run('-c', PROGRAMS, **flags)
  assert done.returncode == 0, done.stderr
  gathered, summed, apart = map(scale_estimate.traffic, json.loads(done.stdout.splitlines()[-1]))
  assert gathered == 64 * 32 * 4
  assert summed == 2 * 32 * 4  # and gathered again
  assert apart == 0


@pytest.mark.parametrize('name', scale_formula.SIZES)
def test_parameters_are_about_those_of_the_model(name):
  size = scale_formula.SIZES[name]
  made = functional.FunctionalDecoder(
    scale_formula.config(size, scale_formula.MACHINES['v5p-64'], 1)
  ).sizes()
  assert scale_formula.parameters(size) == pytest.approx(made['parameters'], rel=0.03)
  words = {'M': 1e6, 'B': 1e9}
  assert made['parameters'] == pytest.approx(float(name[:-1]) * words[name[-1]], rel=0.15)


@pytest.mark.parametrize('machine', scale_formula.MACHINES.values(), ids=scale_formula.MACHINES)
@pytest.mark.parametrize('size', scale_formula.SIZES.values(), ids=scale_formula.SIZES)
def test_what_is_laid_out_fits(size, machine):
  axes, why = scale_formula.mesh(size, machine)
  assert np.prod(list(axes.values())) == machine.chips and why
  rows = scale_formula.rows_per_chip(size, machine)
  assert (
    rows & (rows - 1) == 0 and rows * machine.chips * scale_formula.LENGTH <= scale_formula.TOKENS
  )
  limit = scale_formula.FULL * machine.memory
  assert not rows or scale_formula.by_formula(size, machine, rows) < limit
  if rows * machine.chips * scale_formula.LENGTH < scale_formula.TOKENS:
    assert scale_formula.by_formula(size, machine, max(1, 2 * rows)) >= limit
  assert machine.kind in costs.PEAKS


def test_what_does_not_fit_is_told_how_many_chips_it_takes():
  size, machine = scale_formula.SIZES['7B'], scale_formula.MACHINES['v5e-8']
  chips = scale_formula.chips_needed(size, machine)
  assert chips == 16 and scale_formula.rows_per_chip(size, machine._replace(chips=chips))
  row = {'size': '7B', 'machine': 'v5e-8', 'state_bytes': 9.9e9, 'temporary_bytes': 84e9}
  assert scale_markdown.fits(row) == '**does not fit**; 16 chips'
  assert scale_markdown.fits(row | {'size': '125M'}) == 'by formula'
  assert scale_markdown.fits(row | {'temporary_bytes': 6e9}) == 'yes'


def test_utilization_is_bounded_by_recomputation_and_by_traffic():
  row = {'size': '7B', 'machine': '8 x H100', 'model_flops': 989e12 * 3.0, 'link_seconds': 0.0}
  assert scale_markdown.times(row) == (4.0, 0.0)
  assert scale_markdown.mfu(row) == pytest.approx((0.75, 0.75, 0.75 * 0.46))
  open_, hidden, expected = scale_markdown.mfu(row | {'link_seconds': 2.0})
  assert (open_, hidden, expected) == pytest.approx((0.5, 0.75, 0.75 * 0.46))
  assert scale_markdown.mfu(row | {'link_seconds': 12.0}) == pytest.approx((3 / 16, 0.25, 0.25))


def test_the_kept_table_is_that_of_the_kept_rows():
  rows = scale_estimate.rows()
  text = scale_markdown.markdown(rows, scale_rows.rows())
  assert scale_estimate.TABLE.read_text() == text
  assert len(rows) == len(scale_formula.SIZES) * len(scale_formula.MACHINES)
  for row in rows:
    size, machine = scale_formula.SIZES[row['size']], scale_formula.MACHINES[row['machine']]
    assert (row['mesh'], row['why']) == scale_formula.mesh(size, machine)
    assert row['rows'] == max(1, scale_formula.rows_per_chip(size, machine))
    assert row['parameters'] == pytest.approx(scale_formula.parameters(size), rel=0.03)


def test_a_document_of_a_million_tokens_fits_the_chips_that_share_it():
  machine, rows = scale_formula.MACHINES[scale_rows.MACHINE], scale_rows.rows()
  assert scale_rows.TOKENS % machine.chips == 0
  for row in rows:
    size = scale_formula.SIZES[row['size']]
    assert row['weight_bytes'] == 4 * row['parameters']
    # At the least a chip holds the queries, keys and values of its tokens.
    assert row['temporary_bytes'] > 3 * 2 * scale_rows.TOKENS // machine.chips * size.width
    assert row['weight_bytes'] + row['temporary_bytes'] < machine.memory


def test_xla_counts_a_loop_once():  # as the notes under the table say
  x = jnp.ones((64, 64))
  often = jax.jit(lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=10)[0])
  flops = [costs.of_step(f.lower(x).compile())['flops'] for f in (jax.jit(lambda x: x @ x), often)]
  assert flops[0] == 2 * 64**3 and flops[1] == pytest.approx(flops[0], rel=0.01)
