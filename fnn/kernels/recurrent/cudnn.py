"""The LSTM of NVIDIA's library cuDNN, by `jax.experimental.rnn`: on its GPUs only.

It has a gradient, but no forward mode and no second derivative, and knows lengths but no reverse:
a sequence is turned before and after, within its length. Its sequences have a step at least, so the
state of an empty one is put back.
"""

import jax
import jax.numpy as jnp

from fnn.kernels.recurrent.form import Cell, Kernel, Left, State, Weights


def run(
    cell: Cell, x: jax.Array, weights: Weights, state: State, left: Left, reverse: bool
) -> tuple[jax.Array, State]:
    """Run the library's LSTM, which is the only cell it is asked for."""
    from jax.experimental import rnn  # for users of this kernel alone

    time, n, features = x.shape
    lengths = jnp.full(n, time) if left is None else left[:, 0] + (time - 1 if reverse else 0)
    lengths = jnp.clip(lengths.astype(jnp.int32), 0, time)
    steps = jnp.arange(time, dtype=jnp.int32)[:, None]
    turned = jnp.where(steps < lengths[None], lengths[None] - 1 - steps, steps)[..., None]
    if reverse:
        x = jnp.take_along_axis(x, turned, 0)
    sizes = features, weights.wh.shape[0], 1
    h, *last = rnn.lstm(
        jnp.swapaxes(x, 0, 1),
        *(s[None] for s in state),
        packed(weights),
        jnp.maximum(lengths, 1),
        *sizes,
        dropout=0.0,
        bidirectional=False,
    )
    h = jnp.swapaxes(h, 0, 1)
    if reverse:
        h = jnp.take_along_axis(h, turned, 0)
    some = (lengths > 0)[:, None]
    return h, tuple(jnp.where(some, a[0], s) for a, s in zip(last, state, strict=True))


def packed(weights: Weights) -> jax.Array:
    """Return the weights as cuDNN reads them: input, recurrent, and a bias of each."""
    b = jnp.zeros_like(weights.wx[0]) if weights.b is None else weights.b
    parts = weights.wx.T, weights.wh.T, b, jnp.zeros_like(b)
    return jnp.concatenate([p.ravel() for p in parts])


CUDNN = Kernel("cudnn", run)
