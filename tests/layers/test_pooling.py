"""Pooling against its NumPy oracle: both forms, every window argument, ties, infinities, NaN."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.pool import rule as pool_rules
from tests.check import check, close
from tests.oracles import pooling as oracle

RNG = np.random.default_rng(0)
FORMS = ["", "_lax", "_slices"]
BOTH = ["_lax", "_slices"]
# One shape and one set of window arguments for every branch of the arithmetic and of the kernels.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "tiles": ((2, 6, 4, 3), {"window": 2}),
    "rest": ((2, 7, 5, 2), {"window": 2}),
    "overlap": ((1, 8, 7, 2), {"window": 3, "stride": 2, "padding": "SAME"}),
    "dilated": ((1, 8, 9, 2), {"window": (2, 3), "stride": 1, "padding": 2, "dilation": (3, 2)}),
    "stride over window": ((1, 9, 8, 2), {"window": 2, "stride": 3, "padding": ((1, 0), (0, 1))}),
    "ceil": ((1, 8, 6, 2), {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil tiles": ((1, 5, 2), {"window": 3, "stride": 2, "ceil_mode": True}),
    "by axes": ((1, 8, 9, 2), {"window": (6, 5), "stride": (2, 1), "padding": (2, 1)}),
    "1-D": ((2, 9, 3), {"window": 3, "stride": 1, "padding": 1}),
    "3-D": ((1, 4, 5, 4, 2), {"window": (2, 3, 2), "stride": (2, 1, 2), "padding": (0, 1, 1)}),
    "long": ((1, 40, 2), {"window": 20, "stride": 3, "padding": 4}),
}
cases = pytest.mark.parametrize(("shape", "config"), CASES.values(), ids=CASES.keys())
both = pytest.mark.parametrize("form", BOTH)
all_forms = pytest.mark.parametrize("form", FORMS)


def test_the_window_by_axes_is_large_enough() -> None:
    """Whatever the next sweep makes of the rule."""
    window = CASES["by axes"][1]["window"]
    kinds = pool_rules.LIMITS["cpu"].values()
    assert {pool_rules.choice(window, **limits) for limits in kinds} == {"by axes"}


def distinct(shape: tuple[int, ...]) -> np.ndarray:
    """A permutation: no two elements closer than the oracle's differences can cross."""
    return (RNG.permutation(int(np.prod(shape))).reshape(shape) / 7 - 3).astype(np.float32)


def ties(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.integers(0, 2, shape).astype(np.float32)


@functools.cache
def compiled_gradient(pool: Any, **config: Any) -> Any:
    return jax.jit(lambda x, ct: jax.vjp(lambda x: pool(x, **config), x)[1](ct)[0])


def gradient(pool: Any, x: np.ndarray, ct: np.ndarray, **config: Any) -> np.ndarray:
    return np.asarray(compiled_gradient(pool, **config)(x, ct))


@cases
@all_forms
def test_max(form: str, shape: tuple[int, ...], config: dict[str, Any]) -> None:
    check(getattr(fnn, "max_pool" + form), oracle.max_pool, distinct(shape), length=9, **config)


@cases
@all_forms
def test_sum(form: str, shape: tuple[int, ...], config: dict[str, Any]) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    check(getattr(fnn, "sum_pool" + form), oracle.sum_pool, x, length=40, **config)


@cases
@all_forms
@pytest.mark.parametrize("include", [True, False])
def test_average(include: bool, form: str, shape: tuple[int, ...], config: dict[str, Any]) -> None:
    x, config = (
        RNG.standard_normal(shape).astype(np.float32),
        config | {"count_include_pad": include},
    )
    check(getattr(fnn, "avg_pool" + form), oracle.avg_pool, x, length=40, **config)


@both
@pytest.mark.parametrize("window", [(3, 3), (6, 5)], ids=str)
@pytest.mark.parametrize("p", [1, 2, 2.5, 3])
def test_norm(p: float, window: tuple[int, int], form: str) -> None:
    x = RNG.standard_normal((1, 7, 6, 2)).astype(np.float32)
    config = {"window": window, "stride": 2, "padding": 1, "p": p}
    check(getattr(fnn, "lp_pool" + form), oracle.lp_pool, x, length=2 * math.prod(window), **config)


def test_norm_of_zeros_is_flat() -> None:
    config = {"window": 3, "stride": 2, "padding": 1}
    pools = (fnn.lp_pool_lax, fnn.lp_pool_slices)
    cts = RNG.uniform(1, 2, (4, 1, 4, 3, 2)).astype(np.float32)  # of one sign: nothing cancels

    @jax.jit
    def slopes(x: Any) -> Any:
        return [
            jax.vjp(functools.partial(f, p=p, **config), x)[1](ct)[0]
            for f in pools
            for p, ct in zip((1, 2, 2.5, 3), cts, strict=True)
        ]

    assert not np.any(slopes(np.zeros((1, 7, 6, 2), np.float32)))


@both
def test_min(form: str) -> None:
    shape, config = CASES["overlap"]
    check(getattr(fnn, "min_pool" + form), oracle.min_pool, distinct(shape), length=9, **config)


@cases
def test_C10_a_tie_goes_whole_to_the_first(shape: tuple[int, ...], config: dict[str, Any]) -> None:
    x = ties(shape)
    ct = RNG.integers(1, 9, oracle.max_pool(x, **config).shape).astype(np.float32)
    want = oracle.max_pool_gradient(x, ct=ct, **config)

    @jax.jit
    def gradients(x: Any, negative: Any, ct: Any) -> Any:
        largest, least = (
            [getattr(fnn, f"{name}_pool{form}") for form in BOTH] for name in ("max", "min")
        )
        pairs = [(f, x) for f in largest] + [(f, negative) for f in least]
        return [jax.vjp(functools.partial(f, **config), at)[1](ct)[0] for f, at in pairs]

    for got in gradients(x, -x, ct):
        np.testing.assert_array_equal(got, want)
    assert want.sum() == ct.sum()


@both
def test_padding_never_wins_and_nan_does(form: str) -> None:
    pool, (shape, config) = getattr(fnn, "max_pool" + form), CASES["ceil"]
    for value in (-np.inf, np.finfo(np.float32).min, np.inf, np.nan):
        x = np.full(shape, value, np.float32)
        np.testing.assert_array_equal(pool(x, **config), oracle.max_pool(x, **config))
        ct = np.ones(pool(x, **config).shape, np.float32)
        want = oracle.max_pool_gradient(x, ct=ct, **config)
        np.testing.assert_array_equal(gradient(pool, x, ct, **config), want)
    x = distinct(shape)
    x[0, 3, 2, 0], x[0, 4, 3, 0], x[0, 5, 5, 1] = np.nan, np.nan, -np.inf
    for name in ("max", "min", "sum", "avg"):
        got = getattr(fnn, f"{name}_pool{form}")(x, **config)
        close(got, getattr(oracle, f"{name}_pool")(x.astype(np.float64), **config), length=9)
    want = oracle.max_pool_gradient(x, ct=ct, **config)
    np.testing.assert_array_equal(gradient(pool, x, ct, **config), want)


@both
def test_a_nan_and_an_infinity_tie(form: str) -> None:
    """The maximum is NaN, and the gradient goes to the first of the two."""
    pool = getattr(fnn, "max_pool" + form)
    x = np.array([np.inf, np.nan, np.nan, np.inf], np.float32).reshape(1, 4, 1)
    assert np.isnan(pool(x, 2)).all()
    ct = np.ones((1, 2, 1), np.float32)
    np.testing.assert_array_equal(gradient(pool, x, ct, window=2).ravel(), [1, 0, 1, 0])
    for axis, regional in ((1, fnn.partition_pool), (None, fnn.global_max_pool)):
        config = {} if axis is None else {"blocks": ((0, 1), (2, 3))}
        got = gradient(regional, x, np.ones(regional(x, **config).shape, np.float32), **config)
        np.testing.assert_array_equal(got.ravel(), [1, 0, 0, 0] if axis is None else [1, 0, 1, 0])


@both
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32])
def test_integers(form: str, dtype: Any) -> None:
    shape, config = CASES["ceil"]
    info = np.iinfo(dtype)
    x = RNG.integers(info.min, info.max, shape, dtype, endpoint=True)
    x[0, :3, :3] = info.min
    x[0, -3:, -3:] = info.max
    small = (x // 16).astype(dtype) if info.bits == 8 else (x // 2**16).astype(dtype)

    @jax.jit
    def pooled(x: Any, small: Any) -> Any:
        at = {"max": x, "min": x, "sum": small, "avg": small}
        return {k: getattr(fnn, f"{k}_pool{form}")(v, **config) for k, v in at.items()}

    got = pooled(x, small)
    for name in ("max", "min"):
        assert got[name].dtype == dtype
        np.testing.assert_array_equal(got[name], getattr(oracle, f"{name}_pool")(x, **config))
    assert got["sum"].dtype == dtype
    wide = oracle.sum_pool(small.astype(np.int64), **config)
    np.testing.assert_array_equal(got["sum"], wide.astype(dtype))
    mean = got["avg"]
    assert mean.dtype == jnp.float32
    close(mean, oracle.avg_pool(small.astype(np.float64), **config), length=9)


@both
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_half_precision_sums_in_float32(form: str, dtype: Any) -> None:
    x = np.ones((1, 64, 64, 1), dtype)
    x[0, 0, 0, 0] = 512
    config = {"window": 16, "stride": 8}
    want = oracle.avg_pool(np.asarray(x, np.float64), **config)
    close(getattr(fnn, f"avg_pool{form}")(x, **config), want)
    ones = np.ones((1, 64, 1), dtype)
    ct = np.full((1, 64, 1), 1 / 256, dtype)
    ct[0, 20] = 8
    for name in ("max", "sum"):  # small cotangents under a large one
        pool = getattr(fnn, f"{name}_pool{form}")
        got = gradient(pool, ones, ct, window=9, stride=1, padding=4)
        single = np.ones(ones.shape, np.float32), np.asarray(ct, np.float32)
        close(got, gradient(pool, *single, window=9, stride=1, padding=4))


@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "lp_pool"])
@both
def test_second_derivatives_and_dilation(name: str, form: str) -> None:
    """Forward over reverse and reverse over reverse, against differences along a direction."""
    config = {"window": 2, "stride": 1, "padding": 1, "dilation": 3}
    config |= {"p": 3} if name == "lp_pool" else {}
    step = 1e-5
    with jax.enable_x64(True):
        x = distinct((1, 5, 4, 1)).astype(np.float64) + 0.05  # away from the kink at 0
        u = RNG.standard_normal(x.shape)
        slope = jax.grad(lambda x: (getattr(fnn, name + form)(x, **config) ** 2).sum())

        @jax.jit
        def results(x: Any, u: Any) -> Any:
            beside = jax.vmap(lambda t: slope(x + t * u))(jnp.array([-step, step]))
            along = jax.grad(lambda x: (slope(x) * u).sum())(x)
            return (beside[1] - beside[0]) / (2 * step), jax.jvp(slope, (x,), (u,))[1], along

        want, *got = results(x, u)
    for twice in got:
        np.testing.assert_allclose(twice, want, rtol=0, atol=1e-7 * np.abs(want).max())


@pytest.mark.parametrize("shape", [(2, 7, 2), (2, 7, 5, 2), (1, 3, 4, 5, 2)], ids=["1", "2", "3"])
def test_global(shape: tuple[int, ...]) -> None:
    every = [[range(i)] for i in shape[1:-1]]
    x = distinct(shape)
    for name, reduce in (("max", np.max), ("min", np.min), ("avg", np.mean)):

        def want(x: np.ndarray, reduce: Any = reduce) -> np.ndarray:
            return oracle.by_blocks(x, every, lambda seen: reduce(seen, 0)).reshape(len(x), -1)

        pool = getattr(fnn, f"global_{name}_pool")
        check(pool, want, x, length=60)
        assert pool(np.ones(shape, np.int32)).dtype == (jnp.float32 if name == "avg" else jnp.int32)
    tied = gradient(fnn.global_max_pool, np.ones(shape), np.ones((shape[0], shape[-1])))
    assert tied.sum() == tied.reshape(shape[0], -1, shape[-1])[:, 0].sum() == shape[0] * shape[-1]


@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((2, 7, 2), 3),
        ((2, 3, 2), 5),
        ((1, 7, 6, 2), (3, 4)),
        ((1, 8, 6, 2), (4, 3)),
        ((1, 5, 4, 3, 2), 2),
    ],
)
def test_adaptive(shape: tuple[int, ...], out: Any) -> None:
    sizes = (out,) * (len(shape) - 2) if isinstance(out, int) else out
    blocks = [oracle.shares(i, o) for i, o in zip(shape[1:-1], sizes, strict=True)]
    for name, reduce in (("max", np.max), ("avg", np.mean)):

        def want(x: np.ndarray, out: Any, reduce: Any = reduce) -> np.ndarray:
            return oracle.by_blocks(x, blocks, lambda seen: reduce(seen, 0))

        check(getattr(fnn, f"adaptive_{name}_pool"), want, distinct(shape), length=30, out=out)


def test_partition() -> None:
    blocks = ((4, 0), (1,), (6, 2, 3), (5, 7))
    for reduce, judge in (("max", np.max), ("min", np.min), ("avg", np.mean)):
        for axis in (0, 1) if reduce == "max" else (-1,):
            x = distinct((8, 8, 8))

            def want(x: np.ndarray, axis: int = axis, judge: Any = judge, **_: Any) -> np.ndarray:
                seen = np.moveaxis(x, axis, 0)
                return np.moveaxis(np.array([judge(seen[list(b)], 0) for b in blocks]), 0, axis)

            config = {"blocks": blocks, "reduce": reduce, "axis": axis}
            check(fnn.partition_pool, want, x, length=3, batch=axis != 0, **config)
    tied = gradient(fnn.partition_pool, np.ones((1, 8)), np.ones((1, 4)), blocks=blocks)
    np.testing.assert_array_equal(tied, [[0, 1, 0, 0, 1, 1, 1, 0]])


X = jnp.zeros((1, 5, 5, 1))
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("max_pool", {"window": 6}, r"fnn.max_pool: window: got \(6, 6\)"),
    ("avg_pool", {"window": 2, "stride": 0}, "fnn.avg_pool: stride: got 0"),
    ("sum_pool", {"window": (2, 2, 2)}, "fnn.sum_pool: window"),
    ("max_pool", {"window": "2"}, "fnn.max_pool: window"),
    ("max_pool", {"window": 2, "padding": 2}, "fnn.max_pool: padding: got 2 .* every window must"),
    ("max_pool_lax", {"window": 2, "padding": 2}, "fnn.max_pool_lax: padding"),
    ("min_pool", {"window": 2, "padding": "SAME", "dilation": 9}, "fnn.min_pool: padding"),
    ("avg_pool", {"window": 2, "padding": 2, "count_include_pad": False}, "fnn.avg_pool: padding"),
    ("lp_pool", {"window": 2, "p": 0.5}, "fnn.lp_pool: p: got 0.5"),
    ("lp_pool", {"window": 2, "p": float("inf")}, "fnn.lp_pool: p: got inf"),
    ("adaptive_max_pool", {"out": 0}, "fnn.adaptive_max_pool: out: got 0"),
    ("partition_pool", {"blocks": ((0, 1), (1, 2, 3, 4))}, "blocks: got index 1 2 times"),
    ("partition_pool", {"blocks": ((0, 1), (2, 4))}, "blocks: got index 3 0 times"),
    ("partition_pool", {"blocks": ((0, 1, 2, 3, 4), ())}, "blocks: got an empty block"),
    ("partition_pool", {"blocks": ((0, 1, 2, 3, 5),)}, "blocks: got index 5"),
    ("partition_pool", {"blocks": ((0,),), "axis": 4}, "axis: got 4"),
    (
        "partition_pool",
        {"blocks": ((0, 1, 2, 3, 4),), "reduce": "mean"},
        "got 'mean'; needed .*'avg'",
    ),
]


@pytest.mark.parametrize(("name", "config", "message"), WRONG)
def test_wrong_calls(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(fnn, name)(X, **config)


def test_wrong_inputs() -> None:
    with pytest.raises(ValueError, match=r"fnn.max_pool: x: got float32\[5,5\]"):
        fnn.max_pool(X[0, :, :, 0], 2)
    with pytest.raises(TypeError, match=r"fnn.avg_pool: x: got bool"):
        fnn.avg_pool(X > 0, 2)
    with pytest.raises(ValueError, match=r"fnn.global_max_pool: x"):
        fnn.global_max_pool(X[:, :0])


def test_sums_where_padding_holds_a_window() -> None:
    x = np.ones((1, 3, 1), np.float32)
    assert fnn.sum_pool(x, 2, stride=1, padding=2).ravel().tolist() == [0, 1, 2, 2, 1, 0]
    assert fnn.avg_pool(x, 2, stride=1, padding=2).ravel().tolist() == [0, 0.5, 1, 1, 0.5, 0]


def test_gradient_holds_no_scatter() -> None:
    """The slices' gradient is one program of slices, pads and selects."""
    text = str(jax.make_jaxpr(jax.grad(lambda x: fnn.max_pool(x, 3, stride=2).sum()))(X))
    assert "scatter" not in text
    assert "gather" not in text
