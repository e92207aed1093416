"""The rules of precision, each over all functions of arrays that it concerns."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.dtypes import accumulator, magnitude
from tests.check import HALF, close


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.float16, "float32"),
        (jnp.bfloat16, "float32"),
        (jnp.float8_e4m3fn, "float32"),
        (jnp.float32, "float32"),
        (jnp.float64, "float64"),
        (jnp.int8, "int8"),
        (jnp.bool_, "bool"),
        (jnp.complex64, "complex64"),
    ],
)
def test_sums_of_narrow_floats_alone_are_formed_in_another_dtype(dtype: object, wide: str) -> None:
    assert accumulator(dtype) == accumulator(jnp.dtype(dtype)) == jnp.dtype(wide)


# Parameters that are broadcast: their gradients are sums over all places.

PLACES = 8192  # a sum of so many ones ends at 256 in bfloat16, and at 2048 in float16
SIGNS = np.tile([1.0, -1.0], PLACES // 2)
ONE, ZERO = np.ones(1), np.zeros(1)


class Broadcast(NamedTuple):
    """A layer of parameters p, and the input for which every entry of p should get 8192."""

    name: str
    layer: Callable[..., Any]
    x: Any
    params: tuple[Any, ...]


normed = SIGNS.reshape(-1, 2, 1)  # of mean 0 and variance 1 along every axis of 2
pairs = SIGNS.reshape(-1, 2)
BROADCAST = [
    Broadcast("dense", lambda x, b: fnn.dense(x, jnp.ones_like(x[:1]), b), pairs[:, :1], (ZERO,)),
    Broadcast("dense w", fnn.dense, SIGNS[:, None], (np.ones((1, 1)),)),
    Broadcast("prelu", fnn.prelu, -np.ones((PLACES, 1)), (ONE,)),
    Broadcast("embed", lambda x, t: fnn.embed(jnp.zeros(PLACES, int), t), SIGNS[:, None],
              (np.ones((1, 1)),)),
    Broadcast("batch_norm", lambda x, s, b: fnn.batch_norm(x, s, b, *fnn.batch_stats(x)),
              normed, (ONE, ZERO)),
    Broadcast("instance_norm", fnn.instance_norm, normed, (ONE, ZERO)),
    Broadcast("group_norm", partial(fnn.group_norm, groups=1), normed, (ONE, ZERO)),
    Broadcast("standardize", lambda x, m: fnn.standardize(x, -m, jnp.ones_like(m)),
              SIGNS[:, None], (ZERO,)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("row", BROADCAST, ids=lambda row: row.name)
def test_gradients_of_broadcast_parameters_are_summed_in_float32(
    row: Broadcast, dtype: Any
) -> None:
    x = jnp.asarray(row.x, dtype)

    def loss(*params: Any) -> Any:
        y = row.layer(x, *params).astype(jnp.float32)
        weight = x if row.name in ("dense w", "prelu") else x + 1
        return (y * weight.astype(jnp.float32)).sum()

    params = [jnp.asarray(p, dtype) for p in row.params]
    for gradient in jax.jit(jax.grad(loss, tuple(range(len(params)))))(*params):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient.astype(jnp.float32), PLACES)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_norms_over_features_sum_the_gradients_of_scale_and_bias_in_float32(dtype: Any) -> None:
    x = jnp.asarray(pairs, dtype)

    def loss(scale: Any, bias: Any) -> Any:
        y = fnn.layer_norm(x, scale, bias) + fnn.rms_norm(x, scale)
        return (y.astype(jnp.float32) * (x + 1).astype(jnp.float32)).sum()

    scale, bias = jax.jit(jax.grad(loss, (0, 1)))(jnp.ones(2, dtype), jnp.zeros(2, dtype))
    assert scale.tolist() == [2 * PLACES, 0]  # of two norms; x + 1 is 0 for the second feature
    assert bias.tolist() == [PLACES, 0]


# Numbers that configure a function.


class Number(NamedTuple):
    """A function of x with one of its numbers by name, and values that it may have."""

    name: str
    argument: str
    call: Callable[..., Any]
    values: tuple[float, ...]


def channels(x: Any) -> Any:
    return jnp.full(x.shape[-1:], 0.5, x.dtype)


def stats(factor: float, x: Any) -> fnn.BatchStats:
    return fnn.batch_stats(x * jnp.asarray(factor, x.dtype))


KEY = jax.random.key(0)
NUMBERS = [
    *(
        Number(fn.__name__, argument, fn, values)
        for fn, argument, values in (
            (fnn.leaky_relu, "negative_slope", (0.0, 0.1, 1.5)),
            (fnn.elu, "alpha", (0.0, 0.3, 2.0)),
            (fnn.celu, "alpha", (0.1, 0.3, 2.0)),
            (fnn.softplus, "beta", (0.1, 1.0, 20.0)),
            (fnn.squareplus, "b", (0.1, 1.0, 20.0)),
            (fnn.hard_tanh, "low", (-2.0, -1.0, 0.5)),
            (fnn.hard_tanh, "high", (-0.5, 1.0, 2.0)),
        )
    ),
    Number("dropout", "rate", lambda x, rate: fnn.dropout(x, rate, KEY), (0.0, 0.1, 0.9)),
    Number("layer_norm", "eps", lambda x, eps: fnn.layer_norm(x, channels(x), eps=eps),
           (1e-6, 0.1, 2.0)),
    Number("rms_norm", "eps", lambda x, eps: fnn.rms_norm(x, channels(x), eps=eps),
           (0.0, 0.1, 2.0)),
    Number("group_norm", "eps",
           lambda x, eps: fnn.group_norm(x, channels(x), groups=2, eps=eps), (1e-6, 0.1, 2.0)),
    Number("instance_norm", "eps", lambda x, eps: fnn.instance_norm(x, channels(x), eps=eps),
           (1e-6, 0.1, 2.0)),
    Number("batch_norm", "eps",
           lambda x, eps: fnn.batch_norm(x, *[channels(x)] * 4, eps=eps), (0.0, 0.1, 2.0)),
    Number("running_stats", "decay",
           lambda x, decay: fnn.running_stats(stats(1, x), stats(2, x), decay=decay),
           (0.0, 0.9, 1.0)),
    Number("running_stats", "count",
           lambda x, count: fnn.running_stats(stats(1, x), stats(2, x), count=count),
           (2.0, 5.0, 1e4)),
]  # fmt: skip
X = np.random.default_rng(0).standard_normal((3, 2, 4))


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: f"{row.name} {row.argument}")
def test_a_number_may_be_traced_and_never_changes_a_dtype(row: Number) -> None:
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            x = jnp.asarray(X, dtype)

            def call(value: Any, x: Any = x) -> Any:
                return row.call(x, **{row.argument: value})

            kinds = [np.float64, np.float32, np.float16, jnp.float32, jnp.bfloat16, np.asarray]
            wanted = jax.eval_shape(lambda call=call: call(row.values[1]))
            for kind in kinds:
                value = kind(row.values[1])
                assert jax.eval_shape(lambda call=call, v=value: call(v)) == wanted
            assert jax.eval_shape(call, jnp.float64(row.values[1])) == wanted
        single = jnp.asarray(X, jnp.float32)
        values = jnp.asarray(row.values, jnp.float32)
        sweep = jax.jit(jax.vmap(lambda v: row.call(single, **{row.argument: v})))(values)
        for place, value in enumerate(row.values):
            known = row.call(single, **{row.argument: value})
            for got, want in zip(jax.tree.leaves(sweep), jax.tree.leaves(known), strict=True):
                close(got[place], want, length=8)


def test_the_gradient_of_a_number_is_summed_in_float32() -> None:
    rows = NUMBERS[:6]  # the activations

    def total(value: Any, x: Any, row: Number) -> Any:
        return row.call(x, **{row.argument: value}).astype(jnp.float32).sum()

    @jax.jit
    def gradients(x: Any) -> Any:
        return [[jax.grad(total)(row.values[1], a, row) for a in (x, x[:1])] for row in rows]

    x = jnp.full(PLACES, -1.5, jnp.bfloat16)
    for row, (many, one) in zip(rows, gradients(x), strict=True):
        assert one != 0
        np.testing.assert_allclose(many, PLACES * one, rtol=1e-3, err_msg=row.name)


# Integers where real numbers are needed.


def ones(x: Any) -> Any:
    return jnp.ones(x.shape[-1:])


REAL: list[Callable[..., Any]] = [
    *(fnn.identity, fnn.sign, fnn.unit_step, fnn.relu, fnn.leaky_relu, fnn.relu6, fnn.hard_tanh),
    *(fnn.piecewise_linear, fnn.hard_sigmoid, fnn.hard_swish, fnn.softsign, fnn.sigmoid, fnn.tanh),
    *(fnn.softplus, fnn.log_sigmoid, fnn.squareplus, fnn.elu, fnn.celu, fnn.selu, fnn.silu),
    *(fnn.gelu, fnn.mish, fnn.glu, fnn.softmax, fnn.log_softmax, fnn.logsumexp),
    *(fnn.batch_stats, fnn.fit_standardize, partial(fnn.dropout, rate=0.5, key=KEY)),
    lambda x: fnn.prelu(x, ones(x)),
    lambda x: fnn.layer_norm(x, ones(x), ones(x)),
    lambda x: fnn.rms_norm(x, ones(x)),
    lambda x: fnn.group_norm(x, ones(x), groups=1),
    lambda x: fnn.instance_norm(x, ones(x)),
    lambda x: fnn.batch_norm(x, *[ones(x)] * 4),
    lambda x: fnn.standardize(x, ones(x), ones(x)),
    lambda x: fnn.spectral_norm(x, ones(x))[0],
    lambda x: fnn.dense(x, jnp.ones((x.shape[-1], 3))),
]


@pytest.mark.parametrize("x64", [False, True])
def test_integers_and_bools_are_read_in_the_default_float_dtype(x64: bool) -> None:
    with jax.enable_x64(x64):
        whole = [jnp.arange(-4, 8).reshape(2, 3, 2)]
        whole += [jnp.asarray(whole[0] > 0)]

        @jax.jit
        def results(whole: Any) -> Any:
            reals = [x.astype(float) for x in whole]
            return [[[fn(x) for fn in REAL] for x in xs] for xs in (whole, reals)]

        got, want = results(whole)
        jax.tree.map(np.testing.assert_array_equal, got, want)
        dtypes = {a.dtype for a in jax.tree.leaves(got)}
        assert dtypes == {jnp.dtype("float64" if x64 else "float32")}


# Axes of size 0.


def each_empty(x: tuple[int, ...], *channels: tuple[int, ...]) -> Any:
    """The shapes with each axis of x in turn of size 0, its last one in all of them."""
    for axis in range(len(x)):
        shape = tuple(0 if i == axis else n for i, n in enumerate(x))
        yield (shape, *(shape[-1:] for _ in channels))


CASES: list[tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = [
    *((fn, shapes) for fn in REAL[:26] for shapes in each_empty((2, 4))),
    *((fnn.flatten, shapes) for shapes in each_empty((3, 2, 2))),
    *((partial(fnn.dropout, rate=0.5, key=KEY), shapes) for shapes in each_empty((3, 2))),
    *((fnn.prelu, shapes) for shapes in each_empty((3, 2), (2,))),
    *((fnn.layer_norm, shapes) for shapes in each_empty((3, 2, 4), (4,), (4,))),
    *((fnn.rms_norm, shapes) for shapes in each_empty((3, 2, 4), (4,))),
    *((partial(fnn.group_norm, groups=2), s) for s in each_empty((3, 2, 4), (4,), (4,))),
    *((fnn.instance_norm, s) for s in each_empty((3, 2, 4), (4,), (4,))),
    *((fnn.batch_norm, s) for s in each_empty((3, 2, 4), *[(4,)] * 4)),
    *((fnn.standardize, s) for s in each_empty((3, 2, 4), (4,), (4,))),
    (fnn.batch_stats, ((3, 2, 0),)),  # they refuse other axes of size 0
    (fnn.fit_standardize, ((3, 2, 0),)),
    *((lambda w, u: fnn.spectral_norm(w, u)[0], s) for s in each_empty((3, 2, 4), (4,))),
    (fnn.dense, ((0, 3), (3, 4), (4,))),
    (fnn.dense, ((2, 0), (0, 4), (4,))),
    (fnn.dense, ((2, 3), (3, 0), (0,))),
    (lambda table: fnn.embed(jnp.zeros((0, 2), int), table), ((3, 4),)),
    (lambda table: fnn.embed(jnp.zeros((2, 2), int), table), ((3, 0),)),
]


def test_every_axis_may_be_empty() -> None:
    """Values and gradients of all, compiled once; a gradient over no example is 0."""

    @jax.jit
    def results(args: Any) -> Any:
        out = []
        for (fn, _), one in zip(CASES, args, strict=True):
            total = lambda *a, fn=fn: sum(jnp.sum(y) for y in jax.tree.leaves(fn(*a)))
            places = tuple(range(len(one)))
            out.append((fn(*one), jax.grad(total, places)(*one), jax.vmap(fn)(*none(one))))
        return out

    def none(args: Any) -> Any:
        return [jnp.zeros((0, *a.shape)) for a in args]

    args = [[jnp.ones(shape) for shape in shapes] for _, shapes in CASES]
    for (fn, shapes), (value, gradients, mapped) in zip(CASES, results(args), strict=True):
        for y, z in zip(jax.tree.leaves(value), jax.tree.leaves(mapped), strict=True):
            assert z.shape == (0, *y.shape), (fn, shapes)
            assert not np.isnan(y).any(), (fn, shapes)
        for gradient, shape in zip(gradients, shapes, strict=True):
            assert gradient.shape == shape
            assert np.isfinite(gradient).all(), (fn, shapes)


# Numbers at the ends. Last, as what stands after it would be optimized too.


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dividing_by_the_magnitude_rounds_nothing(dtype: Any) -> None:
    info = np.finfo(dtype)
    tops = np.array([info.max, 11, 3.7, 1.0, 1e-3, 16 * info.tiny], dtype)
    rest = np.array([1.1, 0.9, -0.3, 1e-3, 0.7, 0.5], dtype) / 2
    x = np.stack([tops, tops * rest])

    @jax.jit
    def divided(x: Any) -> Any:
        unit = magnitude(x, 0)
        return unit, x / unit

    with jax.enable_x64(True):
        unit, scaled = map(np.asarray, divided(x))
    np.testing.assert_array_equal(scaled * unit, x)
    zero = jnp.zeros((2, 3))
    mantissa, _ = np.frexp(unit)
    assert (mantissa == 0.5).all()
    assert (np.abs(scaled).max(0) <= 12).all()
    assert (np.abs(scaled).max(0) >= 6).all()
    assert not np.any(zero / magnitude(zero))
    assert magnitude(jnp.zeros((2, 0), np.float32)).shape == (1, 1)
