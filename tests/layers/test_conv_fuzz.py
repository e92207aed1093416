"""Every algorithm against the float64 oracle over random forms, shapes and dtypes.

One example is one compiled program: value and all gradients. What an algorithm refuses by its own
statement is skipped, but not more than half of what is tried with forms drawn for it.
"""

import contextlib
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, example, given, reject, settings
from hypothesis import strategies as st

from fnn.kernels.conv.transforms import transforms
from tests.check import HALF, close
from tests.layers.test_conv import ALGORITHMS
from tests.oracles import conv as oracle

EXAMPLES = 15  # per algorithm, beside the stated ones
DTYPES = ("float32", "float32", "float32", "float64", "bfloat16", "float16")
POINTS = {"conv_winograd": 6, "conv_winograd2": 4}
# Forms for those that refuse most of them.
NARROW: dict[str, dict[str, tuple[int, ...]]] = {
    name: {"window": tuple(range(1, points)), "stride": (1,), "dilation": (1,)}
    for name, points in POINTS.items()
}


def gain(points: int, window: tuple[int, ...]) -> float:
    """How much larger the terms are that minimal filtering adds, rms, than those of a plain sum."""
    total = 1.0
    for taps in window[-2:]:
        a, g, bt = transforms(points, taps)
        terms = np.sqrt(((g**2).sum(1) * (bt**2).sum(1))[:, None])
        total *= float(np.sqrt(((a * terms) ** 2).sum(0) / taps).max())
    return total


class Call(NamedTuple):
    """One convolution; its arrays follow from the shapes."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    bias: str  # "none", "tied", "untied"
    dtype: str
    config: dict[str, Any]


@st.composite
def calls(
    draw: Any, window: Any = (1, 2, 3, 4, 5), stride: Any = (1, 2, 3), dilation: Any = (1, 2)
) -> Call:
    """Valid calls: what must fit is made to fit."""
    rank = draw(st.sampled_from((1, 2, 2, 3)))
    each = lambda choice: tuple(draw(st.sampled_from(choice)) for _ in range(rank))
    size, strides, dilations = each(window), each(stride), each(dilation)
    span = [(k - 1) * d + 1 for k, d in zip(size, dilations, strict=True)]
    mode = draw(st.sampled_from(("zeros", "zeros", "circular", "reflect", "replicate")))
    kind = draw(st.sampled_from(("SAME", "VALID", "int", "pairs")))
    most = 6 if rank < 3 else 3
    pads: Any = [(0, 0)] * rank
    if kind == "int":
        pads = [(draw(st.integers(0, most)),) * 2] * rank
    elif kind == "pairs":
        pads = [(draw(st.integers(0, most)), draw(st.integers(0, most))) for _ in range(rank)]
    elif kind == "SAME" and mode != "zeros":
        pads = [(e // 2, e // 2) for e in span]  # no less than what "SAME" needs
    spatial = [draw(st.integers(1, (40, 9, 5)[rank - 1])) for _ in range(rank)]
    if kind != "SAME":
        spatial = [max(i, e - lo - hi) for i, e, (lo, hi) in zip(spatial, span, pads, strict=True)]
    if mode in ("circular", "reflect"):
        spatial = [max(i, max(p) + 1) for i, p in zip(spatial, pads, strict=True)]
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    c_in, c_out = draw(st.integers(1, 5)), groups * draw(st.integers(1, 3))
    config = {
        "stride": strides,
        "padding": {"int": pads[0][0], "pairs": tuple(pads)}.get(kind, kind),
        "padding_mode": mode,
        "dilation": dilations,
        "groups": groups,
    }
    return Call(
        (draw(st.integers(0, 3)), *spatial, groups * c_in),
        (*size, c_in, c_out),
        draw(st.sampled_from(("none", "tied", "untied"))),
        draw(st.sampled_from(DTYPES)),
        config,
    )


def call_of(x: Any, w: Any, bias: str = "tied", dtype: str = "float32", **config: Any) -> Call:
    return Call(x, w, bias, dtype, config)


def compare(fn: Any, call: Call) -> bool:
    """Value and gradients of one call; False where fn refuses it."""
    rng = np.random.default_rng(0)
    out = oracle.Walk(
        call.x[1:-1],
        call.w[:-2],
        *(call.config.get(k, v) for k, v in (("stride", 1), ("padding", "SAME"), ("dilation", 1))),
    ).out
    b = {"none": [], "tied": [call.w[-1:]], "untied": [(*out, call.w[-1])]}[call.bias]
    shapes = [call.x, call.w, *b, (call.x[0], *out, call.w[-1])]
    double = call.dtype == "float64"
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        *args, g = (rng.standard_normal(s).astype(jnp.dtype(call.dtype)) for s in shapes)

        @jax.jit
        def run(g: Any, *args: Any) -> Any:
            y, pull = jax.vjp(lambda *a: fn(*a, **call.config), *args)
            return y, *pull(g)

        try:
            got = run(g, *args)
        except ValueError as error:
            if "fnn.conv takes every form" in str(error):
                return False
            raise
    wide = [np.asarray(a, np.float64) for a in args]
    cotangent = np.asarray(g, np.float64)
    to_x, to_w = oracle.conv_gradients(*wide[:2], cotangent, **call.config)
    axes = tuple(range(cotangent.ndim - wide[-1].ndim))
    want = [oracle.conv(*wide, **call.config), to_x, to_w]
    want += [cotangent.sum(axes)] if b else []
    sizes = [np.abs(a) for a in (wide[0], wide[1], cotangent)]
    per_x, per_w = oracle.conv_gradients(*sizes, **call.config)
    per_y = oracle.conv(sizes[0], sizes[1], **call.config)
    scales = [per_y, per_x, per_w, np.abs(cotangent).sum(axes)]
    stops = math.prod(g.shape[:-1])
    per_group = math.prod(call.w[:-2]) * call.w[-1] // call.config.get("groups", 1)
    lengths = [math.prod(call.w[:-1]), per_group, stops, stops]
    points = POINTS.get(fn.__name__)
    enlarged = gain(points, call.w[:-2]) if points else 1.0
    for value, expected, terms, length in zip(got, want, scales, lengths, strict=False):
        assert value.dtype == jnp.dtype(call.dtype)
        largest = np.abs(expected) if np.dtype(value.dtype) in HALF else terms
        scale = enlarged * float(largest.max(initial=0.0)) + 1e-3
        # in half precision the bias is added to the sum as rounded
        close(value, expected, length=length, scale=scale, roundings=2)
    return True


# More than 10,000 outputs, even sizes, a window larger than its input, one channel, no example.
LARGE = call_of((2, 26, 24, 5), (3, 3, 5, 10))
EVEN = call_of((1, 8, 6, 1), (4, 2, 1, 1), stride=2)
BEYOND = call_of((2, 2, 3, 2), (5, 7, 2, 3), padding=((3, 4), (2, 3)), bias="untied")
NONE = call_of((0, 5, 5, 2), (3, 3, 2, 2))
DEPTHWISE = call_of((2, 7, 6, 4), (3, 3, 1, 8), groups=4, stride=2)
LONG = call_of((1, 700, 3), (9, 3, 16), dtype="bfloat16", padding="VALID")
DEEP = call_of((1, 4, 5, 4, 2), (3, 3, 3, 2, 3), bias="none", dtype="float64")


@pytest.mark.parametrize("fn", ALGORITHMS, ids=lambda fn: fn.__name__)
def test_against_the_oracle(fn: Any) -> None:
    taken = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],  # each step of shrinking would compile
    )
    @given(calls(**NARROW.get(fn.__name__, {})))
    @example(LARGE)
    @example(EVEN)
    @example(BEYOND)
    @example(NONE)
    @example(DEPTHWISE)
    @example(LONG)
    @example(DEEP)
    def fuzz(call: Call) -> None:
        taken.append(compare(fn, call))
        if not taken[-1]:
            reject()

    fuzz()
    assert sum(taken) >= EXAMPLES, f"{fn.__name__} refused {taken.count(False)} of {len(taken)}"
