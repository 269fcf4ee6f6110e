"""Bad values for every field of a config and every flag of a command, and what comes of each."""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import io
import os
import pathlib
import random
import resource
import signal
import time
import traceback
from collections.abc import Iterator

import jax
import pytest
import run_fixtures

from configs import lm
from experiments.faults import forks
from pe_research import positions
from pe_research.common import nested
from pe_research.machines import exits
from pe_research.storage import files

HANGS = 30  # seconds
MEMORY = 2**34  # bytes of addresses, beyond which a command takes too much
RIGHT = ('refused', 'began', 'ended')
VALUES = (
  '', ' ', 'None', 'True', 'nan', 'inf', '-inf', '-1', '0', '1', '2', '3', '0.5', '-0.5', '1.0',
  str(2**31), str(2**63), str(10**18), '-' + str(2**63), '1e300', '1e-300', '1_000', '0x10', 'abc',
  'é☃\u202e\U0001f600', '\x1b[31m', 'a\nb', '\t', 'x' * 3000, '9' * 400, '(1, 2)', '[1, [2]]', '()',
  "('a', 'a')", '(64, 64)', '(0,)', '(-1,)', '(nan,)', '(None,)', '{}', '{"a": 1}', '1,2', '1,1',
  '0:3', '3:0', ',', 'a=b', '=', ':', '/nowhere/at/all', '{folder}', '{fifo}', '{file}',
  '/dev/null', '/dev/full', '/dev/zero', '.', '..', '~', '-', '%s', '$HOME', '*', '[a-z]', 'gs://', 'ftp://x/y',
  'rope', 'rope,rope', 'yarn:factor=0', 'yarn:factor=nan', 'yarn:', ':factor=2', 'rope:base=-1',
  'longrope:file={fifo}', 'longrope:file={folder}', 'pi:factor=1e300', 'fixed_targets/none/0',
  'passkey/depth:0.5/99999999999999999999', 'scale:0', 'window:1',
)  # fmt: skip
RUN, OUT = '{run}', '{out}'
# Commands, the flags that each needs, and the functions that begin its work.
COMMANDS = {
  'pe_research.main': (
    ['--config={root}/configs/smoke.py', '--config.data.source={text}', f'--workdir={OUT}'],
    ['pe_research.training.loop.Member'],
  ),
  'pe_research.together': (
    ['--config={root}/configs/smoke.py', '--seeds=0,1', f'--workdir={OUT}' + '{{seed}}'],
    ['pe_research.training.loop.Member', 'pe_research.together.run'],
  ),
  'pe_research.evaluate': (
    [f'--workdir={RUN}'],
    ['pe_research.training.train_state.load_params'],
  ),
  'pe_research.generate': (
    [f'--workdir={RUN}'],
    ['pe_research.training.train_state.load_params'],
  ),
  'pe_research.search': (
    [f'--run={RUN}', '--factor=2', '--held-out=2', '--documents=2', f'--workdir={OUT}'],
    ['pe_research.training.train_state.load_params'],
  ),
  'pe_research.huggingface': (
    [f'--workdir={RUN}', f'--into={OUT}'],
    ['pe_research.training.train_state.load_params'],
  ),
  'pe_research.programs': (
    ['--config={root}/configs/smoke.py'],
    ['pe_research.training.programs.of_training'],
  ),
  'pe_research.card': ([], ['pe_research.show.card_text.text']),
  'pe_research.explorer': (
    [f'--out={OUT}.html'],
    ['pe_research.show.explorer.html', 'pe_research.show.explorer.schemes'],
  ),
  'experiments.sweep': (
    ['--config={root}/configs/smoke.py', '--config.data.source={text}', f'--workdir={OUT}'],
    ['experiments.studies.carry_out.carry_out'],
  ),
  'experiments.stretch': (
    [f'--run={RUN}', f'--workdir={OUT}'],
    ['experiments.studies.carry_out.carry_out'],
  ),
  'experiments.finetune': (
    [f'--run={RUN}', f'--workdir={OUT}'],
    ['experiments.studies.carry_out.carry_out'],
  ),
  'experiments.progressive': (
    [f'--workdir={OUT}', '--dry-run'],
    ['experiments.studies.carry_out.carry_out'],
  ),
  'experiments.cache': ([f'--workdir={OUT}'], ['experiments.cache.measure']),
  'experiments.report': (
    [f'--workdir={OUT}', RUN],
    ['experiments.studies.comparability.load'],
  ),
  'experiments.site': ([f'--out={OUT}'], ['experiments.site.build.write']),
  'experiments.bench': (
    ['train', f'--workdir={OUT}'],
    ['experiments.bench.measure.' + name for name in ('train', 'forward', 'decode', 'search')]
    + ['experiments.bench.measure.together', 'experiments.bench.scaling.run'],
  ),
  'experiments': (
    ['run', 'C01', f'--workdir={OUT}'],
    ['experiments.studies.runner.run', 'experiments.studies.cost.rate'],
  ),
  'launch': (
    ['run', '{jobs}'],
    ['launch.local.run', 'launch.local.run_on_all_chips', 'launch.submit.submit_shares'],
  ),
}  # fmt: skip


class Began(Exception):
  """The work of a command would begin."""


class Hung(BaseException):
  """A command took longer than HANGS."""


@dataclasses.dataclass(frozen=True)
class Case:
  """A command with bad values for the fields or flags `names`."""

  command: str
  argv: tuple[str, ...]
  names: tuple[str, ...]
  given: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of a case: 'began', 'ended', 'refused', or else what is wrong; and its seconds."""

  what: str
  said: str
  seconds: float


@functools.cache
def parser(command: str) -> argparse.ArgumentParser:
  """The parser of a command, taken as it parses."""

  class Taken(Exception):
    pass

  def take(self, *_):
    raise Taken(self)

  with pytest.MonkeyPatch.context() as patch:
    for name in ('parse_args', 'parse_known_args'):
      patch.setattr(argparse.ArgumentParser, name, take)
    try:
      forks.entry(command)(['--position=rope'] if command == 'pe_research.card' else [])
    except Taken as taken:
      return taken.args[0]
  raise AssertionError(command)


def flags(command: str) -> list[tuple[str, ...]]:
  """Of a command: (flag,), or (subcommand, flag)."""
  found = []
  for action in parser(command)._actions:
    if isinstance(action, argparse._SubParsersAction):
      for name, sub in action.choices.items():
        own = [max(one.option_strings, key=len) for one in sub._actions[1:] if one.option_strings]
        found += [(name, flag) for flag in own if (name, flag) != ('submit', '--dry-run')]
    elif action.option_strings and action.dest != 'help':
      found.append((max(action.option_strings, key=len),))
  return found


@functools.cache
def fields(scheme: str) -> tuple[str, ...]:
  """Every field of a config of this scheme, by dotted name."""
  return tuple(nested.flat(lm.get_config(f'position={scheme}').to_dict()))


@functools.cache
def usual(scheme: str) -> list[str]:
  """Flags for the arguments that a scheme needs."""
  usual, needed = positions.defaults(scheme), positions.example(scheme, 4)
  plain = lambda value: tuple(value) if isinstance(value, list) else value
  return [f'--config.position.{k}={plain(v)}' for k, v in needed.items() if v != usual[k]]


ARGUMENTS = {
  'lm': ('position', 'preset', 'length', 'seed'),
  'smoke': ('position', 'preset', 'length', 'seed'),
  'tasks': ('task', 'size', 'position', 'preset', 'seed'),
  'finetune': ('start', 'recipe', 'stage', 'factor', 'share', 'file', 'preset', 'seed'),
  'pretrained': ('path',),  # the first to be checked
}


def case(draw: random.Random) -> Case:
  """A case of a field, of an argument of a config, or of a flag."""
  kind = draw.random()
  if kind < 0.6:
    scheme, count = draw.choice([*positions.SCHEMES]), draw.choice((1, 1, 1, 2))
    own = [name for name in fields(scheme) if name.startswith('position.')]
    names = [draw.choice(own if draw.random() < 0.3 else fields(scheme)) for _ in range(count)]
    values = [draw.choice(VALUES) for _ in names]
    needed, _ = COMMANDS['pe_research.main']
    config = [f'{needed[0]}:position={scheme}', *needed[1:], *usual(scheme)]
    given = [f'--config.{n}={v}' for n, v in zip(names, values, strict=True)]
    return Case('pe_research.main', (*config, *given), tuple(names), tuple(values))
  if kind < 0.7:
    family = draw.choice([*ARGUMENTS])
    name, value = draw.choice(ARGUMENTS[family]), draw.choice(VALUES)
    first = 'start={run},' if family == 'finetune' else ''
    given = f'--config={{root}}/configs/{family}.py:{first}{name}={value}'
    return Case('pe_research.main', (given, f'--workdir={OUT}'), (name,), (value,))
  command = draw.choice([*COMMANDS])
  *sub, flag = draw.choice(flags(command))
  value, (needed, _) = draw.choice(VALUES), COMMANDS[command]
  base = [*needed]
  if sub:
    base = [sub[0], '{jobs}', *(['--into={out}'] if sub[0] == 'collect' else [])]
  argv = [one for one in base if not one.startswith(f'{flag}=')]
  bare = draw.random() < 0.1
  return Case(command, (*argv, flag if bare else f'{flag}={value}'), (flag,), (value,))


def places(folder: pathlib.Path) -> dict[str, str]:
  """What the placeholders in cases stand for: made in `folder`."""
  names = {name: str(folder / name) for name in ('run', 'out', 'text', 'folder', 'fifo', 'file')}
  text = run_fixtures.write_corpus(folder / 'text', 40)
  (folder / 'folder').mkdir()
  (folder / 'file').write_text('no such thing\n')
  os.mkfifo(folder / 'fifo')
  (folder / 'run').mkdir()
  config = run_fixtures.config(text)
  files.write_json(folder / 'run' / 'config.json', config)
  record = {'scheme': 'rope', 'seed': 0, 'train_length': 16, 'steps': 12, 'conditions': {},
            'batches': '', 'fingerprint': '', 'start': None, 'changed_on_resume': [],
            'provenance': {'commit': None, 'clean': True}}  # fmt: skip
  files.write_json(folder / 'run' / 'run.json', record)
  job = {'name': 'a', 'command': ['-c', ''], 'log': str(folder / 'a' / 'log.txt'),
         'done': str(folder / 'a' / 'done.json'), 'after': [], 'others': []}  # fmt: skip
  files.write_json(folder / 'jobs.json', {'jobs': [job]})
  return names | {'jobs': str(folder / 'jobs.json'), 'root': str(run_fixtures.ROOT)}


def filled(text: str, names: dict[str, str]) -> str:
  for name, path in names.items():
    text = text.replace('{' + name + '}', path)
  return text.replace('{{', '{').replace('}}', '}')


def _mapped() -> int:
  """Bytes of memory that this process has mapped: the tests before have left it large."""
  pages = int(pathlib.Path('/proc/self/statm').read_text(encoding='utf-8').split()[0])
  return pages * resource.getpagesize()


@contextlib.contextmanager
def stopped_where_work_begins(command: str) -> Iterator[None]:
  def begin(*_, **__):
    raise Began

  def alarm(*_):
    raise Hung

  precision = jax.config.jax_default_matmul_precision
  before = signal.signal(signal.SIGALRM, alarm), signal.getsignal(signal.SIGTERM)
  with pytest.MonkeyPatch.context() as patch:
    for path in COMMANDS[command][1]:
      module, _, name = path.rpartition('.')
      patch.setattr(importlib.import_module(module), name, begin)
    patch.setattr(jax.distributed, 'initialize', begin)
    patch.setattr('pe_research.machines.exits.restart_tuned', lambda: None)
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + MEMORY, memory[1]))
    signal.alarm(HANGS)
    try:
      yield
    finally:
      signal.alarm(0)
      resource.setrlimit(resource.RLIMIT_AS, memory)
      signal.signal(signal.SIGALRM, before[0])
      signal.signal(signal.SIGTERM, before[1])
      jax.config.update('jax_default_matmul_precision', precision)


def outcome(one: Case, names: dict[str, str]) -> Outcome:
  """Calls the command in this process, up to its work."""
  argv = [filled(text, names) for text in one.argv]
  out, errors, began = io.StringIO(), io.StringIO(), time.monotonic()
  what = 'ended'
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
    try:
      with stopped_where_work_begins(one.command):
        status = forks.entry(one.command)(argv)
      of_launch = one.command == 'launch' and status == 1  # the jobs are not done
      what = 'ended' if not status or of_launch else f'status {status}'
    except Began:
      what = 'began'
    except SystemExit as ended:
      what = {0: 'ended', None: 'ended', 2: 'refused'}.get(ended.code, f'status {ended.code}')
    except Hung:
      what = f'hung: {traceback.format_exc()}'
    except BaseException:
      what = traceback.format_exc()
  seconds, said = time.monotonic() - began, errors.getvalue()
  if what == 'refused':
    what = _refusal(said, one, [filled(text, names) for text in one.given])
  return Outcome(what, said, seconds)


def _refusal(said: str, one: Case, given: list[str]) -> str:
  """'refused' if one line says so and names what is wrong; otherwise that it does not."""
  message = said[said.rfind('error: ') :].rstrip()
  if 'Traceback' in said or 'error: ' not in said:
    return f'no error in words: {said[-500:]}'
  parsed = said.startswith('usage: ')
  for value in given:  # a line in a value is none of the message
    message = message.replace(value, repr(value)) if '\n' in value else message
  lists = 'data.source' in one.names  # its unusable files
  if not parsed and not lists and ('\n' in message or len(message) > 1200):
    return f'not one short line: {message[:1500]}'
  if any(ord(c) < 32 for c in message if c != '\n'):
    return f'control characters: {message!r}'
  words = [word for name in one.names for word in (name.split('.')[-1], name.strip('-'))]
  for value in given:
    words += [repr(value), repr(value)[1:40], exits.shown(value), str(pathlib.Path(value))]
    words += value.split(',')
  words = [word for word in words if word]
  if not any(word in message or word.replace('-', '_') in message for word in words):
    return f'names neither field nor value: {message}'
  return 'refused'
