"""Evaluates a trained model: measurements of a config in, rows of results.jsonl out.

  python -m pe_research.evaluate --workdir=DIR --lengths=64,512,8192 --protocols=sliding
  python -m pe_research.evaluate --workdir=DIR --position=yarn:factor=4 --into=DIR_YARN

The second evaluates the weights of a run under another scheme that can use them, as they are, and
keeps the results in a directory of their own.
"""

import sys
from typing import Any

from pe_research.machines import cluster, exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import files, paths


def _mesh(text: str) -> dict[str, int]:
  """Devices by axis, of 'context=8,data=2'."""
  from pe_research.common import sharding

  found = dict(item.partition('=')[::2] for item in filter(None, text.split(',')))
  if not found.keys() <= set(sharding.AXES) or not all(n.isdigit() for n in found.values()):
    raise ValueError(
      f'--mesh={text!r} is not understood; write context=8, with axes of '
      f'{", ".join(sharding.AXES)}.'
    )
  return {axis: int(n) for axis, n in found.items()}


def _overrides(argv: list[str]) -> dict[str, Any]:
  """Command-line flags that replace fields of the saved run's `eval`."""
  parser = cli.parser('pe_research.evaluate', __doc__)
  parser.add_argument('--workdir', type=paths.place, required=True, help='of a trained run')
  parser.add_argument('--step', type=int, help='a checkpoint other than the newest')
  parser.add_argument(
    '--position', default='', metavar='NAME[:argument=value,...]',
    help='another scheme that can use the weights, as they are',
  )  # fmt: skip
  parser.add_argument('--into', type=paths.place, help='where results under --position go')
  parser.add_argument('--label', default='', help='of those in figures')
  parser.add_argument('--done', type=paths.place, metavar='FILE', help='written last')
  listed = {
    'lengths': (int, 'tokens of context, a,b,...'),
    'protocols': (str, 'what is scored, a,b,...; pe_research/evaluation/README.md lists them'),
    'controls': (str, 'variants, a,b,...: none,cropped,shuffled,scale:1.2,window:64'),
  }
  for name, (kind, means) in listed.items():
    split = lambda text, kind=kind: [kind(item) for item in text.split(',')]
    parser.add_argument(f'--{name}', type=split, help=means)
  parser.add_argument(
    '--measurement', action='append', dest='measurements', metavar='PROTOCOL/CONTROL/LENGTH',
    help='one measurement, in place of the above; repeatable',
  )  # fmt: skip
  numbers = {
    'reach': 'tokens of the longest window that targets are chosen for',
    'targets': 'scored at the end of each window, by fixed_targets',
    'windows': 'how many, of protocols that choose some',
    'stride': 'tokens between windows, of sliding',
    'tokens': 'scored at most, by protocols that read on',
    'batch_tokens': 'scored at once',
  }
  for name, means in numbers.items():
    parser.add_argument(f'--{name}', type=int, help=means)
  parser.add_argument('--implementation', help="of attention: 'dense', 'tiled' or 'pallas'")
  parser.add_argument(
    '--mesh', default='', metavar='AXIS=DEVICES,...',
    help='context=8: so many devices share a sequence; default: each has its own',
  )  # fmt: skip
  parser.add_argument('--json', action='store_true', help='print rows as JSON, not as a table')
  cluster.add_flags(parser)
  return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> None:
  """Evaluates a saved run at other lengths or by other protocols."""
  given = _overrides(sys.argv[1:] if argv is None else argv)
  workdir, step = given.pop('workdir'), given.pop('step')
  position, into, label = given.pop('position'), given.pop('into'), given.pop('label')
  done, mesh, as_json = given.pop('done'), given.pop('mesh'), given.pop('json')
  how, wait = given.pop('distributed'), given.pop('wait')
  with exits.errors():
    from pe_research.common import digest  # slow to import, and --help needs none of it
    from pe_research.evaluation import evaluate
    from pe_research.machines import heartbeat, multiprocess
    from pe_research.proof import program_store
    from pe_research.runs import lineage
    from pe_research.settings import configs
    from pe_research.training import train_state

    if bool(position) != (into is not None):
      raise ValueError('--position and --into go together: another scheme, and where it is kept.')
    if label and not position:
      raise ValueError(f'--label={label} names what --position makes; give that, or leave it out.')
    devices = _mesh(mesh)
    saved = run_folder.load_config(workdir)
    changed = {name: value for name, value in given.items() if value is not None}
    if 'lengths' in changed:
      changed.setdefault('reach', None)
    config = configs.anywhere(saved, devices) | {'eval': saved['eval'] | changed}
    if position:
      config |= {'position': lineage.given(position, saved)}
      config['run'] = config['run'] | {'label': label}
    config, home = configs.resolve(config), into or workdir
    program_store.use()
    cluster.join(how, wait)
    with (
      multiprocess.hold(home, config) as mine,
      heartbeat.Heartbeat(home, config['run']['patience'], mine) as heart,
    ):
      params, step = train_state.load_params(config, workdir, step)
      if position:
        parameters = digest.of_arrays(params)
        multiprocess.by_first(lambda: lineage.derive(config, home, workdir, step, parameters))
      evaluate.evaluate(config, home, params, step, heart.beat)
      if not multiprocess.first():
        return
      if position:
        files.write_json(home / 'done.json', {'steps': step})
      if done:
        files.write_json(done, {'measurements': config['eval']['measurements'], 'steps': step})
    evaluate.show(home, as_json)
    print(f'wrote {home / "results.jsonl"}')


if __name__ == '__main__':
  main()
