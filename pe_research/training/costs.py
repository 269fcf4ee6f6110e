"""What a training step costs by XLA's own count, and what the devices could do at best."""

import jax

# Dense bfloat16 FLOP/s of a chip by JAX's name for it, from the vendors' data sheets.
PEAKS = {
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5': 459e12,
  'TPU v6 lite': 918e12,
  'NVIDIA A100-SXM4-40GB': 312e12,
  'NVIDIA A100-SXM4-80GB': 312e12,
  'NVIDIA H100 80GB HBM3': 989e12,
  'NVIDIA H200': 989e12,
}


def of_step(step: jax.stages.Compiled) -> dict[str, float | int | None]:
  """FLOPs and bytes of one step on one device, as the compiler analyses its program.

  The program's FLOPs are those that run: masked halves of dense attention, recomputation and
  elementwise work are in them. None where a backend has no such figure.
  """
  cost, memory = step.cost_analysis() or {}, step.memory_analysis()
  held = lambda name: getattr(memory, f'{name}_size_in_bytes', None)
  return {
    'flops': cost.get('flops'),
    'bytes_accessed': cost.get('bytes accessed'),
    'argument_bytes': held('argument'),
    'output_bytes': held('output'),
    'donated_bytes': held('alias'),
    'temporary_bytes': held('temp'),
  }


def least_seconds_per_token(flops_per_token: float) -> float | None:
  """Seconds that a token takes where all devices run at their peak; None where it is not known.

  Times tokens a second this is the model FLOP utilization, MFU (arXiv:2204.02311, app. B), always
  against the bfloat16 peak: float32 products reach a fraction of it by design.
  """
  peak = PEAKS.get(jax.devices()[0].device_kind)
  return None if peak is None else flops_per_token / (peak * jax.device_count())
