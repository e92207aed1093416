"""RNN, LSTM and GRU of ONNX as calls of fnn's public functions.

ONNX puts directions first in every array and output features before input features, and the blocks
in the order i, o, f, c of an LSTM and z, r, h of a GRU. Each block has two biases; those of a GRU
add up unless its reset comes after the product. Layout 0 has time first, layout 1 the examples.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fnn

KNOWN = {"hidden_size", "direction", "layout", "linear_before_reset"}


def columns(rows: Any, order: Sequence[int]) -> Any:
    """``(blocks units, k)`` as ``(k, blocks units)``, the blocks in fnn's order."""
    blocks = np.split(rows, len(order))
    return np.concatenate([blocks[i] for i in order]).T


def directions(node: Any) -> list[bool]:
    """Whether each direction is the reverse one."""
    ways = {b"forward": [False], b"reverse": [True], b"bidirectional": [False, True]}
    return ways[node.get("direction", b"forward")]


def layer(order: Sequence[int], run: Callable[..., Any]) -> Callable[..., Any]:
    """An operator whose blocks, in ONNX's order, are fnn's at these places."""

    def call(
        node: Any,
        x: Any,
        w: Any,
        r: Any,
        b: Any = None,
        lengths: Any = None,
        h: Any = None,
        c: Any = None,
        p: Any = None,
    ) -> list[Any]:
        assert set(node.attributes) <= KNOWN, "activations, clip and input_forget are not fnn's"
        batchwise = bool(node.get("layout", 0))
        if not batchwise:
            x = np.swapaxes(x, 0, 1)
        elif h is not None:
            h, c = (None if s is None else np.swapaxes(s, 0, 1) for s in (h, c))
        found = []
        for i, reverse in enumerate(directions(node)):
            wb, rb = (None, None) if b is None else np.split(b[i], 2)
            state = None if h is None else h[i]
            if c is not None:
                state = (h[i], c[i])
            peephole = None if p is None else np.split(p[i], 3)  # i, o, f
            arrays = (columns(w[i], order), columns(r[i], order), wb, rb, peephole)
            y, last = run(node, x, arrays, state=state, lengths=lengths, reverse=reverse)
            found.append((y, *(last if isinstance(last, tuple) else (last,))))
        y, *states = (np.stack(parts, 1) for parts in zip(*found, strict=True))
        if batchwise:
            return [np.moveaxis(y, 1, 2), *states]
        return [np.moveaxis(y, (2, 1, 0), (0, 1, 2)), *(np.swapaxes(s, 0, 1) for s in states)]

    return call


def bias(wb: Any, rb: Any, order: Sequence[int]) -> Any:
    return None if wb is None else columns(wb + rb, order)


def rnn(node: Any, x: Any, arrays: Any, **options: Any) -> Any:
    wx, wh, wb, rb, _ = arrays
    return fnn.rnn(x, wx, wh, bias(wb, rb, RNN), **options)


def lstm(node: Any, x: Any, arrays: Any, **options: Any) -> Any:
    wx, wh, wb, rb, p = arrays
    peephole = None if p is None else np.stack([p[0], p[2], p[1]])
    return fnn.lstm(x, wx, wh, bias(wb, rb, LSTM), peephole, **options)


def gru(node: Any, x: Any, arrays: Any, **options: Any) -> Any:
    wx, wh, wb, rb, _ = arrays
    b, bh = wb, None
    if wb is not None:
        bh = np.split(rb, 3)[2]
        b = columns(wb + np.concatenate([*np.split(rb, 3)[:2], np.zeros_like(bh)]), GRU)
    reset = "after" if node.get("linear_before_reset", 0) else "before"
    return fnn.gru(x, wx, wh, b, bh, reset=reset, **options)


RNN, LSTM, GRU = (0,), (0, 2, 3, 1), (1, 0, 2)
RECURRENT: dict[str, Callable[..., Any]] = {
    "GRU": layer(GRU, gru),
    "LSTM": layer(LSTM, lstm),
    "RNN": layer(RNN, rnn),
}
