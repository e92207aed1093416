"""Recurrence over sequences ``(n, time, features)``: simple, LSTM and GRU.

``f(x, **params) -> (outputs, state)``: outputs are h at every step, and the state is what a next
call goes on from. ``<f>_cell`` is one step, for a loop of one's own. Layers are stacked by calling
one after the other, with `fnn.dropout` between them; `bidirectional` runs one from each end.

Blocks of columns stand in PyTorch's order: LSTM i, f, g, o; GRU r, z, n. Padding never shows:
with ``lengths``, whatever stands behind a sequence's end changes no value and no gradient by a bit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.checks import check_callable, check_int, check_one_of, describe, wrong
from fnn.dtypes import widen
from fnn.functions import jitted, variant
from fnn.kernels.recurrent.cells import GRU, GRU_BEFORE, LSTM, LSTM_PEEPHOLE, simple
from fnn.kernels.recurrent.cudnn import CUDNN
from fnn.kernels.recurrent.form import Cell, Kernel, State, Weights, advance, recur
from fnn.kernels.recurrent.scan import SCAN
from fnn.kernels.recurrent.written import WRITTEN
from fnn.layers.activations import identity, relu, sigmoid, tanh
from fnn.layers.recurrent_checks import (
    Activation,
    by_number,
    check_arrays,
    initial_state,
    known_lengths,
)
from fnn.placement import by_examples
from fnn.static import frozen

Sequence = Float[Array, "n time f"]
Units = Float[Array, "n units"]
Input = Float[Array, "f columns"]
Recurrent = Float[Array, "units columns"]
Vector = Float[Array, " columns"]
PerUnit = Float[Array, " units"]
Lengths = Int[Array, " n"]
# Activations whose derivative is written out: each number has a slope of its own. Of others that
# cannot be told: they may join numbers, or have a backward rule that is no slope.
WITH_SLOPE = [*map(frozen, (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, tanh, relu, sigmoid, identity))]
SIMPLE, PAIR, RESET = (1, "h"), (4, "hc"), (3, "h")  # blocks of columns, parts of the state


def _over_time(
    name: str,
    kernel: Kernel,
    cell: Cell,
    kind: tuple[int, str],
    x: jax.Array,
    weights: Weights,
    *,
    state: Any,
    lengths: jax.Array | None,
    reverse: bool,
    remat: int | None,
) -> tuple[jax.Array, State]:
    """Check the arguments of public function ``name``, and run the kernel."""
    blocks, parts = kind
    check_arrays(name, blocks, "n, time, f", x, weights)
    state = initial_state(name, parts, x, weights, state)
    if lengths is not None:
        if lengths.shape != x.shape[:1]:
            raise wrong(name, "lengths", describe(lengths), f"shape ({x.shape[0]},)")
        if not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise wrong(name, "lengths", describe(lengths), "an integer dtype", TypeError)
    if remat is not None:
        check_int(name, "remat", remat, 1)
        if not isinstance(x.shape[1], int):
            needed = f"None where the time is a symbol, as of x {describe(x)}"
            raise wrong(name, "remat", remat, needed)
    return recur(kernel, cell, x, weights, state, lengths, reverse, remat)


def _one_step(
    name: str, cell: Cell, kind: tuple[int, str], x: jax.Array, weights: Weights, state: Any
) -> State:
    """Check the arguments of public function ``name``, and advance the state."""
    blocks, parts = kind
    check_arrays(name, blocks, "n, f", x, weights)
    x, *start = by_examples(x, *initial_state(name, parts, x, weights, state))
    x, wide = widen(x), jax.tree.map(widen, weights)

    def step(state: State) -> tuple[State, None]:
        return cell.step(cell.sums(x @ wide.wx, state[0], wide), state, wide), None

    new, _ = advance(step, tuple(start), None)
    return new


def _rnn(
    name: str, kernel: Kernel, *arrays: Any, activation: Activation, **options: Any
) -> tuple[jax.Array, jax.Array]:
    """Run `rnn` and its variants: x, wx, wh, b."""
    x, wx, wh, b = arrays
    cell, weights = simple(by_number(name, activation)), Weights(wx, wh, b)
    if activation not in WITH_SLOPE:
        cell = cell._replace(slopes=None)
    y, (h,) = _over_time(name, kernel, cell, SIMPLE, x, weights, **options)
    return y, h


@known_lengths
@jitted(static=("reverse", "activation", "remat"))
def rnn(
    x: Sequence,
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    *,
    state: Units | None = None,
    lengths: Lengths | None = None,
    reverse: bool = False,
    activation: Activation = jnp.tanh,
    remat: int | None = None,
) -> tuple[Float[Array, "n time units"], Units]:
    """Run a simple recurrent layer, ``h_t = activation(x_t wx + h_{t-1} wh + b)``.

    Args:
        x: sequences (n, time, f). In half precision, steps are computed in float32.
        wx: (f, units), of the dtype of x.
        wh: (units, units).
        b: (units,).
        state: h before the first step (n, units), zeros by default; of the dtype of x, or float32,
            to be carried in float32 through half-precision sequences.
        lengths: how many steps of each sequence are real (n,), integers in [0, time]. Whatever
            stands behind them changes no output, state or gradient. Inside a compiled program,
            where a length that is out of range cannot raise, its sequence's outputs and state are
            NaN.
        reverse: whether to run each sequence from its last real step to its first.
        activation: any function of each number; the gradient is fastest with tanh, `fnn.relu`,
            `fnn.sigmoid` and `fnn.identity`. With ``lengths`` its slope at b, or at 0 without b,
            must be finite: steps behind a length are computed there.
        remat: k, to keep the state at every k-th step only and compute the others again for the
            gradient: memory for time / k + k steps, at the price of a second forward pass.

    Returns:
        Outputs (n, time, units), 0 beyond a length, and the state after each sequence's last real
        step (n, units), which is the initial one for length 0.

    Raises:
        ValueError: shapes that do not fit; lengths out of range, where they are known; an
            activation that takes no single number, or changes the shape; remat where the time is a
            symbol.
        TypeError: dtypes that differ; lengths that are no integers.

    Source: J. Elman, Finding structure in time (1990).

    >>> x, w = jnp.ones((1, 3, 1)), jnp.ones((1, 1))
    >>> y, h = rnn(x, w, w, activation=fnn.identity)
    >>> y.ravel().tolist(), h.tolist()
    ([1.0, 2.0, 3.0], [[3.0]])

    Back-propagation through time, truncated to windows of 5 steps:

    >>> params, state = fnn.init_rnn(jax.random.key(0), 1, 4), None
    >>> for window in jnp.split(jnp.ones((1, 20, 1)), 4, axis=1):
    ...     y, state = rnn(window, **params, state=jax.lax.stop_gradient(state))
    """
    options = {"state": state, "lengths": lengths, "reverse": reverse, "remat": remat}
    return _rnn("rnn", WRITTEN, x, wx, wh, b, activation=activation, **options)


def _lstm(
    name: str, kernel: Kernel, *arrays: Any, **options: Any
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Run `lstm` and its variants: x, wx, wh, b, peephole."""
    x, wx, wh, b, peephole = arrays
    cell = LSTM if peephole is None else LSTM_PEEPHOLE
    weights = Weights(wx, wh, b, peephole=peephole)
    y, (h, c) = _over_time(name, kernel, cell, PAIR, x, weights, **options)
    return y, (h, c)


@known_lengths
@jitted(static=("reverse", "remat"))
def lstm(
    x: Sequence,
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    peephole: Float[Array, "3 units"] | None = None,
    *,
    state: tuple[Units, Units] | None = None,
    lengths: Lengths | None = None,
    reverse: bool = False,
    remat: int | None = None,
) -> tuple[Float[Array, "n time units"], tuple[Units, Units]]:
    """Run a long short-term memory.

    With ``z = x_t wx + h_{t-1} wh + b`` in blocks of columns i, f, g, o::

        c_t = sigmoid(z_f) c_{t-1} + sigmoid(z_i) tanh(z_g)
        h_t = sigmoid(z_o) tanh(c_t)

    A gate is right to the rounding of 1: shut below about z = -16, it is 0 in float32.

    Args:
        x, lengths, reverse, remat: as in `rnn`.
        wx: (f, 4 units), of the dtype of x.
        wh: (units, 4 units).
        b: (4 units,).
        peephole: (3, units), p_i, p_f, p_o: adds p_i c_{t-1} to z_i, p_f c_{t-1} to z_f, and
            p_o c_t to z_o.
        state: h and c before the first step, each (n, units), as in `rnn`.

    Returns:
        Outputs (n, time, units), 0 beyond a length, and the state (h, c) after each sequence's
        last real step.

    Raises:
        ValueError, TypeError: as `rnn`.

    Source: S. Hochreiter, J. Schmidhuber, Long short-term memory (1997); F. Gers et al., Learning
    to forget (2000), Learning precise timing with LSTM recurrent networks (2002).

    >>> params = fnn.init_lstm(jax.random.key(0), 3, 5)
    >>> y, (h, c) = lstm(jnp.ones((2, 7, 3)), **params, lengths=jnp.array([7, 4]))
    >>> y.shape, y[1, 4:].any().item(), (y[1, 3] == h[1]).all().item()
    ((2, 7, 5), False, True)

    The weights of PyTorch's ``nn.LSTM(3, 5)``, and back; its two biases are added:

    >>> theirs = {"weight_ih_l0": np.ones((20, 3)), "weight_hh_l0": np.ones((20, 5)),
    ...           "bias_ih_l0": np.ones(20), "bias_hh_l0": np.ones(20)}
    >>> ours = fnn.weights.from_torch(theirs, {"*_l0": ("layer", "lstm")})["layer"]
    >>> ours["wx"].shape, ours["wh"].shape, float(ours["b"][0])
    ((3, 20), (5, 20), 2.0)
    >>> sorted(fnn.weights.to_torch({"layer": ours}, {"*_l0": ("layer", "lstm")}))
    ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0']

    Dropout with the same mask at every step:

    >>> mask = fnn.dropout(jnp.ones((2, 1, 3)), 0.5, jax.random.key(1))
    >>> y, _ = lstm(jnp.ones((2, 7, 3)) * mask, **params)
    """
    options = {"state": state, "lengths": lengths, "reverse": reverse, "remat": remat}
    return _lstm("lstm", WRITTEN, x, wx, wh, b, peephole, **options)


def _gru(
    name: str, kernel: Kernel, *arrays: Any, reset: str, **options: Any
) -> tuple[jax.Array, jax.Array]:
    """Run `gru` and its variants: x, wx, wh, b, bh."""
    check_one_of(name, "reset", reset, ("after", "before"))
    x, wx, wh, b, bh = arrays
    cell, weights = GRU if reset == "after" else GRU_BEFORE, Weights(wx, wh, b, bh)
    y, (h,) = _over_time(name, kernel, cell, RESET, x, weights, **options)
    return y, h


@known_lengths
@jitted(static=("reverse", "reset", "remat"))
def gru(
    x: Sequence,
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    bh: PerUnit | None = None,
    *,
    state: Units | None = None,
    lengths: Lengths | None = None,
    reverse: bool = False,
    reset: str = "after",
    remat: int | None = None,
) -> tuple[Float[Array, "n time units"], Units]:
    """Run a gated recurrent unit.

    In blocks of columns r, z, n::

        r, z = sigmoid(x_t wx + h_{t-1} wh + b)
        n    = tanh(x_t wx + b + r (h_{t-1} wh + bh))
        h_t  = (1 - z) n + z h_{t-1}

    A gate is right to the rounding of 1, as in `lstm`.

    Args:
        x, state, lengths, reverse, remat: as in `rnn`.
        wx: (f, 3 units), of the dtype of x.
        wh: (units, 3 units).
        b: (3 units,).
        bh: (units,), the recurrent bias of the candidate n.
        reset: where r acts: "after" the product with wh (PyTorch, Keras, cuDNN), or "before" it,
            on h_{t-1} (the original paper), where bh is added as it is.

    Returns:
        Outputs (n, time, units), 0 beyond a length, and the state after each sequence's last real
        step (n, units).

    Raises:
        ValueError, TypeError: as `rnn`.

    Source: K. Cho et al., Learning phrase representations using RNN encoder-decoder for statistical
    machine translation (2014); "after": J. Appleyard et al., Optimizing performance of recurrent
    neural networks on GPUs (2016).

    >>> params = fnn.init_gru(jax.random.key(0), 3, 5)
    >>> y, h = gru(jnp.ones((2, 7, 3)), **params)
    >>> y.shape, (y[:, -1] == h).all().item()
    ((2, 7, 5), True)
    """
    options = {"state": state, "lengths": lengths, "reverse": reverse, "remat": remat}
    return _gru("gru", WRITTEN, x, wx, wh, b, bh, reset=reset, **options)


_PLAIN = "by the cell in `lax.scan`, differentiated by JAX"
rnn_scan = known_lengths(
    variant(rnn, _rnn, SCAN, _PLAIN, example="jnp.ones((1, 2, 1)), *jnp.ones((2, 1, 1))")
)
lstm_scan = known_lengths(
    variant(lstm, _lstm, SCAN, _PLAIN, example="jnp.ones((1, 2, 1)), *jnp.ones((2, 1, 4))")
)
gru_scan = known_lengths(
    variant(gru, _gru, SCAN, _PLAIN, example="jnp.ones((1, 2, 1)), *jnp.ones((2, 1, 3))")
)


@known_lengths
@jitted(static=("reverse",))
def lstm_cudnn(
    x: Sequence,
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    *,
    state: tuple[Units, Units] | None = None,
    lengths: Lengths | None = None,
    reverse: bool = False,
) -> tuple[Float[Array, "n time units"], tuple[Units, Units]]:
    """Run a long short-term memory by cuDNN, on an NVIDIA GPU.

    Args:
        x, wx, wh, b, state, lengths, reverse: as in `lstm`; float32 only.

    Returns:
        As `lstm`. There is a gradient, but no forward mode and no second derivative.

    Raises:
        ValueError: there is no GPU; shapes as `rnn`.
        TypeError: dtypes other than float32.

    Source: J. Appleyard et al., Optimizing performance of recurrent neural networks on GPUs (2016).

    >>> lstm_cudnn(jnp.ones((1, 2, 1)), *jnp.ones((2, 1, 4)))  # without one
    Traceback (most recent call last):
    ...
    ValueError: fnn.lstm_cudnn: x: got a computation on the cpu; needed ...
    """
    if jax.default_backend() != "gpu":
        got = f"a computation on the {jax.default_backend()}"
        raise wrong("lstm_cudnn", "x", got, "an NVIDIA GPU; fnn.lstm runs everywhere")
    if x.dtype != jnp.float32:
        raise wrong("lstm_cudnn", "x", describe(x), "float32; fnn.lstm takes others", TypeError)
    options = {"state": state, "lengths": lengths, "reverse": reverse, "remat": None}
    return _lstm("lstm_cudnn", CUDNN, x, wx, wh, b, None, **options)


@jitted(static=("activation",))
def rnn_cell(
    x: Float[Array, "n f"],
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    *,
    state: Units | None = None,
    activation: Activation = jnp.tanh,
) -> Units:
    """Return the state after one step of `rnn`.

    Args:
        x: the inputs of one step (n, f).
        wx, wh, b, state, activation: as in `rnn`.

    Returns:
        h (n, units), of the dtype of the state.

    Raises:
        ValueError, TypeError: as `rnn`.

    >>> w = jnp.ones((1, 1))
    >>> rnn_cell(jnp.ones((2, 1)), w, w, state=jnp.ones((2, 1)), activation=fnn.identity).tolist()
    [[2.0], [2.0]]
    """
    cell = simple(by_number("rnn_cell", activation))
    (h,) = _one_step("rnn_cell", cell, SIMPLE, x, Weights(wx, wh, b), state)
    return h


@jitted()
def lstm_cell(
    x: Float[Array, "n f"],
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    peephole: Float[Array, "3 units"] | None = None,
    *,
    state: tuple[Units, Units] | None = None,
) -> tuple[Units, Units]:
    """Return the state after one step of `lstm`.

    Args:
        x: the inputs of one step (n, f).
        wx, wh, b, peephole, state: as in `lstm`.

    Returns:
        h and c, each (n, units), of the dtype of the state.

    Raises:
        ValueError, TypeError: as `rnn`.

    A generator, whose output is its next input:

    >>> params = fnn.init_lstm(jax.random.key(0), 5, 5)
    >>> x, state = jnp.ones((2, 5)), None
    >>> for _ in range(3):
    ...     x, _ = state = lstm_cell(x, **params, state=state)
    """
    cell = LSTM if peephole is None else LSTM_PEEPHOLE
    weights = Weights(wx, wh, b, peephole=peephole)
    h, c = _one_step("lstm_cell", cell, PAIR, x, weights, state)
    return h, c


@jitted(static=("reset",))
def gru_cell(
    x: Float[Array, "n f"],
    wx: Input,
    wh: Recurrent,
    b: Vector | None = None,
    bh: PerUnit | None = None,
    *,
    state: Units | None = None,
    reset: str = "after",
) -> Units:
    """Return the state after one step of `gru`.

    Args:
        x: the inputs of one step (n, f).
        wx, wh, b, bh, state, reset: as in `gru`.

    Returns:
        h (n, units), of the dtype of the state.

    Raises:
        ValueError, TypeError: as `rnn`.

    >>> params = fnn.init_gru(jax.random.key(0), 3, 5)
    >>> gru_cell(jnp.ones((2, 3)), **params).shape
    (2, 5)
    """
    check_one_of("gru_cell", "reset", reset, ("after", "before"))
    cell, weights = GRU if reset == "after" else GRU_BEFORE, Weights(wx, wh, b, bh)
    (h,) = _one_step("gru_cell", cell, RESET, x, weights, state)
    return h


def bidirectional(
    f: Callable[..., tuple[jax.Array, Any]],
    forward: Mapping[str, Any],
    backward: Mapping[str, Any],
    x: Sequence,
    *,
    state: tuple[Any, Any] = (None, None),
    **options: Any,
) -> tuple[Float[Array, "n time both"], tuple[Any, Any]]:
    """Run one layer from the first step to the last, and another from the last to the first.

    Args:
        f: `rnn`, `lstm`, `gru`, or another function of their form.
        forward, backward: the dicts of the arrays of each.
        x: sequences (n, time, f); they stand last, behind what f is called with.
        state: the pair of both initial states; None in it for zeros.
        options: further arguments of both, such as ``lengths``; ``reverse`` is refused.

    Returns:
        Outputs (n, time, 2 units), the forward ones first, and both states.

    Raises:
        TypeError: f, forward, backward or state is of the wrong kind, or reverse is given.
        ValueError, TypeError: as f.

    Source: M. Schuster, K. Paliwal, Bidirectional recurrent neural networks (1997).

    >>> there, back = (fnn.init_gru(jax.random.key(i), 3, 5) for i in range(2))
    >>> y, (h, g) = bidirectional(fnn.gru, there, back, jnp.ones((2, 7, 3)))
    >>> y.shape, (y[:, -1, :5] == h).all().item(), (y[:, 0, 5:] == g).all().item()
    ((2, 7, 10), True, True)
    """
    check_callable("bidirectional", "f", f, "such as fnn.gru")
    for argument, params in (("forward", forward), ("backward", backward)):
        if not isinstance(params, Mapping):
            needed = "the dict of its arrays; x stands last"
            raise wrong("bidirectional", argument, describe(params), needed, TypeError)
    if not isinstance(state, tuple | list) or len(state) != 2:
        needed = "the pair of both states, each of which may be None"
        raise wrong("bidirectional", "state", describe(state), needed, TypeError)
    if "reverse" in options:
        needed = "no such argument: one layer runs each way"
        raise wrong("bidirectional", "reverse", options["reverse"], needed, TypeError)
    y, last = f(x, **forward, state=state[0], **options)
    z, first = f(x, **backward, state=state[1], reverse=True, **options)
    return jnp.concatenate([y, z], -1), (last, first)
