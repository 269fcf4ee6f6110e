"""What a run computes, shown by its programs, with the scheme taken out and as it is.

Two runs whose programs agree with the scheme taken out differ in their scheme alone. A scheme, a
page, a comment or a name changes no such program; a constant, a dtype or an operation of model,
loss, optimizer or scoring does.

  python -m pe_research.programs --config=configs/lm.py:position=rope
  python -m pe_research.programs --config=configs/lm.py:position=rope --out=DIR

The first prints the digests of the training step and of the draw of initial parameters, the second
writes the texts as well.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from pe_research.attention import attend
from pe_research.common import digest, nested, provenance, sharding
from pe_research.data import batches
from pe_research.evaluation import scoring
from pe_research.machines import jax_setup
from pe_research.model.functional import Blueprint, of_position
from pe_research.proof import program_text
from pe_research.runs import program_texts
from pe_research.settings import configs, protocols
from pe_research.training import optimizers, train_state, train_step

WITHOUT = ('run', 'start', 'seed')  # parts of a config that decide no program
SETTINGS = str, bool, int, float, type(None)  # of JAX: those of these types may change a program


@dataclasses.dataclass(frozen=True)
class Program:
  """A program as program_text writes it."""

  text: str

  @functools.cached_property
  def digest(self) -> str:
    """sha256 of the text."""
    return digest.of_bytes(self.text.encode())


@dataclasses.dataclass(frozen=True)
class Both:
  """A program without and with the scheme.

  Attributes:
    shared: of the same config with the scheme taken out.
    own: as it is.
  """

  shared: Program
  own: Program


def of_training(
  config: Mapping[str, Any], step: jax.stages.Lowered | None = None
) -> dict[str, Both]:
  """The programs that make a run's weights: its first state, and its training step.

  They are those for one device. How a program is split over several, or computes several seeds
  together, is not in them.

  Args:
    config: resolved; one that trains nothing has no step.
    step: the training step where it is lowered already, for one device.
  """
  plain, own = _shown(configs.without_scheme(config)), _shown(config)
  draws = not (config['start']['workdir'] or config['start']['pretrained'])
  kind, make = ('drawn', _drawn) if draws else ('given', _given)
  shared = Program(_text(kind, plain, make))
  differs = any(map(of_position, Blueprint(own).paths))  # or else the first state is the same
  found = {'initial': Both(shared, Program(_text(kind, own, make)) if differs else shared)}
  if config['steps']:
    reused = step is not None and own == config
    text = _decisive(step) if reused else _text('step', own, _step)
    found['step'] = Both(Program(_text('step', plain, _step)), Program(text))
  return found


class Scoring:
  """The programs that score windows, of one set of weights."""

  def __init__(self, config: Mapping[str, Any], params, scorer: scoring.Scorer | None = None):
    """Nothing is lowered yet.

    Args:
      config: resolved.
      params: arrays or shapes.
      scorer: that the weights are scored by; None where they are not.
    """
    plain, own = _shown(configs.without_scheme(config)), _shown(config)
    self.shared = _OneDevice(plain, params)
    self.own = _OneDevice(own, params)
    alone = scorer is not None and scorer.mesh.size == 1 and own == config
    self.reused = (scorer, params) if alone else None
    self.known: dict[scoring.Call, Both] = {}

  def of(self, call: scoring.Call) -> Both:
    """The program of a call, for one device; compiled for one already, it is not lowered again."""
    if call not in self.known:
      if self.reused:
        scorer, params = self.reused
        own = program_text.of(scorer.lower(params, call))
      else:
        own = self.own.text(call)
      self.known[call] = Both(Program(self.shared.text(call)), Program(own))
    return self.known[call]


class _OneDevice:
  """A config's scorer for one device, made when it is needed."""

  def __init__(self, config: Mapping[str, Any], params):
    self.config, self.types = config, {name: x.dtype for name, x in params.items()}

  @functools.cached_property
  def scorer(self) -> scoring.Scorer:
    return scoring.Scorer(Blueprint(self.config), self.config, sharding.one_device())

  def text(self, call: scoring.Call) -> str:
    given = [*call], {name: str(kind) for name, kind in sorted(self.types.items())}
    return _text(repr(given), self.config, lambda config: self._lowered(call))

  def _lowered(self, call: scoring.Call) -> str:
    shapes = jax.eval_shape(self.scorer.blueprint.init)
    typed = lambda name, x: jax.ShapeDtypeStruct(x.shape, self.types.get(name, x.dtype))
    params = {name: typed(name, x) for name, x in shapes.items()}
    return program_text.of(self.scorer.lower(params, call))


def keep(workdir: pathlib.Path, shown: Iterable[Both]) -> None:
  """Adds the texts of programs to those that a workdir has."""
  found = [program for both in shown for program in (both.shared, both.own)]
  program_texts.add(workdir, {program.digest: program.text for program in found})


def _shown(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config whose programs are shown: a kernel's own operations in place of a call of it."""
  plain = lambda kind: 'interpreted' if kind == 'pallas' else kind
  changed = {
    part: dict(config[part]) | {'implementation': plain(config[part]['implementation'])}
    for part in ('attention', 'eval')
  }
  return dict(config) | changed


def _text(kind: str, config: Mapping[str, Any], make) -> str:
  """`make(config)`, with products as precise as the config has them."""
  decides = {k: v for k, v in config.items() if k not in WITHOUT}
  decides['eval'] = {k: v for k, v in config['eval'].items() if k not in protocols.SELECTION}
  decides['data'] = {k: v for k, v in config['data'].items() if k != 'seed'}
  key = digest.of_json([kind, nested.flat(decides), _tracing()])
  with jax.default_matmul_precision(config['matmul_precision']):
    return program_texts.kept(key, lambda: make(config))


@functools.cache
def _tracing() -> list:
  """What a program depends on beside its config and this code: packages and settings of JAX."""
  versions = {
    name: importlib.metadata.version(name) for name in (*provenance.PACKAGES, 'ml-dtypes')
  }
  settings = {k: v for k, v in sorted(jax.config.values.items()) if isinstance(v, SETTINGS)}
  own = {k: v for k, v in settings.items() if not re.search('cache|dir|log|dump|matmul', k)}
  return [versions, own, jax_setup.environment()]


def _decisive(step: jax.stages.Lowered) -> str:
  """Of a training step: the next state and the loss; norms and rates are for looking at them."""
  return program_text.of(step, lambda path: path.startswith('[0]') or path == "[1]['loss']")


def _step(config: Mapping[str, Any]) -> str:
  mesh, blueprint = sharding.one_device(), Blueprint(config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  spec = attend.Spec(**config['attention'], mesh=mesh)
  step = jax.jit(train_step.plain(config, blueprint, optimizer, spec), keep_unused=True)
  like = train_state.abstract(blueprint, optimizer, mesh)
  return _decisive(step.lower(like, batches.shapes(config), jax.ShapeDtypeStruct((), np.uint32)))


def _first(config: Mapping[str, Any], params):
  """The first state of these parameters; they alone where nothing is trained."""
  if not config['steps']:
    return params
  return train_state.first(params, optimizers.build(config['optimizer'], config['steps']))


def _drawn(config: Mapping[str, Any]) -> str:
  """Parameters are drawn on the host, see train_state.begin."""
  blueprint = Blueprint(dict(config) | {'seed': 0})
  first = jax.jit(lambda: _first(config, blueprint.init()))
  return program_text.of(first.trace().lower(lowering_platforms=('cpu',)))


def _given(config: Mapping[str, Any]) -> str:
  """Parameters are those of another run, or of a published model."""
  first = jax.jit(lambda params: _first(config, params), keep_unused=True)
  return program_text.of(first.lower(jax.eval_shape(Blueprint(config).init)))
