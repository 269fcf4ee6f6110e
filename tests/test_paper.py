"""Scale on paper: what programs say of their traffic, and what models need."""

import json

import numpy as np
import pytest
import small

from experiments.bench import paper
from pe_research import blueprint, costs

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
  done = small.run('-c', PROGRAMS, **flags)
  assert done.returncode == 0, done.stderr
  gathered, summed, apart = map(paper.traffic, json.loads(done.stdout.splitlines()[-1]))
  assert gathered == 64 * 32 * 4
  assert summed == 2 * 32 * 4  # and gathered again
  assert apart == 0


@pytest.mark.parametrize('name', paper.SIZES)
def test_parameters_are_about_those_of_the_model(name):
  size = paper.SIZES[name]
  made = blueprint.Blueprint(paper.config(size, paper.MACHINES['v5p-64'], 1)).sizes()
  assert paper.parameters(size) == pytest.approx(made['parameters'], rel=0.03)
  words = {'M': 1e6, 'B': 1e9}
  assert made['parameters'] == pytest.approx(float(name[:-1]) * words[name[-1]], rel=0.15)


@pytest.mark.parametrize('machine', paper.MACHINES.values(), ids=paper.MACHINES)
@pytest.mark.parametrize('size', paper.SIZES.values(), ids=paper.SIZES)
def test_what_is_laid_out_fits(size, machine):
  axes, why = paper.mesh(size, machine)
  assert np.prod(list(axes.values())) == machine.chips and why
  rows = paper.at_once(size, machine)
  assert rows & (rows - 1) == 0 and rows * machine.chips * paper.LENGTH <= paper.TOKENS
  assert paper.by_formula(size, machine, rows) <= machine.memory
  assert machine.kind in costs.PEAKS
  if rows * machine.chips * paper.LENGTH < paper.TOKENS:
    assert paper.by_formula(size, machine, 2 * rows) > paper.FULL * machine.memory


def test_the_kept_table_has_every_size_on_every_machine():
  lines = [line for line in paper.TABLE.read_text().splitlines() if line.startswith('| ')][1:]
  assert len(lines) == len(paper.SIZES) * len(paper.MACHINES)
  cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
  pairs = [(size, name) for size in paper.SIZES.values() for name in paper.MACHINES]
  for (size, name), row in zip(pairs, cells, strict=True):
    axes, why = paper.mesh(size, paper.MACHINES[name])
    assert row[1] == name and row[3] == why
    assert row[2] == ' × '.join(f'{axis} {n}' for axis, n in axes.items())
    millions = float(row[0].rstrip('M').replace(',', ''))
    assert millions == pytest.approx(paper.parameters(size) / 1e6, rel=0.03)
    assert row[4].split()[0] == str(paper.at_once(size, paper.MACHINES[name]))
