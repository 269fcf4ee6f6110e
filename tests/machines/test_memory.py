"""What training needs of memory at least, and what the machine has."""

import jax
import published
import pytest

from pe_research.common import sharding
from pe_research.machines import memory


def test_training_that_cannot_fit_is_refused_with_the_figure(monkeypatch):
  config = published.config('llama') | {'optimizer': {'batch': 8, 'accumulate': 2}, 'length': 16}
  model = config['model'] | {'width': 32, 'heads': 4, 'head_dim': 8, 'mlp_width': 48, 'layers': 2}
  config |= {'model': model, 'data': config['data'] | {'vocab': 256}}
  mesh = sharding.one_device()
  block = 2 * 32 * 32 + 2 * 32 * 48
  least = 16 * (256 * 32 + 2 * block) + 4 * 4 * 16 * 32 * 2
  monkeypatch.setattr(memory, 'available', lambda: least * jax.local_device_count())
  memory.check_training(config, mesh)
  monkeypatch.setattr(memory, 'available', lambda: least * jax.local_device_count() - 1)
  with pytest.raises(ValueError, match=r'training needs .* GiB at least.* are\s+free'):
    memory.check_training(config, mesh)


def test_free_memory_is_that_of_the_machine():
  free = memory.available()
  assert 10**8 < free < 10**13
