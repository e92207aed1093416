"""Four mistakes that a type checker must find, one on each line that ends in MISTAKE."""

import jax
from jax import Array

import fnn


def loss(params: Array, batch: Array) -> Array:
    return ((params - batch) ** 2).mean()


x = jax.numpy.ones((1, 8, 8, 1))
w = jax.numpy.ones((3, 3, 1, 4))
fnn.max_pool(x, 2, windw=2)  # MISTAKE: a misspelt option
fnn.dropout(x, jax.random.key(0), 0.5)  # MISTAKE: the arguments in another order
fnn.conv(x, w, stride="2")  # MISTAKE: a string for a stride
fnn.make_step(loss, lambda params: params)  # MISTAKE: an optimizer without an update
