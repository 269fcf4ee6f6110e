"""What a config measures: protocols with their controls and lengths, and checks of them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pe_research.attention.spec import Spec
from pe_research.common import digest
from pe_research.common.checks import at_least, choose
from pe_research.data import tasks

NUMBER = r'[0-9]+(\.[0-9]+)?'
SHARE = r'(0(\.[0-9]+)?|1(\.0+)?)'
PROTOCOLS = {  # patterns of the controls of each; the first is the default
  'fixed_targets': ('none', 'cropped', 'shuffled', f'scale:{NUMBER}', 'window:[1-9][0-9]*'),
  'non_overlapping': ('none',),
  'sliding': ('none',),
  'by_position': ('none',),
  'passkey': ('depth:0.5', rf'depth:{SHARE}(\+keys:[0-9]+)?(\+cropped)?(\+scale:{NUMBER})?'),
  'probe': ('layer:1', r'layer:[0-9]+(\+weights:initial)?'),
  'task': ('exact', 'teacher'),
}

LOSSES = ('fixed_targets', 'non_overlapping', 'sliding', 'by_position')  # the others score answers

LISTS = {'lengths': int, 'protocols': str, 'controls': str, 'measurements': str}
# Fields of `eval` that say what is measured, and not how.
SELECTION = ('every', 'lengths', 'protocols', 'controls', 'measurements')


def accepts(protocol: str, control: str) -> bool:
  """Whether a protocol has this control."""
  return any(re.fullmatch(pattern, control) for pattern in PROTOCOLS[protocol])


def controls(protocol: str) -> list[str]:
  """The controls of a protocol as people write them: 'depth:SHARE[+keys:N]'."""
  words = {SHARE: 'SHARE', NUMBER: 'X', '[1-9][0-9]*': 'N', '[0-9]+': 'N', r'\+': '+', '(': '[',
           ')?': ']'}  # fmt: skip
  shown = list(PROTOCOLS[protocol])
  for pattern, word in words.items():
    shown = [control.replace(pattern, word) for control in shown]
  return shown


def measurement(text: str) -> tuple[str, str, int]:
  """Protocol, control and length of 'passkey/depth:0.5/256'; ValueError if it is not understood."""
  protocol, _, rest = text.partition('/')
  choose(f'the protocol of the measurement {text!r}', protocol, PROTOCOLS)
  control, _, length = rest.rpartition('/')
  if not accepts(protocol, control) or not re.fullmatch('[1-9][0-9]*', length):
    raise ValueError(
      f'measurement {text!r} is not understood; write {protocol}/CONTROL/LENGTH with a control out '
      f'of {", ".join(controls(protocol))}.'
    )
  return protocol, control, int(length)


def settings(evaluation: Mapping[str, Any]) -> str:
  """Digest of how a config measures, without what it measures."""
  return digest.of_json({k: v for k, v in evaluation.items() if k not in SELECTION})


def _check_task(evaluation: Mapping[str, Any], config: Mapping[str, Any]) -> None:
  """Raises ValueError unless the protocol 'task' is used by models of a task, and by no others."""
  data, others = config['data'], set(evaluation['protocols']) - {'task'}
  if not data['task']:
    if len(others) < len(set(evaluation['protocols'])):
      raise ValueError("eval.protocols has 'task', and data.task names none; see configs/tasks.py.")
    return
  choose('data.task', data['task'], tasks.TASKS)
  at_least('data.task_size', data['task_size'], 1, tasks.TASKS[data['task']].unit)
  length = tasks.tokens(data['task'], data['task_size']) - 1
  if config['length'] != length:
    raise ValueError(
      f'length is {config["length"]}, and examples of {data["task"]!r} at size {data["task_size"]} '
      f'have {length} tokens of input; set length to that, or take configs/tasks.py.'
    )
  for size in evaluation['lengths']:
    tasks.tokens(data['task'], size)  # raises where the task has no such size
  if others or evaluation['every']:
    raise ValueError(
      f"a model of the task {data['task']!r} is measured by eval.protocols=('task',) alone, with "
      f'eval.every=0; there are {sorted(others)} and {evaluation["every"]}.'
    )
  for field, value, wanted in (
    ('data.needles', data['needles'], 0), ('data.packing', data['packing'], False),
    ('data.tokenizer', data['tokenizer'], 'bytes'), ('data.loader', data['loader'], 'memory'),
  ):  # fmt: skip
    if value != wanted:
      raise ValueError(f'{field} is {value!r}; with data.task it must be {wanted!r}.')


def _check_list(field: str, values: Any, kind: type) -> None:
  """Raises ValueError unless these are values of the kind, each given once."""
  wanted = 'whole numbers, (64, 128)' if kind is int else "names, ('a', 'b')"
  if not isinstance(values, list | tuple):
    raise ValueError(f'{field} is {values!r}; give {wanted}.')
  for value in values:
    if not isinstance(value, kind) or isinstance(value, bool):
      raise ValueError(f'{field} has {value!r}; give {wanted}.')
    if values.count(value) > 1:
      raise ValueError(f'{field} names {value!r} twice; name it once.')


def check(evaluation: dict[str, Any], config: Mapping[str, Any]) -> None:
  """Fills in derived values and checks `config['eval']`; ValueError says what is wrong."""
  for field, kind in LISTS.items():
    _check_list(f'eval.{field}', evaluation[field], kind)
  for value in evaluation['protocols']:
    choose('eval.protocols', value, PROTOCOLS)
  for value in evaluation['controls']:
    if not any(accepts(protocol, value) for protocol in PROTOCOLS):
      choose('eval.controls', value, dict.fromkeys(c for p in PROTOCOLS for c in controls(p)))
  for text in evaluation['measurements']:
    protocol, _, length = measurement(text)
    evaluation['protocols'] = sorted({protocol, *evaluation['protocols']})
    evaluation['lengths'] = sorted({length, *evaluation['lengths']})
  _check_task(evaluation, config)
  for field in ('lengths', 'protocols', 'controls'):
    if not evaluation[field]:
      raise ValueError(f'eval.{field} is empty; name at least one.')
  for length in evaluation['lengths']:
    at_least('eval.lengths', length, 1, 'tokens')
  if evaluation['reach'] is None:
    evaluation['reach'] = max(evaluation['lengths'])
  if evaluation['reach'] < max(evaluation['lengths']):
    raise ValueError(
      f'eval.reach ({evaluation["reach"]}) is below the longest of eval.lengths '
      f'({max(evaluation["lengths"])}); raise it, or leave it unset.'
    )
  for field in ('targets', 'windows', 'stride', 'tokens', 'batch_tokens'):
    at_least(f'eval.{field}', evaluation[field], 1)
  at_least('eval.every', evaluation['every'], 0, 'steps')
  if evaluation['targets'] > min(evaluation['lengths']) and 'task' not in evaluation['protocols']:
    raise ValueError(
      f'eval.targets ({evaluation["targets"]}) is above the shortest of eval.lengths '
      f'({min(evaluation["lengths"])}); every length must score the same targets.'
    )
  shortest = min(evaluation['lengths'])
  if 'sliding' in evaluation['protocols'] and evaluation['stride'] > shortest:
    raise ValueError(
      f'eval.stride ({evaluation["stride"]}) is above the shortest of eval.lengths ({shortest}); '
      'lower it.'
    )
  if 'cropped' in evaluation['controls'] and evaluation['targets'] > config['length']:
    raise ValueError(
      f'eval.targets ({evaluation["targets"]}) is above length ({config["length"]}), which the '
      'cropped control keeps; lower it.'
    )
  Spec(**(config['attention'] | {'implementation': evaluation['implementation']}))


def measurements(config: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
  """Every (protocol, control, length) of the config, short lengths first."""
  wanted = config['eval']
  if wanted['measurements']:
    listed = map(measurement, wanted['measurements'])
    yield from sorted(listed, key=lambda measurement: measurement[2])
    return
  for length in sorted(wanted['lengths']):
    for protocol in wanted['protocols']:
      accepted = [control for control in wanted['controls'] if accepts(protocol, control)]
      for control in accepted or PROTOCOLS[protocol][:1]:
        yield protocol, control, length
