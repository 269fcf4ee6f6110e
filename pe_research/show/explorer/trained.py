"""What a trained run does with a text: its attention, its losses, what its scheme has learned.

A run may be looked at under another scheme that can use its weights, as evaluate.py measures it:
`position` is then 'yarn:factor=4', say.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
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

CELLS = 64  # at most, on a side of a map


@dataclasses.dataclass(frozen=True)
class Look:
  """A run reading one text of L tokens; H heads, N cells a side of a map.

  Attributes:
    label: of the run, or of the scheme that it is looked at under.
    length: L.
    maps: float32 [layers, H, N, N], what a query in cell i gives to all keys in cell j together,
      a mean over the queries; rows sum to 1. N is L, or CELLS where that is less.
    edges: int [N + 1], the token that each cell begins with, and L.
    tokens: the text [L + 1], one piece a token: the input, and the last target.
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
    windows: how many there are.
    mean: float64 nats [L], of the target after each number of tokens of context, 1 .. L.
    error: float64 nats [L], the standard error of it over windows, as if all were independent; NaN
      where there is but one.
  """

  label: str
  length: int
  windows: int
  mean: np.ndarray
  error: np.ndarray


def look(workdir: pathlib.Path, length: int, position: str | None = None) -> Look:
  """Reads `length` tokens at the end of the longest validation document, the last being a target.

  So runs on the same data read the same text, and texts of all lengths end at the same token.

  Args:
    workdir: of a finished run.
    length: tokens of input; one layer's weights, [H, length, length], are in memory at once.
    position: NAME[:argument=value,...], a scheme that can use the weights; None: the run's own.

  Raises:
    ValueError: no finished run, no text of that length, or the scheme does not reach so far.
  """
  config = _config(workdir, length, position)
  functional, corpus, params = _opened(workdir, config, length)
  window = _text(corpus.validation, length)
  maps, edges = [], _edges(length)
  watch = lambda weights: maps.append(pooled(np.asarray(weights[0]), edges))
  spec = Spec(**config['attention'], watch=watch)
  tokens = jnp.asarray(window[None], jnp.int32)
  logits = functional.bind(params)(tokens[:, :-1], Tokens.contiguous(length), spec)
  loss = np.asarray(transformer.loss(logits, tokens[:, 1:])[0])
  pieces = [corpus.tokenizer.decode([i]).decode(errors='replace') for i in window]
  return Look(_label(config, position), length, np.stack(maps), edges, tuple(pieces), loss)


def loss_by_position(workdir: pathlib.Path, length: int, position: str | None = None) -> Curve:
  """The measure 'by_position' of evaluate.py, on the text that it takes, and its standard error.

  Arguments and errors as for `look`.
  """
  config = _config(workdir, length, position)
  functional, corpus, params = _opened(workdir, config, length)
  scorer = scoring.Scorer(functional, config, sharding.mesh(config['run']['mesh']))
  subject, scored = scoring.Subject(scorer, params), []

  def score(*asked) -> np.ndarray:
    scored.append(subject(*asked))
    return scored[-1]

  row = measures.MEASURES['by_position'](score, measures.plan(corpus, config), length)
  nats, mean = np.concatenate(scored).astype(np.float64), np.array(row['by_position'])
  count = len(nats)
  error = nats.std(0, ddof=1) / count**0.5 if count > 1 else np.full(length, np.nan)
  return Curve(_label(config, position), length, count, mean, error)


def scheme(workdir: pathlib.Path, position: str | None = None) -> list[tuple[PositionScheme, Dims]]:
  """The scheme of a finished run with its trained values, and the sizes that it was built for.

  One for all layers, or one a layer in their order; `position` as for `look`.
  """
  config = _config(workdir, position=position)
  dims = Dims.of(config['model'], config['length'], encodes=True)  # whole heads: no slices here
  made = FunctionalDecoder(config).bind(_params(workdir, config)).position
  return [(one, dataclasses.replace(dims, layer=i)) for i, one in enumerate(made)]


def pooled(weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
  """Sums over the keys of a cell and means over its queries: [..., L, L] -> float32 [..., N, N].

  `edges` [N + 1] rise strictly from 0 to L.
  """
  of_keys = np.add.reduceat(weights, edges[:-1], axis=-1, dtype=np.float64)
  of_both = np.add.reduceat(of_keys, edges[:-1], axis=-2)
  return (of_both / np.diff(edges)[:, None]).astype(np.float32)


def _edges(length: int) -> np.ndarray:
  cells = min(length, CELLS)
  return np.arange(cells + 1) * length // cells


def _text(documents: texts.Documents, length: int) -> np.ndarray:
  """Tokens [length + 1]."""
  longest = documents[int(documents.lengths.argmax())]
  if length >= longest.size:
    raise ValueError(
      f'length is {length}, and the longest validation document has {longest.size} tokens, its '
      f'last target among them; ask for {longest.size - 1} or fewer.'
    )
  return longest[-length - 1 :]


def _label(config: Mapping[str, Any], position: str | None) -> str:
  kind = positions.scheme(config['position']['name']).label
  arguments = re.sub(r'[^=,]*/', '', (position or '').partition(':')[2])  # files by their names
  if position is None:
    return config['run'].get('label') or kind
  return f'{kind}, {arguments}' if arguments else kind


def _config(
  workdir: pathlib.Path, length: int | None = None, position: str | None = None
) -> dict[str, Any]:
  """The config of a finished run, resolved to be read here, and at `length` if that is given.

  Attention is computed in ways that every machine has, and layers are not compiled apart, as
  model.remat would have it: neither changes what is computed.
  """
  saved, record = run_folder.load_config(workdir), files.read_json(workdir / 'run.json')
  if not run_record.finished(workdir):
    raise files.WorkdirError(
      f'{workdir} holds no finished run; resume it by the command that began it, or name another.'
    )
  if record.get('weights_of'):
    raise files.WorkdirError(
      f'{workdir} holds results of the weights of {record["weights_of"]["run"]} and none of its '
      f'own; name that run, and the scheme {saved["position"]["name"]!r} as its position.'
    )
  config = configs.anywhere(saved)
  config['model'] = saved['model'] | {'remat': 'none'}
  config['attention'] = saved['attention'] | {'implementation': 'dense'}
  evaluation = saved['eval'] | {'implementation': 'tiled'}
  if length is not None:
    checks.at_least('length', length, 1, 'tokens')
    if saved['data']['task']:
      raise ValueError(
        f'{workdir} was trained on the task {saved["data"]["task"]!r} and has no text to read; '
        'name a run that was trained on text.'
      )
    evaluation |= {
      'lengths': [length], 'reach': max(length, evaluation.get('reach') or 0), 'targets': 1,
      'protocols': ['by_position'], 'controls': ['none'], 'measurements': [],
    }  # fmt: skip
  if position is not None:
    config['position'] = lineage.given(position, saved)
  return configs.resolve(config | {'eval': evaluation})


def _opened(workdir: pathlib.Path, config: Mapping[str, Any], length: int):
  """Functional decoder, corpus and parameters, for texts of `length` tokens."""
  functional = FunctionalDecoder(config)
  functional.scheme.check_length(length)
  corpus = texts.load(config)
  run_folder.check_data(workdir, corpus.facts)
  return functional, corpus, _params(workdir, config)


def _params(workdir: pathlib.Path, config: Mapping[str, Any]):
  jax_setup.prepare(config)
  return train_state.load_params(config, workdir)[0]
