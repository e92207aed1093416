"""Convolution in exported programs: a symbol for the number of examples, and other platforms."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fnn
from tests.check import close
from tests.layers.test_conv import normal

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
W = (3, 3, 2, 4)
CALLS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "conv": (lambda x, w: fnn.conv(x, w, stride=2), W),
    "depthwise": (lambda x, w: fnn.conv(x, w, groups=2), (3, 3, 1, 4)),
    "deep": (lambda x, w: fnn.conv(jnp.concatenate([x] * 64, -1), w), (3, 3, 128, 128)),
    "circular": (lambda x, w: fnn.conv(x, w, padding_mode="circular"), W),
    "lax": (fnn.conv_lax, W),
    "taps": (fnn.conv_taps, W),
    "fft": (fnn.conv_fft, W),
    "convolve": (fnn.convolve, W),
    "transposed": (
        lambda x, w: fnn.conv_transpose(x, w, stride=2, padding=1, padding_mode="reflect"),
        (3, 3, 5, 2),
    ),
    "mapped": (lambda x, w: jax.vmap(fnn.conv, (None, -1))(x, jnp.stack([w, 2 * w], -1)), W),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_number_of_examples(name: str) -> None:
    """One exported program, for all platforms: value and gradients for 1 and 3 examples."""
    fn, shape = CALLS[name]
    w, xs = normal(shape)[0], normal((1, 5, 6, 2), (3, 5, 6, 2))

    def run(x: Any, w: Any) -> Any:
        y, pull = jax.vjp(fn, x, w)
        return y, *pull(y)

    (n,) = export.symbolic_shape("n")
    like = jax.ShapeDtypeStruct((n, 5, 6, 2), jnp.float32)
    program = export.export(jax.jit(run), platforms=PLATFORMS)(like, w)
    assert program.platforms == PLATFORMS
    both = jax.jit(lambda xs, w: [(program.call(x, w), run(x, w)) for x in xs])
    for exported, plain in both(xs, w):
        for got, want in zip(exported, plain, strict=True):
            close(got, want, length=4000)


HEIGHTS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plain": (fnn.conv, W),
    "lax": (fnn.conv_lax, W),
    "stride": (functools.partial(fnn.conv, stride=2), W),
    "longer stride": (functools.partial(fnn.conv, stride=(4, 1)), (2, 3, 2, 4)),
    "one tap": (functools.partial(fnn.conv, stride=3), (1, 1, 2, 4)),
    "dilation": (functools.partial(fnn.conv, stride=3, dilation=2), W),
    "padding": (functools.partial(fnn.conv, stride=2, padding=1), W),
    "groups": (functools.partial(fnn.conv, stride=2, groups=2), (3, 3, 1, 4)),
    "convolve": (functools.partial(fnn.convolve, stride=2, padding=2), W),
}


@pytest.mark.parametrize("name", HEIGHTS)
def test_any_height(name: str) -> None:
    """A symbol for a spatial size too, for `fnn.conv` and the library's: value and gradients."""
    fn, shape = HEIGHTS[name]
    w, *xs = normal(shape, *((1, height, 6, 2) for height in (1, 4, 5)))
    (h,) = export.symbolic_shape("h")

    def run(x: Any, w: Any) -> Any:
        y, pull = jax.vjp(fn, x, w)
        return y, *pull(y)

    like = jax.ShapeDtypeStruct((1, h, 6, 2), jnp.float32)
    program = export.export(jax.jit(run), platforms=PLATFORMS)(like, w)
    both = jax.jit(lambda xs, w: [(program.call(x, w), run(x, w)) for x in xs])
    for exported, plain in both(xs, w):
        for got, want in zip(exported, plain, strict=True):
            close(got, want, length=540)


def test_any_height_of_a_transpose() -> None:
    (w,), (h,) = normal((4, 4, 3, 2)), export.symbolic_shape("h")
    fn = functools.partial(fnn.conv_transpose, stride=2, padding=1)
    program = export.export(jax.jit(fn))(jax.ShapeDtypeStruct((1, h, 6, 2), jnp.float32), w)
    (x,) = normal((1, 5, 6, 2))
    close(program.call(x, w), fn(x, w), length=32)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_a_height_that_is_padded_by_itself_must_be_a_number(mode: str) -> None:
    (w,), (h,) = normal(W), export.symbolic_shape("h")
    fn = jax.jit(functools.partial(fnn.conv, padding_mode=mode))
    said = rf"fnn\.conv: padding_mode: got '{mode}'; needed \"zeros\" .* a symbol, h"
    with pytest.raises(ValueError, match=said):
        export.export(fn)(jax.ShapeDtypeStruct((1, h, 6, 2), jnp.float32), w)


@pytest.mark.parametrize("fn", [fnn.conv_taps, fnn.conv_fft])
def test_a_height_that_must_be_a_number(fn: Any) -> None:
    (h,) = export.symbolic_shape("h")
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((1, h, 6, 2), W))
    said = rf"fnn\.{fn.__name__}: x, w: got float32\[1,h,6,2\], .*; needed sizes .* but for that of"
    with pytest.raises(ValueError, match=said):
        export.export(jax.jit(fn))(x, w)


@pytest.mark.parametrize("fn", [fnn.conv_im2col, fnn.conv_winograd, fnn.conv_winograd2])
def test_what_needs_a_number_says_so(fn: Any) -> None:
    (n,) = export.symbolic_shape("n")
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, 5, 6, 2), W))
    said = rf"fnn\.{fn.__name__}: x, w: got float32\[n,5,6,2\], .*; needed sizes that are numbers"
    with pytest.raises(ValueError, match=said):
        export.export(jax.jit(fn))(x, w)


def test_every_algorithm_is_lowered_for_every_platform() -> None:
    """With the rule of each: that of the CPU is not taken elsewhere."""
    x, w = normal((2, 5, 6, 2), W)
    every = [fnn.conv, fnn.conv_im2col, fnn.conv_winograd, fnn.conv_winograd2, fnn.conv_transpose]

    @jax.jit
    def run(x: Any, w: Any) -> Any:
        return [fn(x, jnp.swapaxes(w, 2, 3) if fn is fnn.conv_transpose else w) for fn in every]

    program = export.export(run, platforms=PLATFORMS)(x, w)
    for got, want in zip(program.call(x, w), run(x, w), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_platform_without_a_rule_takes_the_library() -> None:
    """As lowered for one whose name is not known here; nothing runs."""
    x, w = normal((2, 5, 6, 2), W)
    run = lambda x, w: jax.vjp(fnn.conv, x, w)[1](fnn.conv(x, w))
    text = jax.jit(run).trace(x, w).lower(lowering_platforms=("xpu",)).as_text()
    assert text.count("stablehlo.convolution") == 3
