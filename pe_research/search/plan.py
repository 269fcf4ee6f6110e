"""The plan of a search: everything that decides its result, checked before it begins."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.common import checks
from pe_research.positions import longrope, longrope_file
from pe_research.runs import lineage
from pe_research.search import methods, space
from pe_research.settings import configs

References = dict[str, space.Candidate]  # by name
MOST = 1e6  # a larger --most can only be a typing error


class Run:
  """The run whose factors are searched.

  Attributes:
    config: resolved.
    scheme: of the config.
    original_length: tokens that the weights were trained at before any stretching.
    base: of the rotary frequencies.
  """

  def __init__(self, config: Mapping[str, Any]):
    """Builds the scheme; ValueError where LongRoPE factors do not apply to the weights."""
    lineage.check_family(longrope.NAME, config)
    self.config, self.scheme = config, configs.scheme(config)
    self.original_length = lineage.original_length(config)
    self.base = lineage.carried_over(config, longrope.NAME)['base']


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to search, on how much text.

  Attributes:
    method: one of methods.METHODS.
    factor: s, the target length over the run's training length; in a search for short texts, over
      its length before any stretching.
    most: largest factor.
    target_length: tokens of the texts that candidates are measured on.
    temperature: one of longrope.TEMPERATURES.
    documents: number of training documents to select on.
    held_out: number of validation documents to report on, a multiple of `documents`.
    settings: sizes of the search.
    short_of: contents of a factor file whose long factors stay, where factors for short texts are
      searched; else None.
  """

  method: str
  factor: float
  most: float
  target_length: int
  temperature: str
  documents: int
  held_out: int
  settings: methods.Settings
  short_of: dict[str, Any] | None

  @property
  def long_target(self) -> int:
    """Tokens of the longest texts that the factors are for; the temperature depends on it."""
    return self.short_of['target_length'] if self.short_of else self.target_length


def make(
  run: Run,
  *,
  method: str,
  factor: float,
  most: float | None,
  target_length: int | None,
  temperature: str | None,
  documents: int,
  held_out: int,
  settings: methods.Settings,
  short_of: dict[str, Any] | None,
) -> Plan:
  """The plan of a search on a run; fills in what is None.

  Raises:
    ValueError: names the flag, its value and what would do.
  """
  task = run.config['data']['task']
  if task:
    raise ValueError(
      f'the run was trained on the task {task!r}; factors are searched on texts, so search on a '
      'run of configs/lm.py.'
    )
  released = method == 'released'
  checks.choose('--method', method, methods.METHODS)
  checks.at_least('--factor', factor, 1)
  trained = run.original_length if short_of else run.config['length']
  longest = round(factor * trained)
  target_length = longest if target_length is None else target_length
  checks.at_least('--target-length', target_length, 1, 'tokens')
  if target_length > longest:
    raise ValueError(
      f'--target-length {target_length} is beyond --factor {factor:g} times the {trained} tokens '
      f'that the run was trained at; raise --factor to {target_length / trained:g} or leave it out.'
    )
  if short_of and target_length > short_of['target_length']:
    raise ValueError(
      f'--target-length is {target_length}, and --short-of stretches to {short_of["target_length"]}'
      '; short texts are no longer than that.'
    )
  if most is None:
    most = 1 + factor if released else 1.25 * factor
  checks.at_least('--most', most, factor)
  if most > MOST:
    raise ValueError(f'--most is {most:g}, and --factor {factor:g}; {MOST:g} is the most.')
  checks.at_least('--documents', documents, 1)
  if held_out < documents or held_out % documents:
    raise ValueError(
      f'--held-out is {held_out}; it must be a multiple of --documents ({documents}), so that one '
      'compiled program serves both.'
    )
  if short_of is None:
    temperature = temperature or ('su' if released else 'none')
    checks.choose('--temperature', temperature, longrope.TEMPERATURES)
  elif temperature not in (None, short_of['temperature']):
    raise ValueError(
      f'--temperature is {temperature!r}, and that of --short-of {short_of["temperature"]!r}; one '
      'serves all lengths. Leave it out.'
    )
  else:
    temperature = short_of['temperature']
  check_scheme(run, temperature)
  if method in ('paper', 'released'):
    methods.check_population(settings, 1 if released else 6 if short_of else 3)
  return Plan(
    method=method,
    factor=factor,
    most=most,
    target_length=target_length,
    temperature=temperature,
    documents=documents,
    held_out=held_out,
    settings=settings,
    short_of=short_of,
  )


def check_scheme(run: Run, temperature: str) -> None:
  """Raises ValueError if the run's scheme does more than rotate, which candidates leave out."""
  position, scheme = run.config['position'], run.scheme
  name = position['name']
  if scheme.depends_on_length:
    raise ValueError(
      f'the run was trained with {name!r}, whose frequencies follow the length; a search has one '
      'factor a pair. Search on a run whose frequencies stay.'
    )
  if scheme.counts_keys:
    raise ValueError(
      f'the run was trained with {name!r}, whose logits grow with the position; a search leaves '
      'that out. Search on a run whose logits do not.'
    )
  scale = float(scheme.logit_scale(None, None))
  factor = position.get('factor', 1)
  expected = longrope.temperature_of(temperature, factor, run.original_length) ** 2
  if not (math.isclose(scale, 1) or math.isclose(scale, expected)):
    raise ValueError(
      f'the run was trained with logits times {scale:.4g} ({name!r}), which --temperature '
      f'{temperature} leaves out; search on a run that has none, or has the same.'
    )
  if scheme.slice_factor != 1:
    raise ValueError(
      f'the run was trained with position.slice_factor {scheme.slice_factor:.4g}, which a search '
      'leaves out; search on a run where it is 1.'
    )


def long_factors(path: str, config: Mapping[str, Any]) -> dict[str, Any]:
  """A factor file with its defaults filled in; ValueError where the run cannot use it."""
  position = lineage.parse_position(f'{longrope.NAME}:file={path}', config)
  scheme = configs.scheme(dict(config) | {'position': position})
  return longrope_file.read(path)[0] | {
    'long_factor': list(scheme.long_factor),
    'start_tokens': scheme.start_tokens,
    'temperature': scheme.temperature,
  }


def attention_factor(plan: Plan, run: Run) -> float:
  """What multiplies queries and keys of every candidate."""
  factor = plan.long_target / run.original_length
  return longrope.temperature_of(plan.temperature, factor, run.original_length)


def references(plan: Plan, run: Run, stretched: Sequence[float]) -> References:
  """Candidates to compare with that are not seeds of the paper; `stretched` as in Objective."""
  start_tokens = getattr(run.scheme, 'start_tokens', 0)
  ones, short = (1.0,) * len(stretched), plan.short_of
  if short is None:
    return {'as trained': space.Candidate(ones, start_tokens)}
  return {
    'RoPE': space.Candidate(ones),
    'as trained': space.Candidate(tuple(stretched), start_tokens),
    'long': space.Candidate(tuple(short['long_factor']), short['start_tokens']),
  }


def make_space(plan: Plan, run: Run, further: References) -> space.Space:
  """Where to search; a search for short texts begins from the references `further` as well."""
  longest = run.original_length if plan.short_of else run.config['length']
  starts = tuple(n for n in space.STARTS if n <= longest)
  made = space.Space(
    base=run.base,
    rotated=run.scheme.rotated,
    train_length=run.original_length,
    factor=plan.factor,
    most=plan.most,
    starts=(0,) if plan.method == 'released' else starts,
  )
  if plan.short_of is None:
    return made
  nearest = {name: made.nearest(candidate) for name, candidate in further.items()}
  return dataclasses.replace(made, further=nearest)


def factor_file(plan: Plan, run: Run, factors: list[float], start_tokens: int) -> dict[str, Any]:
  """What factors.json says of these lambdas, which are relative to RoPE before any stretching."""
  if plan.short_of is not None:
    return plan.short_of | {
      'short_factor': factors,
      'short_start_tokens': start_tokens,
      'switch_length': plan.target_length,
    }
  return {
    'kind': longrope_file.KIND,
    'base': run.base,
    'rotated': run.scheme.rotated,
    'train_length': run.original_length,
    'target_length': plan.target_length,
    'temperature': plan.temperature,
    'long_factor': factors,
    'start_tokens': start_tokens,
  }
