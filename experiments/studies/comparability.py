"""Decides which runs may be compared, in sweeps and claims.

Two runs are comparable if their programs without the scheme are equal, and so is everything else
that determines a number: compiler, device, text, order of batches, initial parameters, windows that
are scored, arithmetic of rows. If a field of their configs explains a difference, it is named. Two
runs of one scheme are repetitions if their programs with the scheme are equal, too.
"""

import dataclasses
import difflib
import json
import pathlib
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.studies import explaining_fields, measured
from experiments.studies.measured import Run
from pe_research.common import nested
from pe_research.proof import program_store
from pe_research.runs import conditions, run_folder
from pe_research.storage import files

FILE = 'difference_of_{field}.diff'  # beside the runs that it is of


class Refused(ValueError):
  """Runs that differ in more than scheme and seed."""


@dataclasses.dataclass(frozen=True)
class Difference:
  """A difference that makes two runs incomparable.

  Attributes:
    field: its name, as --allow-different takes it.
    text: in a sentence.
    programs: (workdir, digest) of both programs, if these differ and no config explains it.
  """

  field: str
  text: str
  programs: tuple[tuple[pathlib.Path, str], ...] = ()


class Compared(NamedTuple):
  """A run and the values that are compared with those of another run.

  Attributes:
    run: the run.
    values: its conditions, its programs or one of its rows.
    older: whether these were recorded without programs.
  """

  run: Run
  values: Mapping[str, Any]
  older: bool


def load(workdirs: Sequence[pathlib.Path]) -> list[Run]:
  """Reads finished runs; ValueError names one that is not, or lacks rows."""
  if not workdirs:
    raise ValueError('there are no runs to compare.')
  runs = []
  for workdir in workdirs:
    run = measured.read(workdir, files.read_json(workdir / 'config.json'))
    if run is None:
      raise ValueError(
        f'{workdir} holds no finished run, by its config.json and run.json; train it, or leave it '
        'out.'
      )
    run_folder.load_rows(workdir, run.record)  # raises where they are of another run
    if missing := measured.missing(run):
      raise ValueError(
        f'{workdir / "results.jsonl"} lacks {len(missing)} of its measurements '
        f'({", ".join(missing[:5])}{", ..." if len(missing) > 5 else ""}): rows were lost, or it '
        f'was stopped. python -m pe_research.evaluate --workdir={workdir} measures them.'
      )
    runs.append(run)
  return runs


def differences(runs: Sequence[Run]) -> Iterator[Difference]:
  """Each difference that makes runs incomparable, once.

  Each run is compared with the first that has its config up to scheme and seed, and the first of
  each config with the first of all.
  """
  unique: dict[tuple[str, str], Difference] = {}
  for difference in _all(runs):
    unique.setdefault((difference.field, difference.text), difference)
  yield from unique.values()


def _all(runs: Sequence[Run]) -> Iterator[Difference]:
  recorded = [Compared(run, run.record['conditions'], run.is_older) for run in runs]
  for one, other in _pairs(recorded, lambda item: None):
    yield from _conditions(one, other)
  for run in runs:
    for line in run.record['changed_on_resume']:
      yield Difference('changed_on_resume', f'changed_on_resume ({run.name}): {line}')
  of_seeds = [Compared(run, _of_seed(run), run.is_older) for run in runs]
  for one, other in _pairs(of_seeds, lambda item: item.run.record['seed']):
    differ = _unequal(one, other, explaining_fields.OF_A_SEED)
    for field in differ:
      if (field, differ[0]) != ('initial_parameters', 'start.parameters'):  # which are the same
        yield from _explained(field, '', one, other)
  selection = measured.select(runs)
  for run, what in selection.other_targets:
    text = f'scored targets differ in {what}: {run.name} alone has its own'
    yield Difference('targets', text)
  rows = [
    Compared(run, row, 'program' not in row)
    for run, own in zip(runs, selection.rows, strict=True)
    for row in own
    if row['value'] is not None
  ]
  for one, other in _pairs(rows, lambda item: measured.measurement_id(item.values)):
    for field in _unequal(one, other, explaining_fields.OF_A_ROW):
      yield from _explained(field, f'in {measured.measurement_id(other.values)}', one, other)
  yield from _differing_repetitions(runs, rows)


def _unequal(one: Compared, other: Compared, fields: Iterable[str]) -> list[str]:
  """The fields that both have, with different values."""
  old, new = one.values, other.values
  return [field for field in fields if field in old and field in new and old[field] != new[field]]


def _pairs(
  items: Iterable[Compared], key: Callable[[Compared], Hashable]
) -> Iterator[tuple[Compared, Compared]]:
  """Pairs each run with the first earlier one of the same group; `key` gives the group.

  One with its config and record version is preferred, then one with its record version.
  """
  first: dict[Hashable, Compared] = {}
  for item in items:
    group = key(item)
    for like in ((group, item.older, item.run.config_key), (group, item.older), (group,)):
      one = first.setdefault(like, item)
      if one is not item:
        yield one, item
        break


def _conditions(one: Compared, other: Compared) -> Iterator[Difference]:
  if one.older != other.older:  # what both have on record, and their configs
    both = one.values.keys() & other.values.keys()
    one, other = (
      item._replace(
        values={name: item.values[name] for name in both} | conditions.conditions(item.run.config)
      )
      for item in (one, other)
    )
  for line in nested.difference(one.values, other.values):
    field, _, values = line.partition(': ')
    yield from _explained(field, values, one, other)


def _of_seed(run: Run) -> dict[str, Any]:
  """What runs of one seed must share."""
  start = run.record.get('start') or {}
  return {**run.record, 'start.parameters': start.get('parameters')}


def _explained(field: str, more: str, one: Compared, other: Compared) -> Iterator[Difference]:
  """The fields of the configs that explain a difference, or else the difference itself.

  Args:
    field: name of what differs.
    more: both values, or 'in' and the measurement.
    one: has the field.
    other: has it, too.
  """
  pair = f'{one.run.name} -> {other.run.name}'
  entry, noun, explaining = explaining_fields.find(field)
  text = f'{noun} differ' if entry else field
  where = f' {more}' if more.startswith('in ') else ''
  changed = nested.difference(*(_fields(run, field) for run in (one.run, other.run)))
  explained = [line for line in changed if explaining and line.startswith(explaining)]
  for line in explained:
    name, _, values = line.partition(': ')
    yield Difference(name, f'{text}{where}: {name} {values} ({pair})')
  if explained and not (entry.startswith('program') and _code_changed(one, other)):
    return
  if 'program' not in entry:
    values = '' if where or not more else f': {field} {more}' if entry else f': {more}'
    yield Difference(field, f'{text}{where}{values} ({pair})')
    return
  if one.values.get('settings') != other.values.get('settings'):
    yield Difference(field, f'{text}{where}: evaluated with flags of their own ({pair})')
    return
  commits = ' and '.join(f'{run.name} at commit {_commit(run)}' for run in (one.run, other.run))
  programs = tuple((item.run.workdir, item.values[field]) for item in (one, other))
  yield Difference(
    field, f'{text}{where}, and no field of the configs says why: {commits}', programs
  )


def _code_changed(one: Compared, other: Compared) -> bool:
  """Whether these are runs of different code whose programs differ from those of the current code.

  Configs that differ explain different programs, and would hide a change of code made with them.
  """
  if one.run.record['provenance'].get('code') == other.run.record['provenance'].get('code'):
    return False
  from experiments.studies import relowering  # slow to import, and seldom needed

  return not all(relowering.matches_record(item.run, item.values) for item in (one, other))


def _fields(run: Run, field: str) -> dict[str, Any]:
  """Fields of a config that may explain a condition of this name."""
  fields = conditions.conditions(run.config)
  if field not in explaining_fields.OF_A_SEED:
    return fields
  start, seed = run.config.get('start', {}).get('workdir'), run.config['data'].get('seed')
  return fields | {'config.start.workdir': start, 'config.data.seed': seed}


def _commit(run: Run) -> str:
  made_by = run.record['provenance']
  return str(made_by['commit'])[:10] + ('' if made_by['clean'] else ' with changes')


def _differing_repetitions(runs: Sequence[Run], rows: Sequence[Compared]) -> Iterator[Difference]:
  """Differing programs of runs of one scheme with the same arguments, hence of repetitions."""

  def scheme(item: Compared) -> str:
    return json.dumps([item.run.config_key, item.run.config['position']], sort_keys=True)

  programs = []
  for run in runs:
    own = {f'own_program.{k}': v for k, v in run.record.get('programs', {}).items()}
    programs.append(Compared(run, own, run.is_older))
  for one, other in _pairs(programs, scheme):
    for field in _unequal(one, other, one.values):
      yield from _explained(field, '', one, other)
  for one, other in _pairs(rows, lambda item: (scheme(item), measured.measurement_id(item.values))):
    for field in _unequal(one, other, ('own_program',)):
      yield from _explained(field, f'in {measured.measurement_id(other.values)}', one, other)


def check(
  runs: Sequence[Run], allowed: Collection[str] = (), by_design: Collection[str] = ()
) -> list[str]:
  """The differences that the runs may have, for a report to begin with.

  Args:
    runs: to compare.
    allowed: fields that --allow-different names.
    by_design: fields in which these runs may differ; 'config.optimizer.' is all of its fields.

  Raises:
    Refused: there are other differences; lists them, and how to allow them.
    ValueError: `allowed` names something in which the runs do not differ.
  """
  found = list(differences(runs))
  accepted = {*allowed, *(one.field for one in found if _is_among(one.field, by_design))}
  refused = [difference for difference in found if difference.field not in accepted]
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
  return [difference.text for difference in found]


def _is_among(field: str, names: Collection[str]) -> bool:
  return any(field.startswith(name) if name.endswith('.') else field == name for name in names)


def notes(runs: Sequence[Run]) -> list[str]:
  """What else a reader must know of a comparison: older records, and rows that are not compared."""
  older = [run for run in runs if run.is_older]
  left_out = measured.select(runs).notes
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
  """A difference in words; that of two programs is written to a file, which is named."""
  if not difference.programs:
    return difference.text
  try:
    texts = [program_store.read(workdir).get(name) for workdir, name in difference.programs]
    if None in texts:
      return f'{difference.text}. The texts of these programs are not kept.'
    path = difference.programs[1][0].parent / FILE.format(field=difference.field)
    files.write_bytes(path, _diff(difference, texts).encode())
  except (OSError, files.WorkdirError) as error:
    return f'{difference.text}. The difference of the two texts cannot be written: {error}'
  return f'{difference.text}. {path} has the difference of the two texts.'


def _diff(difference: Difference, texts: Sequence[str]) -> str:
  """A unified diff of two programs, without the names of values if anything else differs."""
  lines = [re.sub(r'%[\d.]+', '%', text).splitlines() for text in texts]
  lines = lines if lines[0] != lines[1] else [text.splitlines() for text in texts]
  names = [f'{workdir.name} {name}' for workdir, name in difference.programs]
  return '\n'.join(difflib.unified_diff(*lines, *names, lineterm='', n=2)) + '\n'
