"""Inside a trained run: its attention on a text, its losses, what its scheme has learned.

A run may also be read under another scheme that can use its weights, as pe_research.evaluate does:
`position` is then 'yarn:factor=4', for example.
"""

import dataclasses
import functools
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.common import checks, sharding
from pe_research.data import texts
from pe_research.evaluation import measures, scoring
from pe_research.machines import jax_setup
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions.base import Dims, PositionScheme
from pe_research.runs import lineage, run_folder
from pe_research.settings import configs
from pe_research.storage import files
from pe_research.training import run_record, train_state

CELLS = 64  # maximum cells on a side of a map


@dataclasses.dataclass(frozen=True)
class Look:
  """A run reading one text of L tokens; H heads, N cells on a side of a map.

  Attributes:
    label: of the run, or of the scheme that it is read under.
    length: L.
    maps: float32 [layers, H, N, N]: attention of a query in cell i to all keys in cell j together,
      mean over the queries; rows sum to 1. N is min(L, CELLS).
    edges: int [N + 1], the first token of each cell, and L.
    tokens: the text [L + 1], one string per token: the input, and the last target.
    loss: float32 nats [L]; loss[i] is that of tokens[i + 1], after i + 1 tokens of context.
  """

  label: str
  length: int
  maps: np.ndarray
  edges: np.ndarray
  tokens: tuple[str, ...]
  loss: np.ndarray


@dataclasses.dataclass(frozen=True)
class Curve:
  """Loss by token position.

  Attributes:
    label: as in Look.
    length: L, tokens of a window.
    windows: number of windows.
    mean: float64 nats [L], of the target after 1 .. L tokens of context.
    error: float64 nats [L], its standard error over windows, assumed independent; NaN for one
      window.
  """

  label: str
  length: int
  windows: int
  mean: np.ndarray
  error: np.ndarray


class Run:
  """A finished run; text, parameters and models are read when first needed, and kept.

  In its methods `position` is NAME[:argument=value,...], a scheme that can use the weights; None is
  the run's own scheme. `length` is in tokens.
  """

  def __init__(self, workdir: pathlib.Path):
    """Reads the config; WorkdirError if the run is not finished or has no weights of its own."""
    self.workdir, self.saved = workdir, run_folder.load_config(workdir)
    if not run_record.finished(workdir):
      raise files.WorkdirError(
        f'{workdir} holds no finished run; resume it by the command that began it, or name another.'
      )
    owner = files.read_json(workdir / 'run.json').get('weights_of')
    if owner:
      raise files.WorkdirError(
        f'{workdir} holds results of the weights of {owner["run"]} and none of its own; name that '
        f'run, and the scheme {self.saved["position"]["name"]!r} as its position.'
      )
    self._decoders: dict[str | None, FunctionalDecoder] = {}

  @functools.cached_property
  def corpus(self) -> texts.Corpus:
    """The text of the run."""
    corpus = texts.load(self.config())
    run_folder.check_data(self.workdir, corpus.facts)
    return corpus

  @functools.cached_property
  def params(self) -> dict[str, Any]:
    """The final parameters."""
    return train_state.load_params(self.config(), self.workdir)[0]

  def config(self, position: str | None = None, length: int | None = None) -> dict[str, Any]:
    """The resolved config, for any devices; with `length` to measure loss by position.

    Attention implementations and remat are those that support every machine and reading attention
    maps; results do not change.
    """
    saved = self.saved
    config = configs.anywhere(saved)
    config['model'] = saved['model'] | {'remat': 'none'}
    config['attention'] = saved['attention'] | {'implementation': 'dense'}
    config['eval'] = saved['eval'] | {'implementation': 'tiled'}
    if length is not None:
      config['eval'] |= {
        'lengths': [length], 'reach': max(length, saved['eval'].get('reach') or 0), 'targets': 1,
        'protocols': ['by_position'], 'controls': ['none'], 'measurements': [],
      }  # fmt: skip
    if position is not None:
      config['position'] = lineage.parse_position(position, saved)
    return configs.resolve(config)

  def functional(self, position: str | None = None) -> FunctionalDecoder:
    """The model, without its parameters."""
    if position not in self._decoders:
      self._decoders[position] = FunctionalDecoder(self.config(position))
    return self._decoders[position]

  def look(self, length: int, position: str | None = None) -> Look:
    """Reads `length` tokens at the end of the longest validation document, the last being a target.

    So runs on the same data read the same text, and texts of all lengths end at the same token. The
    attention of one layer, [H, length, length], is in memory at once.

    Raises:
      ValueError: no text of that length, or the scheme is not defined there.
    """
    functional = self._checked(length, position)
    window = _text(self.corpus.validation, length)
    maps, edges = [], _edges(length)

    def watch(weights) -> None:
      maps.append(pooled(np.asarray(weights[0]), edges))

    config = self.config(position)
    spec = Spec(**config['attention'], watch=watch)
    tokens = jnp.asarray(window[None], jnp.int32)
    jax_setup.prepare(config)
    model = functional.bind(self.params)
    logits = model(tokens[:, :-1], Tokens.contiguous(length), spec)
    loss = np.asarray(transformer.loss(logits, tokens[:, 1:])[0])
    decode = self.corpus.tokenizer.decode
    pieces = tuple(decode([i]).decode(errors='replace') for i in window)
    return Look(self._label(config, position), length, np.stack(maps), edges, pieces, loss)

  def loss_by_position(self, length: int, position: str | None = None) -> Curve:
    """The measure 'by_position' of evaluation, with its standard error; raises as `look`."""
    functional = self._checked(length, position)
    config, windows = self.config(position, length), []
    jax_setup.prepare(config)
    scorer = scoring.Scorer(functional, config, sharding.mesh(config['run']['mesh']))
    subject = scoring.Subject(scorer, self.params)

    def score(*arguments) -> np.ndarray:
      windows.append(subject(*arguments))
      return windows[-1]

    plan = measures.plan(self.corpus, config)
    row = measures.MEASURES['by_position'](score, plan, length)
    nats = np.concatenate(windows).astype(np.float64)
    error = nats.std(0, ddof=1) / len(nats) ** 0.5 if len(nats) > 1 else np.full(length, np.nan)
    label, mean = self._label(config, position), np.array(row['by_position'])
    return Curve(label, length, len(nats), mean, error)

  def scheme(self, position: str | None = None) -> list[tuple[PositionScheme, Dims]]:
    """The scheme with its trained values and its sizes: one for all layers, or one for each."""
    config = self.config(position)
    dims = Dims.of(config['model'], config['length'], encodes=True)  # whole heads: no slices here
    jax_setup.prepare(config)
    layers = self.functional(position).bind(self.params).position
    return [(scheme, dataclasses.replace(dims, layer=i)) for i, scheme in enumerate(layers)]

  def _checked(self, length: int, position: str | None) -> FunctionalDecoder:
    """The model, if it can read text of that length."""
    checks.at_least('length', length, 1, 'tokens')
    if self.saved['data']['task']:
      raise ValueError(
        f'{self.workdir} was trained on the task {self.saved["data"]["task"]!r} and has no text to '
        'read; name a run that was trained on text.'
      )
    functional = self.functional(position)
    functional.scheme.check_length(length)
    return functional

  def _label(self, config, position: str | None) -> str:
    kind = positions.scheme(config['position']['name']).label
    arguments = re.sub(r'[^=,]*/', '', (position or '').partition(':')[2])  # file names, no folders
    if position is None:
      return config['run'].get('label') or kind
    return f'{kind}, {arguments}' if arguments else kind


def pooled(weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
  """Sums over the keys of a cell and means over its queries: [..., L, L] -> float32 [..., N, N].

  `edges` [N + 1] rise strictly from 0 to L.
  """
  by_key = np.add.reduceat(weights, edges[:-1], axis=-1, dtype=np.float64)
  by_cell = np.add.reduceat(by_key, edges[:-1], axis=-2)
  return (by_cell / np.diff(edges)[:, None]).astype(np.float32)


def _edges(length: int) -> np.ndarray:
  cells = min(length, CELLS)
  return np.arange(cells + 1) * length // cells


def _text(documents: texts.Documents, length: int) -> np.ndarray:
  """Tokens [length + 1]."""
  longest = documents[int(documents.lengths.argmax())]
  if length >= longest.size:
    raise ValueError(
      f'length is {length}; the longest validation document has {longest.size} tokens, the last '
      f'target included; ask for {longest.size - 1} or fewer.'
    )
  return longest[-length - 1 :]
