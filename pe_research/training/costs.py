"""FLOPs and bytes of a training step by XLA's count, and the peak of the devices."""

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
  """FLOPs and bytes of one step on one device, from the compiler's analysis of its program.

  These are the FLOPs that run, with the masked half of dense attention, recomputation and
  elementwise work. None where a backend does not report a figure.
  """
  cost, memory = step.cost_analysis() or {}, step.memory_analysis()
  kinds = {'argument': 'argument', 'output': 'output', 'donated': 'alias', 'temporary': 'temp'}
  sizes = {
    f'{name}_bytes': getattr(memory, f'{kind}_size_in_bytes', None) for name, kind in kinds.items()
  }
  return {'flops': cost.get('flops'), 'bytes_accessed': cost.get('bytes accessed')} | sizes


def least_seconds_per_token(flops_per_token: float) -> float | None:
  """Seconds a token would take with all devices at their peak; None for unknown devices.

  Times tokens a second this is the model FLOP utilization, MFU (arXiv:2204.02311, app. B), always
  against the bfloat16 peak, of which float32 products reach a fraction by design.
  """
  peak = PEAKS.get(jax.devices()[0].device_kind)
  return None if peak is None else flops_per_token / (peak * jax.device_count())
