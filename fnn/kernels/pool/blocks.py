"""A linear map of arrays over examples, for some examples at a time."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from fnn.compiler import on_all_cores
from fnn.windows import is_known

BLOCK = 2 << 20  # bytes of x
WHOLE = 4 << 20  # bytes; more are cut into blocks

Linear = Callable[[jax.Array, jax.Array], jax.Array]


def in_blocks(linear: Linear, x: jax.Array, t: jax.Array) -> jax.Array:
    """``linear(x, t)``, linear in t, in blocks if x is large: what lies between stays in the cache.

    Nothing is stored for the transpose, which computes what it needs of x again.
    """
    each = _each(x)
    if each == x.shape[0]:
        return linear(x, t)
    xs, ts = (a.reshape(-1, each, *a.shape[1:]) for a in (x, t))

    @functools.partial(jax.checkpoint, prevent_cse=False)  # the transpose is a loop of its own
    def block(turn: jax.Array, t: jax.Array) -> jax.Array:
        return linear(lax.dynamic_index_in_dim(xs, on_all_cores(turn), keepdims=False), t)

    turns = jnp.arange(len(xs))
    _, ys = lax.scan(lambda nothing, read: (nothing, block(*read)), None, (turns, ts))
    whole: jax.Array = ys.reshape(-1, *ys.shape[2:])
    return whole


def _each(x: jax.Array) -> int:
    """How many examples a block has: all, unless they are many of a known number on one CPU.

    Blocks have one size, as `lax.scan` needs: where none divides the examples, all are one.
    """
    n, *rest = x.shape
    alone = jax.typeof(x).sharding.mesh.empty
    if jax.default_backend() != "cpu" or not is_known(x) or not alone or x.nbytes <= WHOLE:
        return n
    most = BLOCK // (x.dtype.itemsize * math.prod(rest))
    fitting = range(min(n, most), max(1, most // 2), -1)  # blocks of one example gain nothing
    return next((each for each in fitting if n % each == 0), n)
