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

from fnn.kernels.conv.form import divisor


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


def cut(n: int, most: int, enough: int | None = None) -> Examples:
    """Cut n examples into blocks of at most so many, or of one.

    Blocks that divide n are preferred, if they are of ``enough``, half the most if not given.

    >>> from fnn.kernels.conv.examples import cut
    >>> cut(12, 8).each, cut(13, 8).each, cut(13, 8, 1).each, cut(13, 0).each
    (6, 7, 1, 1)
    """
    most = max(1, min(n, most))
    even = divisor(n, most)
    fits = 2 * even >= most or (enough is not None and even >= enough)
    return Examples(n, even if fits else -(-n // -(-n // most)))
