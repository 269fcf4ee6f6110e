"""AdamW with clipping, and learning-rate schedules."""

from collections.abc import Mapping
from typing import Any

import optax


def schedule(optimizer: Mapping[str, Any], steps: int) -> optax.Schedule:
  """Learning rate by step: linear warmup, then as `optimizer.schedule` says.

  The first step has rate 0 where there is a warmup. 'cosine' falls towards the final value, which
  it has after the last step: at step `steps`, which is not taken. 'wsd' is constant, then falls
  linearly towards it in the same way over the last share `decay` of the steps (arXiv:2404.06395,
  sec. 4), or over all steps after the warmup if these are fewer. 'constant' stays at the peak.
  """
  peak, warmup = optimizer['learning_rate'], optimizer['warmup']
  last = peak * optimizer['final']
  if optimizer['schedule'] == 'cosine':
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, last)
  share = optimizer['decay'] if optimizer['schedule'] == 'wsd' else 0
  decay = min(round(share * steps), steps - warmup)
  parts = [optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)]
  boundaries = [warmup]
  if decay:
    parts.append(optax.linear_schedule(peak, last, decay))
    boundaries.append(steps - decay)
  return optax.join_schedules(parts, boundaries)


def build(optimizer: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
  """AdamW; only matrices decay: not tables, norms or parameters of a scheme."""
  adam = optax.adamw(
    schedule(optimizer, steps),
    b1=optimizer['b1'],
    b2=optimizer['b2'],
    eps=optimizer['eps'],
    weight_decay=optimizer['weight_decay'],
    mask=lambda params: {path: path.endswith('kernel') for path in params},
  )
  return (
    optax.chain(optax.clip_by_global_norm(optimizer['clip']), adam) if optimizer['clip'] else adam
  )
