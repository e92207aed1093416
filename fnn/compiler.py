"""What is written only to keep the compiler from an optimization that costs more than it saves.

XLA on a CPU merges, moves and repeats operations where it expects to gain. Here are the places
where it loses, each by name, with the reason and the test that fails without it. None changes a
value.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.scheduling_groups import xla_metadata_call
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

from fnn import lazily


def kept_apart(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Keep what is done before from merging with what is done after.

    A copy that several later operations read would become part of each of them, and be computed as
    often. Test, from JAX 0.11 on: `tests/kernels/pool/test_compiled.py`. A transpose would become
    part of a product, which then walks through memory in long steps. Test:
    `tests/kernels/recurrent/test_compiled.py`.
    """
    return tuple(lax.optimization_barrier(arrays))


def only_after(x: jax.Array, constant: np.ndarray) -> jax.Array:
    """Return the constant, as something that x must be known for.

    XLA begins a program with all that depends on parameters alone, as the transformed windows of
    every layer do, and keeps it in memory until it is used. Test: that a window is transformed when
    its turn comes, in `tests/kernels/conv/test_compiled.py`.
    """
    return jnp.where(_never(x), 0, jnp.asarray(constant, x.dtype))


def kept_until(y: jax.Array, *arrays: jax.Array) -> jax.Array:
    """Return y, as something that the arrays must be known for, so that they are kept until then.

    XLA writes an array where another was that nothing reads any more. Operations that could run at
    the same time then wait for each other. Test: `tests/kernels/conv/test_compiled.py`.
    """
    for x in arrays:
        y = jnp.where(_never(x), 0, y)
    return y


def _never(x: jax.Array) -> jax.Array:
    """False, but not to the compiler, which must read an element of x to know."""
    first = x[(0,) * x.ndim]
    return (first != first) & (first == first)


def as_bits(x: jax.Array) -> jax.Array:
    """Return bfloat16 as integers, to be moved; all else as it is.

    XLA on a CPU computes with bfloat16 in float32, and counts a slice as computing: to write a part
    of an array in a loop, it converts the whole and back, and to read one it converts the whole
    before the loop. Integers have no gradient, so this is for kernels whose derivatives are written
    out. Test: `tests/kernels/conv/test_compiled.py`.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_bits(x: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Undo `as_bits`, for an array that was of this dtype."""
    return lax.bitcast_convert_type(x, dtype) if x.dtype != dtype else x


def root_computed_once(square: jax.Array) -> jax.Array:
    """Return the exact root of a square of small whole numbers, which is what is wanted.

    XLA repeats cheap operations for every place that reads them, and with them the search that they
    end; a square root it does not. Test: `tests/kernels/pool/test_compiled.py`.
    """
    return jnp.sqrt(square)


def place_read_at_run_time(start: int, zero: jax.Array) -> jax.Array:
    """Return ``start``, as something that depends on ``zero``, an array that is always 0.

    A fixed place of a slice is written into the kernel, and a program of 2,000 slices compiles
    2,000 kernels instead of one. Test: `tests/optimizers/test_flat.py`.
    """
    pair = np.array([start, start + 1], np.uint32)
    place: Any = lax.dynamic_slice(pair, (zero,), (1,))
    return lax.reshape(place, ())


def on_all_cores(turn: jax.Array) -> jax.Array:
    """Return the number of a loop's turn, without a sign, so that the loop runs on all cores.

    From JAX 0.12 on, XLA compiles a loop into one kernel, which runs on one core, however much
    there is to do. It does not where something in the loop can be no part of a kernel, such as a
    sort. Test: `tests/kernels/conv/test_compiled.py`.
    """
    turn = jnp.asarray(turn)  # of a loop without jit it is a number
    if jax.__version_info__ >= (0, 12):
        turn = lax.sort(turn * np.array([1, -1], turn.dtype))[1]
    return lax.convert_element_type(turn, np.uint32)


def by_itself(fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return fn as something that XLA merges with nothing before or after it.

    A copy with a padding before it or a change of shape after it, merged into one loop, computes
    for every element where it comes from. Test: `tests/test_compiler.py`.

    It is not for what users differentiate: JAX cannot transpose its second derivative under
    `jax.checkpoint`. `read_alone` serves there.
    """

    wrapped: Callable[..., jax.Array] = xla_metadata_call(fn, inlineable="false")
    return wrapped


def read_alone(x: jax.Array) -> jax.Array:
    """Keep reading x from becoming a part of what is computed of it, on a CPU.

    Gates merged with reading one step of an array are computed one number at a time. Test:
    `tests/kernels/recurrent/test_compiled.py`. All derivatives are those of x.
    """
    alone: jax.Array = _alone_p.bind(x)
    return alone


_alone_p = lazily.Primitive("fnn_alone")
_alone_p.def_impl(lambda x: x)
_alone_p.def_abstract_eval(lambda x: x)
ad.deflinear2(_alone_p, lambda cotangent, x: [cotangent])
batching.defvectorized(_alone_p)
mlir.register_lowering(_alone_p, lambda context, x: [x])
_lowering = mlir.lower_fun(by_itself(lambda x: x), multiple_results=False)
mlir.register_lowering(_alone_p, _lowering, platform="cpu")
