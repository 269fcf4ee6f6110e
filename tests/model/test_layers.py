"""Parts of a block against their definitions."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from pe_research.model import layers

sizes = st.integers(1, 5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@hypothesis.given(batch=st.lists(sizes, max_size=3), inputs=sizes, outputs=sizes)
def test_product_and_its_gradients_are_those_of_matmul(dtype, batch, inputs, outputs):
  """For any number of batch axes, none included; in NumPy's float64, to one rounding of dtype."""
  draw = np.random.default_rng(0)
  shapes = (*batch, inputs), (inputs, outputs), (*batch, outputs)
  x, kernel, grad = (jnp.asarray(draw.normal(size=shape), dtype) for shape in shapes)
  out, pull = jax.vjp(layers.product, x, kernel)
  x_grad, kernel_grad = pull(grad)
  assert (out.dtype, x_grad.dtype, kernel_grad.dtype) == (x.dtype,) * 3
  wide = lambda a: np.asarray(a, np.float64)
  tolerance = 4 * float(jnp.finfo(dtype).eps)
  near = lambda a, b: np.testing.assert_allclose(wide(a), b, rtol=tolerance, atol=tolerance * 5)
  near(out, wide(x) @ wide(kernel))
  near(x_grad, wide(grad) @ wide(kernel).T)
  near(
    kernel_grad,
    np.einsum('nd,ne->de', wide(x).reshape(-1, inputs), wide(grad).reshape(-1, outputs)),
  )
