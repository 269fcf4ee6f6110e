"""Scheme cards as the flags of the command describe them."""

from pe_research.settings import configs
from pe_research.show import card_flags, card_text


def card(name, length, longest=None, *, head_dim=64, heads=4, preset=None, **position):
  """The card of a scheme with these arguments."""
  flags = {'position': name, 'length': length, 'heads': heads, 'head_dim': head_dim}
  flags |= {'preset': preset or 'published'} | position
  config, _ = card_flags.read([f'--{k}={v}' for k, v in flags.items()])
  return card_text.card(configs.scheme(config), length, longest)
