"""Checks of a claim, before anything is planned."""

import math
from collections.abc import Iterable, Mapping

from experiments.studies.scales import SCALES
from experiments.studies.terms import Claim, Expect, Model, Quantity
from pe_research.common.checks import at_least, choose
from pe_research.search import methods
from pe_research.settings import protocols


def check(claim: Claim, scale: str, measured: Iterable[Quantity]) -> None:
  """Raises ValueError if a claim refers to something undefined, or contradicts itself.

  Args:
    claim: the claim.
    scale: name of a scale that its fields may name, besides those in SCALES.
    measured: all its quantities.
  """
  for name, model in claim.models.items():
    _check_model(claim, name, model, {*SCALES, scale})
  for test in claim.tests:
    _check_test(claim, test)
  for quantity in measured:
    _check_quantity(claim, quantity)


def _check_model(claim: Claim, name: str, model: Model, scales: Iterable[str]) -> None:
  where = f'{claim.id}, model {name!r}'
  if not 0 < model.length < math.inf:
    raise ValueError(f'{where}: length is {model.length:g} L; it must be a number above 0.')
  choose(f'{where}: method', model.method, methods.METHODS)
  for field, value in model.fields.items():
    for named in value if isinstance(value, Mapping) else ():
      choose(f'{where}: the scale of {field}', named, scales)
  line = [name]
  while start := claim.models[line[-1]].start:
    choose(f'{where}: start', start, claim.models)
    if start in line:
      raise ValueError(f'{where} starts from its own weights: {" <- ".join([*line, start])}.')
    line.append(start)
  for field in ('share', 'searched', 'short'):
    value = getattr(model, field)
    at_least(f'{where}: {field}', value, 0)
    if value and not model.start:
      raise ValueError(f'{where}: {field} is {value:g}, which needs other weights; name a start.')
  if model.start and model.task:
    raise ValueError(
      f'{where}: task is {model.task!r}; only a model without a start has one, here {line[-1]!r}.'
    )
  if model.short and not claim.models[model.start].searched:
    raise ValueError(
      f'{where}: short is {model.short:g}, and {model.start!r} has no searched factors to keep.'
    )
  if ('{searched}' in model.position) != bool(model.searched):
    raise ValueError(
      f'{where}: {{searched}} in the position and a factor in searched go together; the position '
      f'is {model.position!r} and searched {model.searched:g}.'
    )


def _check_test(claim: Claim, test: Expect) -> None:
  where = f'{claim.id}, test {test.says!r}'
  bounds = [bound for bound in (test.above, test.below) if bound is not None]
  if not bounds or not all(map(math.isfinite, bounds)):
    raise ValueError(f'{where}: above is {test.above} and below {test.below}; give one, a number.')
  if bounds != sorted(set(bounds)):
    raise ValueError(f'{where}: no number is above {test.above:g} and below {test.below:g}.')


def _check_quantity(claim: Claim, quantity: Quantity) -> None:
  from experiments.studies.quantities import DERIVED  # which needs scipy

  choose(f'{claim.id}, the model of a quantity', quantity.model, claim.models)
  where = f'{claim.id}, a quantity of {quantity.model!r}'
  choose(f'{where}: of', quantity.of, DERIVED)
  for control in quantity.controls or (quantity.control,):
    try:
      text = control.format(middle=1, L=1)
    except (KeyError, IndexError, ValueError) as error:
      raise ValueError(
        f'{where}: the control {control!r} is not understood; of names in braces it may have '
        '{middle}, a layer, and {L}, tokens.'
      ) from error
    try:
      protocols.measurement(f'{quantity.protocol}/{text}/1')
    except ValueError as error:
      raise ValueError(f'{where}: {error}') from error
