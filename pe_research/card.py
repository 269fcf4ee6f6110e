"""What a positional scheme means at given lengths; see show.card_help."""

import pathlib
import sys
from collections.abc import Sequence

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.show import card_help
from pe_research.storage import files

LONGEST = 2**31 - 1  # positions are int32
FORMATS = ('.svg', '.png')


def main(argv: Sequence[str]) -> None:
  """Prints the card, and draws it if asked."""
  if {'-h', '--help'} & {*argv} and not any(flag.startswith('--position') for flag in argv):
    card_help.parser().parse_args(['--help'])  # without imports for the scheme's own flags
  with exits.errors():
    import jax  # slow to import, as are the next

    from pe_research.settings import configs
    from pe_research.show import card_flags, card_text

    jax.config.update('jax_platforms', 'cpu')  # a few numbers: no accelerator is needed
    config, flags = card_flags.read(argv)
    target = pathlib.Path(flags.output) if flags.output else None
    if target and target.suffix not in FORMATS:
      raise ValueError(f'--output={target} is neither {" nor ".join(FORMATS)}.')
    if target:
      files.check_writable(target)
    if flags.longest is not None:
      checks.at_least('--longest', flags.longest, config['length'], 'tokens')
      if flags.longest > LONGEST:
        raise ValueError(f'--longest is {flags.longest} tokens; the maximum is {LONGEST}.')
    config['position'] = configs.resolve_position(config)
    card = card_text.card(configs.scheme(config), config['length'], flags.longest)
    if target and not card.part:
      raise ValueError(f'{card.label!r} has nothing to draw; leave --output out.')
    model, arguments = config['model'], card_text.described(config['position'])
    print(f'{card.label}, {card.paper}')
    print(f'width {model["width"]}, {model["heads"]} heads of {model["head_dim"]}')
    print('\n'.join([*filter(None, [arguments]), '', card_text.text(card)]))
    if target:
      from pe_research.show import card_figure  # matplotlib takes longer than all the rest

      files.write_bytes(target, card_figure.file_bytes(card, target.suffix))
      print(f'\nwrote {target}')


if __name__ == '__main__':
  main(sys.argv[1:])
