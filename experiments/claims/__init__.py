"""The claims by id; each is a file, which is imported here and listed in FILES."""

from collections.abc import Sequence

from experiments.claims import (
  abf_beats_pi,
  alibi_extrapolates,
  alibi_in_distribution,
  base_choice,
  drope_extends,
  dynamic_keeps_short,
  early_token_curse,
  fine_tuned_order,
  mla_quality,
  nope_competes,
  nope_fails_beyond,
  nope_generalises,
  nope_knows_positions,
  order_of_reach,
  pi_adapts,
  pose_equals_full,
  progressive_extension,
  raw_rope_explodes,
  rope_beats_absolute,
  searched_factors,
  short_context_cost,
  start_tokens,
  train_short,
  yarn_crops,
  yarn_temperature,
  yarn_transfers,
  zero_shot_order,
)
from experiments.studies.terms import Claim
from pe_research.common import checks

FILES = (
  alibi_extrapolates,
  early_token_curse,
  train_short,
  order_of_reach,
  alibi_in_distribution,
  nope_competes,
  nope_knows_positions,
  nope_generalises,
  nope_fails_beyond,
  raw_rope_explodes,
  zero_shot_order,
  dynamic_keeps_short,
  yarn_temperature,
  yarn_crops,
  base_choice,
  pi_adapts,
  short_context_cost,
  fine_tuned_order,
  yarn_transfers,
  searched_factors,
  start_tokens,
  progressive_extension,
  abf_beats_pi,
  pose_equals_full,
  drope_extends,
  mla_quality,
  rope_beats_absolute,
)
CLAIMS: dict[str, Claim] = {file.CLAIM.id: file.CLAIM for file in FILES}


def find(names: Sequence[str]) -> list[Claim]:
  """Claims by id or name; all of them if no name is given.

  Raises:
    ValueError: a name is unknown; names the nearest.
  """
  if not names:
    return list(CLAIMS.values())
  by_name = CLAIMS | {claim.name: claim for claim in CLAIMS.values()}
  for name in names:
    if name not in by_name:
      hint = checks.nearest(name, by_name)
      raise ValueError(f'there is no claim {name!r}.{hint} `python -m experiments list` has all.')
  return list({by_name[name].id: by_name[name] for name in names}.values())
