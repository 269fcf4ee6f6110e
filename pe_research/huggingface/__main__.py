"""Exports a trained run to a folder that Hugging Face transformers loads.

  python -m pe_research.huggingface --workdir=results/demo/runs/rope_seed0 --into=exported
  python -m pe_research.huggingface --workdir=DIR --position=yarn:factor=4 --into=exported_yarn

The second exports the run's weights under another scheme that can use them, as they are.
"""

import pathlib
import sys

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import paths

TYPES = ('float32', 'bfloat16', 'float16')


def main(argv: list[str]) -> None:
  """Checks that the model can be exported, then writes it."""
  parser = cli.parser('pe_research.huggingface', __doc__)
  add = parser.add_argument
  add('--workdir', type=paths.place, required=True, metavar='DIR', help='of a trained run')
  add('--step', type=int, help='a checkpoint other than the newest')
  add('--into', type=pathlib.Path, required=True, metavar='DIR', help='made anew')
  add(
    '--position', default='', metavar='NAME[:argument=value,...]',
    help='another scheme that can use the weights, as they are',
  )  # fmt: skip
  add('--architecture', help='a class; default: the first that can hold the model')
  add('--dtype', choices=TYPES, help='of the weights; default: as they are')
  add('--shard-bytes', type=int, default=5 * 10**9, help='the most that a file holds')
  add('--overwrite', action='store_true', help='replace a checkpoint that is there')
  given = parser.parse_args(argv)
  with exits.errors():
    from pe_research.huggingface import exporting  # slow to import, as are the next
    from pe_research.runs import lineage
    from pe_research.settings import configs

    checks.at_least('--shard-bytes', given.shard_bytes, 1)
    saved = run_folder.load_config(given.workdir)
    config = configs.anywhere(saved)
    if given.position:
      config |= {'position': lineage.parse_position(given.position, saved)}
    config = configs.resolve(config)
    exporting.config_json(config, given.architecture)
    exporting.check_target(config, given.into, given.overwrite)
    from pe_research.training import train_state  # slow to import, and all this may have failed

    params, step = train_state.load_params(config, given.workdir, given.step)
    family = exporting.export(
      config,
      params,
      given.into,
      architecture=given.architecture,
      dtype=given.dtype,
      shard_bytes=given.shard_bytes,
      overwrite=given.overwrite,
    )
  print(f'wrote step {step} of {given.workdir} to {given.into} as {family.architecture}')
  if config['data']['tokenizer'] == 'sentencepiece':
    print('its sentencepiece tokenizer has no tokenizer.json; encode texts here')


if __name__ == '__main__':
  main(sys.argv[1:])
