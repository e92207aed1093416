"""The peers' LSTM and GRU: Flax NNX `RNN`, Equinox under `lax.scan`, Haiku, PyTorch.

Each JAX peer takes its weights in its own layout, and gives their gradients in it. Haiku's GRU is
another net, its reset before the product: it takes no part.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks.peers.pytorch import DEVICE, wait
from benchmarks.timing import Contestant, Program

KEY = jax.random.key(0)


class Peer(NamedTuple):
    """A layer of a library.

    Attributes:
        name: as the tables show it.
        run: ``(x, *own weights) -> outputs``.
        weights: fnn's wx, wh, b as its own.
        back: gradients of its own as those of wx, wh, b.
    """

    name: str
    run: Callable[..., jax.Array]
    weights: Callable[..., tuple[Any, ...]]
    back: Callable[..., tuple[np.ndarray, ...]]


def same(*arrays: Any) -> tuple[Any, ...]:
    return arrays


def turned(wx: Any, wh: Any, b: Any) -> tuple[Any, ...]:
    """Rows for columns, there and back."""
    return wx.T, wh.T, b


def flax(kind: str) -> Peer:
    def run(x: jax.Array, wx: jax.Array, wh: jax.Array, b: jax.Array) -> jax.Array:
        cell = nnx.OptimizedLSTMCell if kind == "lstm" else nnx.GRUCell
        layer = nnx.RNN(cell(wx.shape[0], wh.shape[0], rngs=nnx.Rngs(0)))
        layer.cell.dense_i.kernel[...], layer.cell.dense_h.kernel[...] = wx, wh
        biased = layer.cell.dense_h if kind == "lstm" else layer.cell.dense_i
        biased.bias[...] = b
        return layer(x)

    return Peer("Flax NNX", run, same, same)


def equinox(kind: str) -> Peer:
    def run(x: jax.Array, wx: jax.Array, wh: jax.Array, b: jax.Array) -> jax.Array:
        kinds = {"lstm": eqx.nn.LSTMCell, "gru": eqx.nn.GRUCell}
        cell = kinds[kind](wx.shape[1], wh.shape[1], key=KEY)
        cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias), cell, (wx, wh, b))
        if kind == "gru":
            cell = eqx.tree_at(lambda c: c.bias_n, cell, jnp.zeros(wh.shape[1]))
        zero = jnp.zeros(wh.shape[1])

        def step(state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            state = cell(x, state)
            return state, state[0] if kind == "lstm" else state

        first = (zero, zero) if kind == "lstm" else zero
        return jax.vmap(lambda x: jax.lax.scan(step, first, x)[1])(x)

    return Peer("Equinox", run, turned, turned)


def haiku() -> Peer:
    """One matrix for both products, blocks i, g, f, o, and 1 added to the forget gate."""

    def order(w: Any) -> Any:
        i, f, g, o = np.split(np.asarray(w), 4, axis=-1)
        return np.concatenate([i, g, f, o], -1)  # its own inverse

    def own(wx: Any, wh: Any, b: Any) -> tuple[Any, ...]:
        b = np.asarray(b) - np.repeat(np.float32([0, 1, 0, 0]), wh.shape[0])
        return jnp.asarray(order(np.concatenate([wx, wh]))), jnp.asarray(order(b))

    def back(w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        features = w.shape[0] - w.shape[1] // 4
        return order(w)[:features], order(w)[features:], order(b)

    def unrolled(x: jax.Array, units: int) -> jax.Array:
        core = hk.LSTM(units, name="core")
        return hk.dynamic_unroll(core, x, core.initial_state(x.shape[0]), time_major=False)[0]

    model = hk.without_apply_rng(hk.transform(unrolled))

    def run(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        return model.apply({"core/linear": {"w": w, "b": b}}, x, w.shape[1] // 4)

    return Peer("Haiku", run, own, back)


JAX = {"lstm": (flax("lstm"), equinox("lstm"), haiku()), "gru": (flax("gru"), equinox("gru"))}


def pytorch(kind: str, x: Any, wx: Any, wh: Any, b: Any, g: Any) -> list[Contestant]:
    """Contestants of ``nn.LSTM`` or ``nn.GRU``; its second bias is 0."""

    def tensor(a: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(a), device=DEVICE)

    module = getattr(torch.nn, kind.upper())(wx.shape[0], wh.shape[0], batch_first=True).to(DEVICE)
    with torch.no_grad():
        module.weight_ih_l0.copy_(tensor(wx).T)
        module.weight_hh_l0.copy_(tensor(wh).T)
        module.bias_ih_l0.copy_(tensor(b))
        module.bias_hh_l0.zero_()
    data, cotangent = tensor(x), tensor(g)

    def array(t: torch.Tensor) -> np.ndarray:
        return t.detach().cpu().numpy()

    def forward(units: int) -> Program:
        def run() -> torch.Tensor:
            with torch.no_grad():
                y = module(data)[0]
            wait()
            return y

        return Program(run, show=array)

    def gradient(units: int) -> Program:
        leaf = data.detach().requires_grad_()
        leaves = [leaf, module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0]

        def run() -> tuple[torch.Tensor, ...]:
            y = module(leaf)[0]
            gradients = torch.autograd.grad(y, leaves, cotangent)
            wait()
            return (y, *gradients)

        def show(outputs: tuple[torch.Tensor, ...]) -> tuple[np.ndarray, ...]:
            y, dx, *weights = map(array, outputs)
            return (y, dx, *turned(*weights))

        return Program(run, show=show)

    return [
        Contestant("PyTorch", "forward", "eager", forward),
        Contestant("PyTorch", "gradient", "eager", gradient),
    ]
