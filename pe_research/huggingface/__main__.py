"""Exports a trained run to a folder that Hugging Face transformers loads.

  python -m pe_research.huggingface --workdir=results/demo/runs/rope_seed0 --into=exported
  python -m pe_research.huggingface --workdir=DIR --position=yarn:factor=4 --into=exported_yarn

The second exports the run's weights, unchanged, under another scheme that can use them.
"""

import pathlib
import sys

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import paths

TYPES = ('float32', 'bfloat16', 'float16')
SHARD_BYTES = 5 * 10**9


def main(argv: list[str]) -> None:
  """Checks that the model can be exported, then writes it."""
  parser = cli.parser('pe_research.huggingface', __doc__)
  add = parser.add_argument
  add('--workdir', type=paths.place, required=True, metavar='DIR', help='folder of a trained run')
  add('--step', type=int, help='checkpoint to export, in training steps (default: the newest)')
  add('--into', type=pathlib.Path, required=True, metavar='DIR', help='folder to write')
  add(
    '--position', default='', metavar='NAME[:argument=value,...]',
    help="another scheme that can use the weights (default: the run's)",
  )  # fmt: skip
  add(
    '--architecture', metavar='CLASS',
    help='class in transformers (default: the first that supports the model)',
  )  # fmt: skip
  add('--dtype', choices=TYPES, help='of the weights in the files (default: unchanged)')
  add(
    '--shard-bytes', type=int, default=SHARD_BYTES, metavar='BYTES',
    help='maximum size of a weight file (default: %(default)s)',
  )  # fmt: skip
  add('--overwrite', action='store_true', help='replace an existing checkpoint at --into')
  flags = parser.parse_args(argv)
  with exits.errors():
    from pe_research.huggingface import exporting  # slow to import, as are the next
    from pe_research.runs import lineage
    from pe_research.settings import configs

    checks.at_least('--shard-bytes', flags.shard_bytes, 1)
    saved = run_folder.load_config(flags.workdir)
    config = configs.anywhere(saved)
    if flags.position:
      config |= {'position': lineage.parse_position(flags.position, saved)}
    config = configs.resolve(config)
    plan = exporting.plan(config, flags.architecture)
    exporting.check_target(config, flags.into, flags.overwrite)
    from pe_research.training import train_state  # slow to import; the checks above need it not

    params, step = train_state.load_params(config, flags.workdir, flags.step)
    exporting.export(
      plan,
      params,
      flags.into,
      dtype=flags.dtype,
      shard_bytes=flags.shard_bytes,
      overwrite=flags.overwrite,
    )
  print(f'wrote step {step} of {flags.workdir} to {flags.into} as {plan.family.architecture}')
  if config['data']['tokenizer'] == 'sentencepiece':
    print('no tokenizer.json was written: the sentencepiece tokenizer cannot be converted')


if __name__ == '__main__':
  main(sys.argv[1:])
