"""Which of our parameters each tensor of a checkpoint holds, and conversion between them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A tensor of a checkpoint, and the parameters that it holds.

  The last axis of our parameters is that of outputs. A fused tensor has `groups` groups of outputs,
  each with `widths[i]` outputs of parameter i, as query, key and value fused by head.

  Attributes:
    name: in the checkpoint.
    params: paths of our parameters.
    widths: outputs of each parameter in a group; empty if there is one parameter.
    groups: number of groups.
    transposed: whether the checkpoint has [outputs, inputs].
  """

  name: str
  params: tuple[str, ...]
  widths: tuple[int, ...] = ()
  groups: int = 1
  transposed: bool = False

  def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
    """Our parameters from the tensor."""
    array = array.T if self.transposed else array
    if not self.widths:
      return {self.params[0]: array}
    inputs = array.shape[:-1]
    grouped = array.reshape(*inputs, self.groups, sum(self.widths))
    parts = np.split(grouped, np.cumsum(self.widths)[:-1], axis=-1)
    return {p: x.reshape(*inputs, -1) for p, x in zip(self.params, parts, strict=True)}

  def join(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tensor from our parameters."""
    arrays = [params[name] for name in self.params]
    array = arrays[0]
    if self.widths:
      inputs = array.shape[:-1]
      parts = [x.reshape(*inputs, self.groups, w) for x, w in zip(arrays, self.widths, strict=True)]
      array = np.concatenate(parts, axis=-1).reshape(*inputs, -1)
    return np.ascontiguousarray(array.T if self.transposed else array)

  def shape(self, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """Shape of the tensor, from the shapes of our parameters."""
    *inputs, _ = shapes[self.params[0]]
    shape = (*inputs, sum(shapes[name][-1] for name in self.params))
    return shape[::-1] if self.transposed else shape


def linear(
  name: str,
  *params: str,
  widths: tuple[int, ...] = (),
  groups: int = 1,
  bias: bool = False,
  transposed: bool = True,
) -> list[Tensor]:
  """Weight and bias of a linear layer; `params` are our paths without /kernel or /bias."""
  kernels = tuple(f'{path}/kernel' for path in params)
  biases = tuple(f'{path}/bias' for path in params)
  weight = Tensor(f'{name}.weight', kernels, widths, groups, transposed)
  return [weight, *([Tensor(f'{name}.bias', biases, widths, groups)] if bias else [])]


def fused(name: str, i: int, **options) -> list[Tensor]:
  """Fused query, key and value of block i; options as in `linear`."""
  return linear(name, *(f'blocks/{i}/attention/{x}' for x in ('query', 'key', 'value')), **options)


def norm(name: str, path: str, *, bias: bool = False) -> list[Tensor]:
  """Scale and bias of a norm."""
  weight = Tensor(f'{name}.weight', (f'{path}/scale',))
  return [weight, *([Tensor(f'{name}.bias', (f'{path}/bias',))] if bias else [])]


def table(name: str, path: str) -> Tensor:
  """A table [rows, D]."""
  return Tensor(f'{name}.weight', (path,))
