"""The operators of ONNX that fnn has, each as a call of fnn's public functions.

``OPERATORS[name](node, *inputs)`` takes the arrays of an ONNX node and gives its outputs: the
attributes become arguments, and the layout, channels second in ONNX, is turned there and back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from fnn.windows import same_pads
from tests.onnx_recurrent import RECURRENT


class NotSupported(Exception):
    """A case that fnn cannot express, with the reason."""


class Node(NamedTuple):
    """What a translation knows besides the inputs: attributes, outputs asked for, opset."""

    attributes: dict[str, Any]
    outputs: int
    opset: int

    def __getitem__(self, name: Any) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)


def last(x: Any) -> Any:
    """Channels from second to last."""
    return np.moveaxis(x, 1, -1)


def first(y: Any) -> Any:
    """Channels from last to second."""
    return np.moveaxis(np.asarray(y), -1, 1)


def windows(node: Node, spatial: tuple[int, ...], taps: tuple[int, ...]) -> dict[str, Any]:
    """ONNX's strides, dilations, pads and auto_pad as stride, dilation and padding."""
    ones = (1,) * len(taps)
    stride, dilation = tuple(node.get("strides", ones)), tuple(node.get("dilations", ones))
    pads = node.get("pads", (0,) * 2 * len(taps))
    padding: Any = tuple(zip(pads[: len(taps)], pads[len(taps) :], strict=True))
    match node.get("auto_pad", b"NOTSET"):
        case b"SAME_UPPER":
            padding = "SAME"
        case b"SAME_LOWER":  # the odd element at the beginning
            span = [(k - 1) * d + 1 for k, d in zip(taps, dilation, strict=True)]
            padding = tuple((hi, lo) for lo, hi in same_pads(spatial, span, stride))
    return {"stride": stride, "dilation": dilation, "padding": padding}


def conv(node: Node, x: Any, w: Any, b: Any = None) -> Any:
    spread = windows(node, x.shape[2:], w.shape[2:])
    w = np.moveaxis(w, (1, 0), (-2, -1))
    return first(fnn.conv(last(x), w, b, groups=node.get("group", 1), **spread))


def conv_transpose(node: Node, x: Any, w: Any, b: Any = None) -> Any:
    taps, rank = w.shape[2:], w.ndim - 2
    spread = windows(node, x.shape[2:], taps)
    extra = tuple(node.get("output_padding", (0,) * rank))
    same = spread["padding"] == "SAME"
    if same or "output_shape" in node.attributes:
        default = [i * s for i, s in zip(x.shape[2:], spread["stride"], strict=True)]
        sizes = node.get("output_shape", default)
        whole = [
            (i - 1) * s + (k - 1) * d + 1
            for i, k, s, d in zip(
                x.shape[2:], taps, spread["stride"], spread["dilation"], strict=True
            )
        ]
        cut = [max(0, e - o) for e, o in zip(whole, sizes, strict=True)]
        extra = tuple(max(0, o - e) for e, o in zip(whole, sizes, strict=True))
        spread["padding"] = tuple(
            (c // 2, c - c // 2) if same else (c - c // 2, c // 2) for c in cut
        )
    w = np.moveaxis(w, (1, 0), (-2, -1))
    y = fnn.conv_transpose(
        last(x), w, b, groups=node.get("group", 1), output_padding=extra, **spread
    )
    return first(y)


def max_pool(node: Node, x: Any) -> Any:
    taps = tuple(node["kernel_shape"])
    spread = windows(node, x.shape[2:], taps) | {"ceil_mode": bool(node.get("ceil_mode", 0))}
    y = first(fnn.max_pool(last(x), taps, **spread))
    if node.outputs == 1:
        return y
    assert x.shape[:2] == (1, 1)  # of several planes ONNX counts all places, fnn those of each
    places = np.unravel_index(first(fnn.max_pool_indices(last(x), taps, **spread)), x.shape[2:])
    order = "F" if node.get("storage_order", 0) else "C"
    return y, np.ravel_multi_index(places, x.shape[2:], order=order)


def max_unpool(node: Node, y: Any, indices: Any, shape: Any = None) -> Any:
    assert y.shape[:2] == (1, 1)
    assert "pads" not in node.attributes
    axes = zip(y.shape[2:], node["strides"], node["kernel_shape"], strict=True)
    sizes = tuple((o - 1) * s + k for o, s, k in axes)
    x = first(fnn.max_unpool(last(y), last(indices), sizes))
    return x if shape is None else np.pad(x, [(0, n) for n in shape - x.shape])


def avg_pool(node: Node, x: Any) -> Any:
    taps = tuple(node["kernel_shape"])
    spread = windows(node, x.shape[2:], taps)
    modes = {k: bool(node.get(k, 0)) for k in ("ceil_mode", "count_include_pad")}
    return first(fnn.avg_pool(last(x), taps, **modes, **spread))


def lp_pool(node: Node, x: Any) -> Any:
    taps = tuple(node["kernel_shape"])
    return first(fnn.lp_pool(last(x), taps, node.get("p", 2), **windows(node, x.shape[2:], taps)))


def over_everything(pool: Callable[..., Any]) -> Callable[..., Any]:
    return lambda node, x: np.expand_dims(pool(last(x)), tuple(range(2, x.ndim)))


def batch_norm(node: Node, x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    eps, stats = node.get("epsilon", 1e-5), fnn.BatchStats(mean, var)
    if not node.get("training_mode", 0):
        return first(fnn.batch_norm(last(x), scale, bias, *stats, eps=eps))
    batch = fnn.batch_stats(last(x))
    running = fnn.running_stats(stats, batch, decay=node.get("momentum", 0.9))
    return first(fnn.batch_norm(last(x), scale, bias, *batch, eps=eps)), *running


def mean_variance_norm(node: Node, x: Any) -> Any:
    scale = np.ones(x.shape[1], x.dtype)
    return first(fnn.batch_norm(last(x), scale, 0 * scale, *fnn.batch_stats(last(x)), eps=1e-9))


def layer_norm(node: Node, x: Any, scale: Any, bias: Any = None) -> Any:
    axis, eps = node.get("axis", -1) % x.ndim, node.get("epsilon", 1e-5)
    kept = x.shape[:axis] + (1,) * (x.ndim - axis)
    # One position's features as the examples of one channel: the mean and deviation asked for.
    mean, var = fnn.batch_stats(x.reshape(int(np.prod(kept)), -1).T)
    y = fnn.layer_norm(x, scale, bias, eps=eps)
    mean, var = np.asarray(mean), np.asarray(var)
    return y, mean.reshape(kept), (1 / np.sqrt(var + np.float32(eps))).reshape(kept)


def rms_norm(node: Node, x: Any, scale: Any) -> Any:
    return fnn.rms_norm(x, scale, eps=node.get("epsilon", 1e-5))


def instance_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    return first(fnn.instance_norm(last(x), scale, bias, eps=node.get("epsilon", 1e-5)))


def group_norm(node: Node, x: Any, scale: Any, bias: Any) -> Any:
    eps, groups = node.get("epsilon", 1e-5), node["num_groups"]
    return first(fnn.group_norm(last(x), scale, bias, groups=groups, eps=eps))


def dropout(node: Node, x: Any, ratio: Any = 0.5, training: Any = False) -> Any:
    if training and ratio > 0:
        raise NotSupported("the expected values are those of NumPy's random numbers")
    y = fnn.dropout(x, float(ratio), None)
    return y, np.asarray(fnn.dropout(np.ones_like(x), float(ratio), None)) != 0


def gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    a, b = (m.T if node.get(t, 0) else m for m, t in ((a, "transA"), (b, "transB")))
    if c is not None:
        if c.ndim == 2 and c.shape[0] > 1:
            raise NotSupported("dense adds one bias per output, not one per entry")
        c = np.broadcast_to(np.float32(node.get("beta", 1)) * c.reshape(-1), b.shape[1:])
    return fnn.dense(np.float32(node.get("alpha", 1)) * a, b, c)


def gather(node: Node, data: Any, ids: Any) -> Any:
    if (ids < 0).any():
        raise NotSupported("embed gives NaN for a negative id instead of counting from the end")
    axis = node.get("axis", 0)
    rows = np.moveaxis(data, axis, 0)
    y = np.asarray(fnn.embed(ids, rows.reshape(len(rows), -1))).reshape(ids.shape + rows.shape[1:])
    return np.moveaxis(y, range(ids.ndim), range(axis, axis + ids.ndim))


def flatten(node: Node, x: Any) -> Any:
    if node.get("axis", 1) % x.ndim != 1:
        raise NotSupported("flatten keeps the first axis and no other")
    return fnn.flatten(x)


def reduced(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss per example, its weights and ignored label, with ONNX's reductions."""

    def call(node: Node, x: Any, labels: Any, weights: Any = None) -> Any:
        ignore, reduction = node.get("ignore_index", None), node.get("reduction", b"mean")
        each = np.asarray(loss(last(x), labels, weights=weights, ignore=ignore))
        y = each
        if reduction != b"none":
            y = each.sum(dtype=each.dtype)
        if reduction == b"mean":
            counted = np.ones(labels.shape) if ignore is None else labels != ignore
            share = 1.0 if weights is None else weights[np.where(counted, labels, 0)]
            y = (y / (counted * share).sum()).astype(each.dtype)
        return y, first(fnn.log_softmax(last(x)))

    return call


def softmax(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(node: Node, x: Any) -> Any:
        if node.opset >= 13:
            return function(x, axis=node.get("axis", -1))
        axis = node.get("axis", 1) % x.ndim  # before opset 13: over all axes from this one on
        return function(x, axis=tuple(range(axis, x.ndim)))

    return call


def selu(node: Node, x: Any) -> Any:
    if not node.attributes:
        return fnn.selu(x)
    return np.float32(node["gamma"]) * np.asarray(fnn.elu(x, alpha=node["alpha"]))


def prelu(node: Node, x: Any, slope: Any) -> Any:
    if node.opset < 7:  # one slope, or one per channel; from then on broadcast as in NumPy
        return first(fnn.prelu(last(x), slope if slope.size > 1 else slope.reshape(())))
    return fnn.prelu(x, slope)


def hard_sigmoid(node: Node, x: Any) -> Any:
    """``max(0, min(1, alpha x + beta))``: the piecewise linear function, shifted by a half."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return fnn.piecewise_linear(np.float32(alpha) * x + np.float32(beta - 0.5))


def swish(node: Node, x: Any) -> Any:
    alpha = np.float32(node.get("alpha", 1.0))
    return np.asarray(fnn.silu(alpha * x)) / alpha


def plain(function: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
    """An activation whose attributes have fnn's names."""
    return lambda node, x: function(x, **{k: node.get(k, d) for k, d in defaults.items()})


def identity(node: Node, x: Any) -> Any:
    if isinstance(x, list) or x is None:
        raise NotSupported("a sequence of arrays is no array")
    return fnn.identity(x)


def optimizer(make: Callable[..., Any], *moments: str) -> Callable[..., Any]:
    """One step from given moments; arrays come as all params, all gradients, all of each moment."""

    def call(node: Node, rate: Any, t: Any, *arrays: Any) -> Any:
        count = len(arrays) // (2 + len(moments))
        params, grads, *old = (list(arrays[i : i + count]) for i in range(0, len(arrays), count))
        decay = np.float32(node["norm_coefficient"])
        grads = [g + decay * x for g, x in zip(grads, params, strict=True)]
        opt = make(node, float(rate))
        assert t == 0  # which asks Adam for no bias correction: that is a late step of it
        state = opt.init(params)._replace(
            step=jnp.int32(100_000), moments=dict(zip(moments, old, strict=True))
        )
        updates, state = jax.jit(opt.update)(grads, state, params)
        new = [x + np.asarray(u) for x, u in zip(params, updates, strict=True)]
        return [*new, *(a for name in moments for a in state.moments[name])]

    return call


def adam(node: Node, rate: float) -> fnn.Optimizer:
    return fnn.adam(rate, b1=node["alpha"], b2=node["beta"], eps=node["epsilon"])


def adagrad(node: Node, rate: float) -> fnn.Optimizer:
    return fnn.adagrad(rate, eps=node["epsilon"], eps_in_root=False)


def momentum(node: Node, rate: float) -> fnn.Optimizer:
    return fnn.sgd(rate, momentum=node["alpha"], nesterov=node["mode"] == b"nesterov")


OPERATORS: dict[str, Callable[..., Any]] = {
    **RECURRENT,
    "Adagrad": optimizer(adagrad, "sum_of_squares"),
    "Adam": optimizer(adam, "mu", "nu"),
    "AveragePool": avg_pool,
    "BatchNormalization": batch_norm,
    "Celu": plain(fnn.celu, alpha=1.0),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Dropout": dropout,
    "Elu": plain(fnn.elu, alpha=1.0),
    "Flatten": flatten,
    "Gather": gather,
    "Gelu": lambda node, x: fnn.gelu(x, approximate=node.get("approximate", b"") == b"tanh"),
    "Gemm": gemm,
    "GlobalAveragePool": over_everything(fnn.global_avg_pool),
    "GlobalMaxPool": over_everything(fnn.global_max_pool),
    "GroupNormalization": group_norm,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(fnn.hard_swish),
    "Identity": identity,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda node, x: fnn.leaky_relu(x, negative_slope=node.get("alpha", 0.01)),
    "LogSoftmax": softmax(fnn.log_softmax),
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
    "MeanVarianceNormalization": mean_variance_norm,
    "Mish": plain(fnn.mish),
    "Momentum": optimizer(momentum, "trace"),
    "NegativeLogLikelihoodLoss": reduced(fnn.nll),
    "PRelu": prelu,
    "RMSNormalization": rms_norm,
    "Relu": plain(fnn.relu),
    "Selu": selu,
    "Sigmoid": plain(fnn.sigmoid),
    "Sign": plain(fnn.sign),
    "Softmax": softmax(fnn.softmax),
    "SoftmaxCrossEntropyLoss": reduced(fnn.cross_entropy),
    "Softplus": plain(fnn.softplus),
    "Softsign": plain(fnn.softsign),
    "Swish": swish,
    "Tanh": plain(fnn.tanh),
}

# What stands beside a covered operator in the recorded models.
PLUMBING: dict[str, Callable[..., Any]] = {
    "Mul": lambda node, x, y: x * y,
    "Neg": lambda node, x: -x,
    "Split": lambda node, x: np.split(x, node.outputs, node["axis"]),
    "Squeeze": lambda node, x: np.squeeze(x, tuple(node["axes"])),
    "Unsqueeze": lambda node, x: np.expand_dims(x, tuple(node["axes"])),
}
