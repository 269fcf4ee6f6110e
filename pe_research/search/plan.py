"""Everything that decides the result of a search, checked before it begins."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.common import checks
from pe_research.positions import longrope, longrope_file
from pe_research.runs import lineage
from pe_research.search import methods, space
from pe_research.settings import configs

References = dict[str, space.Candidate]
MOST = 1e6  # a larger --most can only be a typing error


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to search, on how much text.

  Attributes:
    method: one of methods.METHODS.
    factor: s, by which the seeds stretch what the run was trained at; in a search for short texts,
      what it was trained at before any stretching.
    most: largest factor.
    target_length: tokens of the texts that candidates are measured on.
    temperature: policy, see longrope.LongRoPE.
    documents: number of training documents to select on.
    held_out: number of validation documents to report on, a multiple of `documents`.
    settings: sizes of the search.
    short_of: a factor file whose long factors stay; factors for short texts are searched.
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
    """Tokens that the whole stretches to, which the temperature reads."""
    return self.short_of['target_length'] if self.short_of else self.target_length


def make(
  config: Mapping[str, Any],
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
  """Fills in what is None, for a run with this config; the rest as in Plan.

  Raises:
    ValueError: names the flag, its value and what would do.
  """
  lineage.check_family(longrope.NAME, config)
  if config['data']['task']:
    raise ValueError(
      f'the run was trained on the task {config["data"]["task"]!r}; factors are searched on texts, '
      'so search on a run of configs/lm.py.'
    )
  released, trained = method == 'released', config['length']
  checks.choose('--method', method, methods.METHODS)
  checks.at_least('--factor', factor, 1)
  trained = lineage.original_length(config) if short_of else trained
  reach = round(factor * trained)
  target_length = reach if target_length is None else target_length
  checks.at_least('--target-length', target_length, 1, 'tokens')
  if target_length > reach:
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
  check_temperature(temperature, config)
  if method in ('paper', 'released'):
    methods.check_population(settings, 1 if released else 6 if short_of else 3)
  return Plan(
    method, factor, most, target_length, temperature, documents, held_out, settings, short_of
  )


def check_temperature(temperature: str, config: Mapping[str, Any]) -> None:
  """Raises ValueError where a search would leave out what else the run's scheme does."""
  position, scheme = config['position'], configs.scheme(config)
  if scheme.depends_on_length:
    raise ValueError(
      f'the run was trained with {position["name"]!r}, whose frequencies follow the length; a '
      'search has one factor a pair. Search on a run whose frequencies stay.'
    )
  if scheme.counts_keys:
    raise ValueError(
      f'the run was trained with {position["name"]!r}, whose logits grow with the position; a '
      'search leaves that out. Search on a run whose logits do not.'
    )
  scale = float(scheme.logit_scale(None, None))
  reach = position.get('factor', 1), lineage.original_length(config)
  usual = longrope.temperature_of(temperature, *reach) ** 2
  if not (math.isclose(scale, 1) or math.isclose(scale, usual)):
    raise ValueError(
      f'the run was trained with logits times {scale:.4g} ({position["name"]!r}), which '
      f'--temperature {temperature} leaves out; search on a run that has none, or has the same.'
    )
  if scheme.slice_factor != 1:
    raise ValueError(
      f'the run was trained with position.slice_factor {scheme.slice_factor:.4g}, which a search '
      'leaves out; search on a run where it is 1.'
    )


def long_factors(path: str, config: Mapping[str, Any]) -> dict[str, Any]:
  """What a factor file says, its defaults filled in; ValueError where a run cannot use it."""
  position = lineage.given(f'{longrope.NAME}:file={path}', config)
  scheme = configs.scheme(dict(config) | {'position': position})
  return longrope_file.read(path)[0] | {
    'long_factor': list(scheme.long_factor),
    'start_tokens': scheme.start_tokens,
    'temperature': scheme.temperature,
  }


def attention_factor(plan: Plan, config: Mapping[str, Any]) -> float:
  """What multiplies queries and keys of every candidate."""
  original = lineage.original_length(config)
  return longrope.temperature_of(plan.temperature, plan.long_target / original, original)


def known(plan: Plan, config: Mapping[str, Any], stretched: Sequence[float]) -> References:
  """Candidates by name that are no seeds of the paper's, to compare with.

  Args:
    plan: of the search.
    config: of the run.
    stretched: lambdas that its weights were last trained with.
  """
  own = getattr(configs.scheme(config), 'start_tokens', 0)
  ones, short = (1.0,) * len(stretched), plan.short_of
  if short is None:
    return {'as trained': space.Candidate(ones, own)}
  return {
    'RoPE': space.Candidate(ones),
    'as trained': space.Candidate(tuple(stretched), own),
    'long': space.Candidate(tuple(short['long_factor']), short['start_tokens']),
  }


def make_space(plan: Plan, config: Mapping[str, Any], references: References) -> space.Space:
  """Where to search; one for short texts begins from the references, too."""
  scheme, short = configs.scheme(config), plan.short_of
  base = lineage.known(config, longrope.NAME)['base']
  original = lineage.original_length(config)
  longest = original if short else config['length']
  starts = tuple(n for n in space.STARTS if n <= longest)
  made = space.Space(
    base,
    scheme.rotated,
    original,
    plan.factor,
    plan.most,
    starts if plan.method != 'released' else (0,),
  )
  if short is None:
    return made
  further = {name: made.nearest(candidate) for name, candidate in references.items()}
  return dataclasses.replace(made, further=further)


def file_of(
  plan: Plan, config: Mapping[str, Any], total: Sequence[float], start_tokens: int
) -> dict[str, Any]:
  """The factor file, for lambdas against RoPE before any stretching; without its lineage."""
  scheme = configs.scheme(config)
  if plan.short_of is not None:
    return plan.short_of | {
      'short_factor': list(total),
      'short_start_tokens': start_tokens,
      'switch_length': plan.target_length,
    }
  return {
    'kind': longrope_file.KIND,
    'base': lineage.known(config, longrope.NAME)['base'],
    'rotated': scheme.rotated,
    'train_length': lineage.original_length(config),
    'target_length': plan.target_length,
    'temperature': plan.temperature,
    'long_factor': list(total),
    'start_tokens': start_tokens,
  }
