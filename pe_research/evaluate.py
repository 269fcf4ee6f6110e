"""Evaluates a trained model: measurements of a config in, rows of results.jsonl out.

  python -m pe_research.evaluate --workdir=DIR --lengths=64,512,8192 --protocols=sliding
  python -m pe_research.evaluate --workdir=DIR --position=yarn:factor=4 --into=DIR_YARN

The second evaluates the weights of a run, unchanged, under another scheme that can use them, and
keeps the results in a folder of their own. What no flag sets is as in the run's config.
"""

import argparse
import sys

from pe_research.machines import cluster, exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import files, paths

# Flags that replace fields of the saved run's `eval`: type, placeholder, meaning.
FIELDS = {
  'lengths': (cli.integers, 'N,...', 'context lengths, tokens'),
  'protocols': (
    cli.words, 'NAME,...',
    'what is scored, such as fixed_targets or sliding; pe_research/evaluation/README.md lists them',
  ),
  'controls': (
    cli.words, 'NAME,...',
    'variants of the protocols: none, cropped, shuffled, scale:1.2, window:64, depth:0.5, ...',
  ),
  'reach': (int, 'N', 'tokens of context that fixed targets have (default: longest of --lengths)'),
  'targets': (int, 'N', 'tokens that fixed_targets scores at the end of each window'),
  'windows': (int, 'N', 'windows of fixed_targets, passkey and probe; examples of a task'),
  'stride': (int, 'N', 'tokens between the windows of sliding'),
  'tokens': (int, 'N', 'most tokens that non_overlapping, sliding and by_position score'),
  'batch_tokens': (int, 'N', 'tokens scored at once, at least one window'),
  'implementation': (str, 'NAME', 'of attention: dense, tiled or pallas'),
}  # fmt: skip


def flags(argv: list[str]) -> argparse.Namespace:
  """The command line; what was not given of FIELDS is None."""
  parser = cli.parser('pe_research.evaluate', __doc__)
  add = parser.add_argument
  cli.add_checkpoint(parser, '--workdir')
  add(
    '--position', default='', metavar='NAME[:argument=value,...]',
    help='another scheme that can use the weights as they are; needs --into',
  )  # fmt: skip
  add('--into', type=paths.place, metavar='DIR', help='folder for results under --position')
  add('--label', default='', help='name in figures of what --position makes (default: the scheme)')
  add('--done', type=paths.place, metavar='FILE', help='file that is written last, for launchers')
  for name, (kind, placeholder, text) in FIELDS.items():
    add(f'--{name.replace("_", "-")}', type=kind, metavar=placeholder, help=text)
  add(
    '--measurement', action='append', dest='measurements', metavar='PROTOCOL/CONTROL/LENGTH',
    help='one measurement in place of all of --protocols, --controls and --lengths; repeatable',
  )  # fmt: skip
  add(
    '--mesh', default='', metavar='AXIS=DEVICES,...',
    help='devices by mesh axis: context=8 splits each sequence over 8 (default: data, over all)',
  )  # fmt: skip
  add('--json', action='store_true', help='print rows as JSON, a line each, and not a table')
  cluster.add_flags(parser)
  return parser.parse_args(argv)


def mesh_axes(text: str) -> dict[str, int]:
  """Devices by axis, of 'context=8,data=2'."""
  from pe_research.common import sharding

  axes = dict(item.partition('=')[::2] for item in filter(None, text.split(',')))
  if not axes.keys() <= set(sharding.AXES) or not all(n.isdigit() for n in axes.values()):
    raise ValueError(
      f'--mesh={text!r} is not understood; write context=8, with axes of '
      f'{", ".join(sharding.AXES)}.'
    )
  return {axis: int(n) for axis, n in axes.items()}


def main(argv: list[str] | None = None) -> None:
  """Evaluates a saved run at other lengths or by other protocols."""
  given = flags(sys.argv[1:] if argv is None else argv)
  with exits.errors():
    if bool(given.position) != (given.into is not None):
      raise ValueError('--position and --into go together: another scheme, and where it is kept.')
    if given.label and not given.position:
      raise ValueError(
        f'--label={given.label} names what --position makes; give that, or leave it out.'
      )
    axes, saved = mesh_axes(given.mesh), run_folder.load_config(given.workdir)
    if given.done:
      files.check_writable(given.done)
    from pe_research.common import digest  # slow to import, and a flag may have been bad
    from pe_research.evaluation import evaluate
    from pe_research.machines import heartbeat, multiprocess
    from pe_research.proof import program_store
    from pe_research.runs import lineage
    from pe_research.settings import configs
    from pe_research.training import train_state

    values = {name: getattr(given, name) for name in (*FIELDS, 'measurements')}
    changed = {name: value for name, value in values.items() if value is not None}
    if 'lengths' in changed:
      changed.setdefault('reach', None)
    config = configs.anywhere(saved, axes) | {'eval': saved['eval'] | changed}
    if given.position:
      config |= {'position': lineage.parse_position(given.position, saved)}
      config['run'] = config['run'] | {'label': given.label}
    config, home = configs.resolve(config), given.into or given.workdir
    program_store.use()
    cluster.join(given.distributed, given.wait)
    with (
      multiprocess.hold(home, config) as check_owner,
      heartbeat.Heartbeat(home, config['run']['patience'], check_owner) as heart,
    ):
      params, step = train_state.load_params(config, given.workdir, given.step)
      if given.position:
        weights = lineage.source(given.workdir, step, digest.of_arrays(params))
        multiprocess.on_process_0(lambda: lineage.derive(config, home, given.workdir, weights))
      evaluate.evaluate(config, home, params, step, heart.beat)
      if not multiprocess.is_process_0():
        return
      if given.position:
        files.write_json(home / 'done.json', {'steps': step})
      if given.done:
        written = {'measurements': config['eval']['measurements'], 'steps': step}
        files.write_json(given.done, written)
    evaluate.show(home, given.json)
    where = sys.stderr if given.json else sys.stdout
    print(f'wrote {home / "results.jsonl"}', file=where)


if __name__ == '__main__':
  main()
