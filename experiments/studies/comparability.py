"""Which runs may be compared: the one rule, for sweeps and for claims.

Two runs are comparable where their programs agree with the scheme taken out, and so does all else
that decides a number: compiler, device, text, order of batches, initial parameters, windows that
are scored, arithmetic of rows. Where a field of their configs explains a difference, it is named.
Two runs of one scheme are repetitions where their programs agree with the scheme, too.
"""

import dataclasses
import difflib
import json
import pathlib
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from experiments.studies import measured
from experiments.studies.measured import Run
from pe_research.common import nested
from pe_research.proof import program_store
from pe_research.runs import conditions
from pe_research.storage import files

FILE = 'difference_of_{field}.diff'  # beside the runs that it is of
Item = TypeVar('Item')
MODEL = ('config.model.', 'config.attention.', 'config.length', 'config.matmul_precision',
         'config.data.vocab', 'config.data.task', 'config.data.packing')  # fmt: skip
STEP = (*MODEL, 'config.optimizer.', 'config.steps')
TEXT = tuple(f'config.data.{name}' for name in (
  'source', 'train_split', 'validation_split', 'validation_fraction', 'tokenizer', 'vocab', 'limit',
  'loader', 'task',
))  # fmt: skip
BATCHES = 'config.data.', 'config.length', 'config.optimizer.batch'
EVAL = tuple(f'config.eval.{name}' for name in (
  'reach', 'targets', 'windows', 'stride', 'tokens', 'batch_tokens', 'implementation',
))  # fmt: skip
SCORED = (*EVAL, *TEXT, 'config.length', 'config.data.task_size')
# What differs -> in words, and the fields of a config that may be why.
SAID: dict[str, tuple[str, tuple[str, ...]]] = {
  'program.step': ('the training programs differ outside the scheme', STEP),
  'program.initial': ('the first states are made by other programs', (*STEP, 'config.start.')),
  'batch_order': ('batches are put together in other ways', BATCHES),
  'attention': ('attention is computed in other ways', ('config.attention.', 'config.eval.impl')),
  'data.': ('the texts differ', TEXT),
  'start.parameters': ('they start from other weights', ('config.start.',)),
  'initial_parameters': ('the initial parameters differ', MODEL),
  'batches': ('the batches differ', (*BATCHES, 'config.steps')),
  'steps': ('one was trained for more steps', ('config.steps',)),
  'program': ('the programs that score differ outside the scheme', (*MODEL, *EVAL)),
  'inputs': ('other windows were scored', SCORED),
  'targets': ('other targets were scored', SCORED),
  'tokens': ('other numbers of tokens were scored', SCORED),
  'bytes': ('other numbers of bytes were scored', SCORED),
  'arithmetic': ('rows are made of losses in other ways', ('config.data.task',)),
  'environment': ('they were measured by other versions, flags or devices', ()),
  'own_program': ('the programs of one scheme differ, so its runs are no repetitions', ()),
}
OF_A_SEED = 'start.parameters', 'initial_parameters', 'batches', 'steps'
OF_A_ROW = ('program', 'attention', 'inputs', 'targets', 'tokens', 'bytes', 'arithmetic',
            'environment')  # fmt: skip


class Refused(ValueError):
  """Runs that differ in more than scheme and seed."""


@dataclasses.dataclass(frozen=True)
class Difference:
  """What two runs differ in and must not.

  Attributes:
    field: its name, as --allow-different takes it.
    said: in a sentence.
    programs: (workdir, digest) of both programs, where these are what differs and nothing says why.
  """

  field: str
  said: str
  programs: tuple[tuple[pathlib.Path, str], ...] = ()


def load(workdirs: Sequence[pathlib.Path]) -> list[Run]:
  """Reads finished runs; ValueError names one that is not."""
  runs = []
  for workdir in workdirs:
    config, record = (files.read_json(workdir / f'{n}.json') for n in ('config', 'run'))
    if config is None or record is None or 'batches' not in record:
      raise ValueError(f'{workdir} holds no finished run; train it, or leave it out.')
    runs.append(Run(workdir, config, record, files.read_rows(workdir / 'results.jsonl')))
  if not runs:
    raise ValueError('there are no runs to compare.')
  return runs


def differences(runs: Sequence[Run]) -> Iterator[Difference]:
  """Each condition in which runs differ and, to be compared, must not; none is named twice.

  A run is held against the first with its config but for scheme and seed, and the first of each
  config against the first of all.
  """
  found: dict[tuple[str, str], Difference] = {}
  for difference in _all(runs):
    found.setdefault((difference.field, difference.said), difference)
  yield from found.values()


def _all(runs: Sequence[Run]) -> Iterator[Difference]:
  older, used = lambda run: run.is_older, measured.used(runs)
  for one, other in _pairs(runs, _itself, older, lambda run: None):
    yield from _conditions(one, other)
  for run in runs:
    for line in run.record['changed_on_resume']:
      yield Difference('changed_on_resume', f'changed_on_resume ({run.name}): {line}')
  for one, other in _pairs(runs, _itself, older, lambda run: run.record['seed']):
    differ = [f for f in OF_A_SEED if _of_record(one, f) != _of_record(other, f)]
    for field in differ:
      if (field, differ[0]) != ('initial_parameters', 'start.parameters'):  # which are the same
        yield from _because(field, '', one, other)
  for run, what in used.moved:
    yield Difference('targets', f'other targets were scored in {what}: {run.name} alone has them')
  rows = [(run, row) for run, own in zip(runs, used.rows, strict=True) for row in own
          if row['value'] is not None]  # fmt: skip
  for (one, old), (other, new) in _pairs(rows, _run, _unshown, lambda pair: measured.name(pair[1])):
    for field in OF_A_ROW:
      if field in old and field in new and old[field] != new[field]:
        yield from _because(field, f'in {measured.name(new)}', one, other, (old, new))
  yield from _no_repetitions(runs, rows)


def _itself(run: Run) -> Run:
  return run


def _run(pair: tuple[Run, measured.Row]) -> Run:
  return pair[0]


def _unshown(pair: tuple[Run, measured.Row]) -> bool:
  """Whether a row has no programs on record."""
  return 'program' not in pair[1]


def _pairs(
  items: Iterable[Item],
  run: Callable[[Item], Run],
  older: Callable[[Item], bool],
  key: Callable[[Item], Hashable],
) -> Iterator[tuple[Item, Item]]:
  """Pairs that hold all items of a key together: each with the first like it.

  Like it are those with its config, of which either all or none are older; then those of any
  config; then all.
  """
  first: dict[Hashable, Item] = {}
  for item in items:
    for like in ((key(item), older(item), run(item).cell), (key(item), older(item)), (key(item),)):
      one = first.setdefault(like, item)
      if one is not item:
        yield one, item
        break


def _conditions(one: Run, other: Run) -> Iterator[Difference]:
  old, new = one.record['conditions'], other.record['conditions']
  if one.is_older != other.is_older:  # what both have on record, and their configs
    both = old.keys() & new.keys()
    old, new = (
      {name: run.record['conditions'][name] for name in both} | conditions.conditions(run.config)
      for run in (one, other)
    )
  for line in nested.difference(old, new):
    field, _, values = line.partition(': ')
    yield from _because(field, values, one, other, (old, new))


def _of_record(run: Run, field: str) -> Any:
  if field == 'start.parameters':
    return (run.record.get('start') or {}).get('parameters')
  return run.record[field]


def _because(
  field: str, more: str, one: Run, other: Run, sides: Sequence[dict[str, Any]] = ()
) -> Iterator[Difference]:
  """What differs, or the fields of the configs that explain it.

  Args:
    field: name of what differs.
    more: values, or where.
    one: run.
    other: run.
    sides: what has the field on both sides.
  """
  known = next((name for name in SAID if f'{field}.'.startswith(f'{name.rstrip(".")}.')), '')
  said, reasons = SAID.get(known, (field, ()))
  pair, where = f'{one.name} -> {other.name}', f' {more}' if more.startswith('in ') else ''
  changed = nested.difference(*(_fields(run, field) for run in (one, other)))
  named = [line for line in changed if line.startswith(reasons)] if reasons else []
  for line in named:
    name, _, values = line.partition(': ')
    yield Difference(name, f'{said}{where}: {name} {values} ({pair})')
  if named and not (known.startswith('program') and _by_other_code((one, other), sides)):
    return
  if 'program' not in known:
    values = ''.join((f' {field}' if known else '', f' {more}')) if more and not where else ''
    yield Difference(field, f'{said}{where}{":" if values else ""}{values} ({pair})')
    return
  settings = [side.get('settings') for side in sides]
  if settings[0] != settings[1]:
    yield Difference(field, f'{said}{where}: evaluated with flags of their own ({pair})')
    return
  commits = ' and '.join(f'{run.name} at commit {_commit(run)}' for run in (one, other))
  programs = tuple(
    (run.workdir, side[field]) for run, side in zip((one, other), sides, strict=True)
  )
  yield Difference(
    field, f'{said}{where}, and no field of the configs says why: {commits}', programs
  )


def _by_other_code(runs: Sequence[Run], sides: Sequence[dict[str, Any]]) -> bool:
  """Whether runs of other files have programs that this code does not make of their configs.

  A config that differs explains other programs, and would hide a change of code made along with it.
  """
  if len({run.record['provenance'].get('code') for run in runs}) == 1:
    return False
  from experiments.studies import anew  # slow to import, and seldom needed

  return not all(anew.is_as_recorded(run, side) for run, side in zip(runs, sides, strict=True))


def _fields(run: Run, field: str) -> dict[str, Any]:
  """Fields of a config that may explain a condition of this name."""
  begins = {'config.start.workdir': run.config.get('start', {}).get('workdir'),
            'config.data.seed': run.config['data'].get('seed')}  # fmt: skip
  return conditions.conditions(run.config) | (begins if field in OF_A_SEED else {})


def _commit(run: Run) -> str:
  made_by = run.record['provenance']
  return str(made_by['commit'])[:10] + ('' if made_by['clean'] else ' with changes')


def _no_repetitions(runs: Sequence[Run], rows) -> Iterator[Difference]:
  """Programs that runs of one scheme with the same arguments do not share."""
  scheme = lambda run: json.dumps([run.cell, run.config['position']], sort_keys=True)
  own = lambda run: {f'own_program.{k}': v for k, v in run.record.get('programs', {}).items()}
  for one, other in _pairs(runs, _itself, lambda run: run.is_older, scheme):
    old, new = own(one), own(other)
    for field in old.keys() & new.keys():
      if old[field] != new[field]:
        yield from _because(field, '', one, other, (old, new))
  key = lambda pair: (scheme(pair[0]), measured.name(pair[1]))
  for (one, old), (other, new) in _pairs(rows, _run, _unshown, key):
    if 'own_program' in old and 'own_program' in new and old['own_program'] != new['own_program']:
      yield from _because('own_program', f'in {measured.name(new)}', one, other, (old, new))


def check(runs: Sequence[Run], allowed: Collection[str] = ()) -> list[str]:
  """The differences that `allowed` names, for a report to say first.

  Raises:
    Refused: there are other differences; says which, and how to allow them.
  """
  found = list(differences(runs))
  refused = [difference for difference in found if difference.field not in allowed]
  if refused:
    shown = '\n  '.join(map(sentence, refused[:20]))
    fields = dict.fromkeys(difference.field for difference in refused)
    flags = ' '.join(f'--allow-different={field}' for field in fields)
    raise Refused(
      f'these runs are not comparable:\n  {shown}\nRun them under the same conditions, or accept '
      f'the difference, which marks the report: {flags}'
    )
  unknown = set(allowed) - {difference.field for difference in found}
  if unknown:
    raise ValueError(f'--allow-different names {sorted(unknown)}, in which the runs do not differ.')
  return [difference.said for difference in found]


def notes(runs: Sequence[Run]) -> list[str]:
  """What else to know of a comparison: older records, and rows that are left out."""
  older = [run for run in runs if run.is_older]
  left_out = measured.used(runs).notes
  if not older:
    return left_out
  names = ', '.join(f'{run.name} (commit {_commit(run)})' for run in older)
  return [
    f'The programs of {names} are not on record: that they computed the same is shown by an older '
    'record alone, of configs, versions, texts, initial parameters and batches'
    + (', and of all files of code.' if len(older) == len(runs) else '.'),
    *left_out,
  ]


def sentence(difference: Difference) -> str:
  """What differs; that of two programs is written beside their runs, and the place is said."""
  if not difference.programs:
    return difference.said
  try:
    texts = [program_store.read(workdir).get(name) for workdir, name in difference.programs]
    if None in texts:
      return f'{difference.said}. The texts of these programs are not kept.'
    path = difference.programs[1][0].parent / FILE.format(field=difference.field)
    files.write_bytes(path, _text_of(difference, texts).encode())
  except (OSError, files.WorkdirError) as error:
    return f'{difference.said}. The difference of the two texts cannot be written: {error}'
  return f'{difference.said}. {path} has the difference of the two texts.'


def _text_of(difference: Difference, texts: Sequence[str]) -> str:
  """A unified diff of two programs, names of values left out where more than these differs."""
  lines = [re.sub(r'%[\d.]+', '%', text).splitlines() for text in texts]
  lines = lines if lines[0] != lines[1] else [text.splitlines() for text in texts]
  names = [f'{workdir.name} {name}' for workdir, name in difference.programs]
  return '\n'.join(difflib.unified_diff(*lines, *names, lineterm='', n=2)) + '\n'
