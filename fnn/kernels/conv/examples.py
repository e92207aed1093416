"""Blocks of examples: how many a kernel takes at a time, and which those of a block are.

All blocks have one size. Where it does not divide the number of examples, the last block begins
early, with some that the block before it has had: what is written in its place is written twice,
what is summed must leave them out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.kernels.conv.form import Form, devices, divisor
from fnn.windows import is_known

BLOCK = 2 << 20  # bytes


class Examples(NamedTuple):
    """How n examples are cut.

    Attributes:
        n: examples.
        each: in a block.
    """

    n: int
    each: int

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.n // self.each)

    def of(self, a: jax.Array, block: jax.Array) -> jax.Array:
        """The examples of a block."""
        if self.blocks == 1:
            return a
        # A slice that would end beyond the last example begins early.
        part: jax.Array = lax.dynamic_slice_in_dim(a, block * np.uint32(self.each), self.each, 0)
        return part

    def new(self, a: jax.Array, block: jax.Array) -> jax.Array:
        """The same, with zeros for those that the block before has had."""
        some, again = self.of(a, block), self.blocks * self.each - self.n
        if not again:
            return some
        last = lax.convert_element_type(block == np.uint32(self.blocks - 1), jnp.uint32)
        places = lax.broadcasted_iota(jnp.uint32, (self.each, *(1,) * (a.ndim - 1)), 0)
        return jnp.where(places >= last * np.uint32(again), some, jnp.zeros((), a.dtype))


def cut(n: int, most: int, enough: int, at_once: int = 1) -> Examples:
    """Cut n examples into blocks of at most so many, or of one.

    Their number is a multiple of ``at_once``, where it can be. Blocks that divide n are preferred,
    if they hold half of ``most``, or ``enough``.

    >>> from fnn.kernels.conv.examples import cut
    >>> cut(12, 8, 8).each, cut(13, 8, 8).each, cut(13, 8, 1).each, cut(13, 0, 1).each
    (6, 7, 1, 1)
    >>> cut(12, 5, 5).blocks, cut(12, 5, 5, 2).blocks
    (3, 4)
    """
    most = max(1, min(most, -(-n // at_once)))
    even = divisor(n // at_once if n % at_once == 0 else n, most)
    count = at_once * -(-n // (at_once * most))
    return Examples(n, even if even >= min(enough, most / 2) else -(-n // count))


def in_cache(x: jax.Array, form: Form, one: int, whole: int) -> Examples:
    """How the examples of x are cut, each of ``one`` bytes, so that a block stays in the cache.

    So it is on a CPU, if all are on one device and their number is known, and are more than
    ``whole`` bytes.
    """
    n = x.shape[0]
    if form.platform != "cpu" or devices(x) > 1 or not is_known(x) or n * one <= whole:
        return Examples(n, n)
    return cut(n, BLOCK // one, BLOCK // one)
