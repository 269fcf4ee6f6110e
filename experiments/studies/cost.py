"""Estimated time of jobs: their FLOPs over the speed of this machine, which is measured first."""

import functools
import json
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from experiments.bench import measure
from experiments.studies.plan import Planner
from experiments.studies.planned_models import Node
from launch import devices, job_status, local
from launch.job import Job
from pe_research.search import sizes
from pe_research.settings import protocols
from pe_research.storage import files

START = 8.0  # seconds for imports, data and compilation
STEPS = 20  # to measure
MOST = 2e12  # FLOPs to measure without an accelerator: half a minute of a core


@functools.cache
def _sizes(text: str) -> dict[str, int]:
  from pe_research.model.functional import FunctionalDecoder  # slow to import

  return FunctionalDecoder(json.loads(text)).sizes()


def flops_per_token(config: Mapping[str, Any]) -> int:
  """FLOPs of a training step per token, see FunctionalDecoder.sizes, without the scheme's."""
  fields = {part: config[part] for part in ('model', 'length', 'attention')}
  fields |= {'data': {'vocab': config['data']['vocab']}, 'position': {'name': 'nope'}, 'seed': 0}
  return _sizes(json.dumps(fields, sort_keys=True))['train_flops_per_token']


def rate(config: Mapping[str, Any], workdir: pathlib.Path) -> float:
  """FLOP/s of a worker that trains a config while all others do; measured once for a `workdir`."""
  folder = workdir / 'speed'
  folder.mkdir(parents=True, exist_ok=True)
  if not (folder / 'config.json').exists():
    files.write_json(folder / 'config.json', config)
  jobs = []
  for i in range(devices.count()):
    done = folder / f'{i}.json'
    command = ('-m', 'experiments.studies.cost', str(folder / 'config.json'), str(done))
    jobs.append(Job(f'speed of worker {i}', command, folder / f'{i}.txt', done))
  failed = local.run(jobs, lambda: None)
  if failed:
    raise ChildProcessError(
      '\n'.join(job_status.failure_message(j, failed[j.name]) for j in jobs if j.name in failed)
    )
  return statistics.fmean(files.read_json(job.done)['flops_per_second'] for job in jobs)


def sample(config: Mapping[str, Any], most: float = math.inf) -> tuple[dict[str, Any], int]:
  """A config and a number of its steps to measure, of at most `most` FLOPs.

  The batch is reduced first, and then the number of steps, each to no less than 1.
  """
  optimizer, per_text = config['optimizer'], flops_per_token(config) * config['length']
  batch = int(max(1, min(optimizer['batch'], most / STEPS / per_text)))
  if batch == optimizer['batch']:
    return dict(config), STEPS
  smaller = dict(config) | {'optimizer': dict(optimizer) | {'batch': batch, 'accumulate': 1}}
  return smaller, int(max(1, min(STEPS, most / (batch * per_text))))


def main(config_file: str, done: str) -> None:
  """Measures a few training steps of a resolved config, in a process of its own."""
  most = math.inf if devices.chips()[1] else MOST
  config, steps = sample(files.read_json(pathlib.Path(config_file)), most)
  # Of a CPU the time on its cores, which other work on the machine leaves as it is.
  clock = time.perf_counter if devices.chips()[1] else time.process_time
  seconds, _ = measure.step_seconds(config, steps, clock)
  flops = flops_per_token(config) * config['optimizer']['batch'] * config['length']
  files.write_json(pathlib.Path(done), {'flops_per_second': flops / seconds})


def training(node: Node, rate: float) -> float:
  """Seconds of a node's training; 0 if it has none."""
  if not node.trains:
    return 0.0
  config = node.config
  tokens = config['steps'] * config['optimizer']['batch'] * config['length']
  return START + flops_per_token(config) * tokens / rate


def measuring(node: Node, rate: float) -> float:
  """Seconds of a node's measurements: a forward pass is a third of a step."""
  if not node.wanted:
    return 0.0
  total, evaluation = START, node.config['eval']
  for text in node.wanted:
    protocol, _, length = protocols.measurement(text)
    counts_tokens = protocol in ('non_overlapping', 'by_position')
    tokens = evaluation['tokens'] if counts_tokens else evaluation['windows'] * length
    total += 1.0 + flops_per_token(node.config | {'length': length}) / 3 * tokens / rate
  return total


def searching(node: Node, length: int, rate: float) -> float:
  """Seconds of a search on the weights of a node: a forward pass per candidate and document."""
  passes = sizes.Settings().evaluations * sizes.DOCUMENTS
  flops = flops_per_token(node.config | {'length': length}) / 3
  return START + passes * length * flops / rate


def of(nodes: Iterable[Node], planner: Planner, rate: float) -> float:
  """Seconds of all jobs of these nodes, done or not."""
  nodes = list(nodes)
  searches = {node.search.name for node in nodes if node.search}
  total = sum(searching(*planner.searched[name], rate) for name in searches)
  return total + sum(training(node, rate) + measuring(node, rate) for node in nodes)


def left(planner: Planner, rate: float) -> float:
  """Seconds of all trainings, searches and measurements that are not done."""
  done = {job.name for job in planner.jobs() if job.done.exists()}
  searches = [search for name, search in planner.searched.items() if name not in done]
  total = sum(searching(*search, rate) for search in searches)
  for node in planner.nodes.values():
    trained, measured = (name in done for name in node.job_names())
    total += training(node, rate) * (not trained) + measuring(node, rate) * (not measured)
  return total


if __name__ == '__main__':
  main(*sys.argv[1:])
