"""What is killed and damaged: a folder of tiny runs, commands that work in it, and what they leave.

All paths are relative to the folder, so that a copy of it is as good.
"""

import dataclasses
import json
import pathlib
import random
import re
import shutil

from experiments.faults import forks
from experiments.faults.forks import Ended, Kill
from pe_research.common import digest, records
from pe_research.machines import exits
from pe_research.proof import program_store

ROOT = pathlib.Path(__file__).parents[2]
WORDS = ['the', 'of', 'and', 'to', 'in', 'that', 'is', 'for', 'it', 'as', 'was', 'with', 'be', 'by']
SIZES = (
  'data.source=./text', 'steps=16', 'model.width=16', 'model.heads=2', 'run.save_every=4',
  'run.log_every=1', 'eval.lengths=(16,32)', 'eval.targets=8', 'eval.windows=6', 'eval.tokens=256',
)  # fmt: skip
CONFIG = f'--config={ROOT}/configs/smoke.py:length=16'
FIELDS = tuple(f'--config.{field}' for field in SIZES)
SEARCH = (
  'pe_research.search', '--run=rope', '--factor=2', '--documents=2', '--held-out=2',
  '--population=8', '--mutations=3', '--crossovers=3', '--iterations=4', '--parents=4',
)  # fmt: skip
EVALUATE = ('pe_research.evaluate', '--workdir=rope')
SWEEP = ('experiments.sweep', CONFIG, *FIELDS, '--positions=rope,alibi')
RUN = ('*.json', '*.jsonl', '*.zip', 'checkpoints/**/*')
READ = tuple(f'rope/{pattern}' for pattern in RUN)


@dataclasses.dataclass(frozen=True)
class Work:
  """A command.

  Attributes:
    command: module and arguments.
    reads: patterns of the files that it reads, in groups that are damaged equally often.
    slow: whether it starts Python, which takes seconds.
  """

  command: tuple[str, ...]
  reads: tuple[tuple[str, ...], ...] = ()
  slow: bool = False


def train(workdir: str, seed: int = 0) -> tuple[str, ...]:
  """The command that trains a run."""
  return 'pe_research.main', CONFIG, *FIELDS, f'--config.seed={seed}', f'--workdir={workdir}'


INPUTS = (('text/*',), ('data/**/*',))
WRITERS = {
  'main': Work(train('fresh')),
  'together': Work(
    ('pe_research.together', CONFIG, *FIELDS, '--seeds=0,1', '--workdir=pair{seed}')
  ),
  'evaluate': Work((*EVALUATE, '--lengths=16,48', '--protocols=fixed_targets,non_overlapping')),
  'evaluate --into': Work((*EVALUATE, '--position=pi:factor=2', '--into=pi', '--lengths=16,32')),
  'search': Work((*SEARCH, '--workdir=found')),
  'sweep': Work((*SWEEP, '--workdir=sweep'), slow=True),
  'launch run': Work(('launch', 'run', 'more.json'), slow=True),
  'experiments run': Work(('experiments.faults.claim', 'campaign'), slow=True),
}
READERS = {
  'main, stopped': Work(
    train('half'), (('half/*.json*', 'half/*.zip'), ('half/c*/**/*',), *INPUTS)
  ),
  'main, finished': Work(train('rope'), (READ[:3], READ[3:], *INPUTS)),
  'evaluate': Work(WRITERS['evaluate'].command, (READ[:3], READ[3:], *INPUTS)),
  'evaluate --into': Work(WRITERS['evaluate --into'].command, (READ[:3], READ[3:], *INPUTS)),
  'evaluate, longrope': Work(
    (*EVALUATE, '--position=longrope:file=search/factors.json', '--into=lr', '--lengths=16,32'),
    (('search/factors.json',),),
  ),
  'generate': Work(
    ('pe_research.generate', '--workdir=rope', '--tokens=8'), (READ[:3], READ[3:], *INPUTS)
  ),
  'search, stopped': Work((*SEARCH, '--workdir=cut'), (('cut/*.json*',), READ[:3], READ[3:])),
  'search, finished': Work((*SEARCH, '--workdir=search'), (('search/*.json*',),)),
  'report': Work(
    ('experiments.report', '--workdir=jobs'),
    (('jobs/runs/*/*.json*', 'jobs/runs/*/*.zip'),),
  ),
  'launch status': Work(
    ('launch', 'status', 'jobs.json'), (('jobs.json',), ('jobs/runs/*/*.json*',))
  ),
  'launch run': Work(('launch', 'run', 'jobs.json'), (('jobs.json', 'jobs/runs/*/*.json'),)),
}


def environment(home: pathlib.Path) -> dict[str, str]:
  """Of every command: no restart, this checkout, and caches in `home`."""
  return {
    'GLIBC_TUNABLES': exits.TUNABLES,
    'JAX_PLATFORMS': 'cpu',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true',
    'PE_DATA': str(home / 'data'),
    'PYTHONPATH': str(ROOT),
  }


def make(home: pathlib.Path, seed: int) -> pathlib.Path:
  """A folder with a text, runs that are finished or stopped, searches and jobs, of a seed."""
  folder = home / f'made{seed}'
  (folder / 'text').mkdir(parents=True)
  (folder / 'configs').symlink_to(ROOT / 'configs')  # which jobs of claims name
  for i in range(40):
    drawn = random.Random(1000 * seed + i).choices(WORDS, k=300)
    (folder / 'text' / f'{i:02}.txt').write_text(' '.join(drawn) + '\n')
  do = lambda *command, kill=None: forks.run(command, folder, environment(home), kill)
  steps = [
    do(*train('rope', seed)),
    do(*SEARCH, '--workdir=search', f'--seed={seed}'),
    do(*SWEEP, '--workdir=jobs', '--jobs=jobs.json', f'--config.data.seed={seed}'),
    do('launch', 'run', 'jobs.json'),
    do(*SWEEP, '--workdir=more', '--jobs=more.json', '--config.optimizer.final=0.2'),
  ]
  do(*train('half', seed), kill=Kill(path='checkpoints/12'))
  for failed in [one for one in steps if one.status]:
    raise RuntimeError(f'a command failed before any fault: {failed.errors[-2000:]}')
  shutil.copytree(folder / 'search', folder / 'cut')
  (folder / 'cut' / 'factors.json').unlink()
  rows = (folder / 'cut' / 'evaluations.jsonl').read_text().splitlines(keepends=True)
  (folder / 'cut' / 'evaluations.jsonl').write_text(''.join(rows[:2]))
  return folder


RESULT = re.compile(
  r'^((?:fixed_targets|non_overlapping) .*|[\w -]+ +-?\d+\.\d+ +-?\d+\.\d+|(?:RoPE|ALiBi) +\d\.\d.*'
  r'|T01 .* alone: .*|    RoPE at .*|\w+ +(?:done|failed|waiting|stopped|running)\b)',
  re.MULTILINE,
)
TIMES = ('tokens_per_second', 'seconds_left', 'mfu', records.DIGEST)
VOLATILE = re.compile(
  r'^(\..*|heartbeat-.*|log\.txt|.*\.(ended|job)|costs\.jsonl|speed|.*\.orbax.*)$'
)


def shown(work: Work, ended: Ended) -> str:
  """What a command printed as a result."""
  if work.command[0] == 'pe_research.generate':
    return ended.said
  return '\n'.join(found[0] for found in RESULT.finditer(ended.said))


def left(folder: pathlib.Path) -> dict[str, str]:
  """Each file that work has left, by path, as its content without times; damaged ones as they are.

  Of checkpoints the newest counts, by the digest that is saved with it.
  """
  found = {}
  for path in sorted(folder.rglob('*')):
    name = path.relative_to(folder)
    if not path.is_file() or name.parts[0] in ('data', 'text'):
      continue
    if any(VOLATILE.match(part) for part in name.parts) or 'checkpoints_damaged' in name.parts:
      continue
    if 'checkpoints' not in name.parts:
      found[str(name)] = _content(path)
    elif name.parts[-2:] == ('extra', 'metadata'):
      step = int(path.parts[-3])
      key = str(pathlib.Path(*name.parts[: name.parts.index('checkpoints') + 1]))
      before = int(found.get(key, '0').split()[0])
      found[key] = f'{step} {_saved(path)}' if step > before else found[key]
  return found


def _saved(path: pathlib.Path) -> str:
  try:
    return json.loads(path.read_text(encoding='utf-8')).get('digest', '?')
  except ValueError:
    return 'damaged'


def _content(path: pathlib.Path) -> str:
  content = path.read_bytes()
  try:
    if path.suffix == '.json':
      return digest.of_json(_without_times(json.loads(content)))
    if path.suffix == '.jsonl':
      rows = [_without_times(json.loads(line)) for line in content.splitlines()]
      if path.name == 'metrics.jsonl':  # of a step that was trained twice, the last counts
        rows = [*{(row['step'], 'loss' in row): row for row in rows}.values()]
      return digest.of_json(rows)
    if path.name == program_store.FILE:
      return digest.of_json(sorted(program_store.read(path.parent)))
  except (ValueError, KeyError, TypeError, AttributeError):
    pass
  return digest.of_bytes(content)


def _without_times(value):
  return {k: v for k, v in value.items() if k not in TIMES} if isinstance(value, dict) else value


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
  """Files that differ, or that only one has."""
  return [
    name for name in sorted(expected.keys() | found.keys())
    if expected.get(name) != found.get(name)
  ]  # fmt: skip
