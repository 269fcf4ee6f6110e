"""A golden case: what other software computed, and how ours is compared with it."""

import dataclasses
from typing import Any

import numpy as np
import pytest


@dataclasses.dataclass
class Case:
  """What some software computed: `outputs` from `inputs`, as `params` and `notes` say.

  `compared` holds the names of the outputs that a check has compared so far.
  """

  params: dict[str, Any]
  notes: str
  inputs: dict[str, np.ndarray]
  outputs: dict[str, np.ndarray]
  rtol: float
  atol: float
  compared: set[str] = dataclasses.field(default_factory=set)

  def compare(self, name: str, got, where: np.ndarray | bool = True) -> None:
    """Asserts |got - want| <= atol + rtol |want| in every element that `where` selects."""
    got, want = np.asarray(got, np.float64), np.asarray(self.outputs[name], np.float64)
    assert got.shape == want.shape, f'{name}: shape {got.shape}, want {want.shape}'
    where = np.broadcast_to(where, want.shape)
    assert where.any(), f'{name}: no element is left to compare'
    error = np.abs(got - want)
    bad = where & ~(error <= self.atol + self.rtol * np.abs(want))  # a NaN is bad
    if bad.any():
      at = tuple(int(i) for i in np.argwhere(bad)[0])
      pytest.fail(
        f'{name}: {bad.sum()} of {where.sum()} elements are off, the largest error is '
        f'{error[where].max():.3g}; at {at} got {got[at]:.9g}, want {want[at]:.9g} '
        f'(rtol {self.rtol:g}, atol {self.atol:g})'
      )
    self.compared.add(name)
