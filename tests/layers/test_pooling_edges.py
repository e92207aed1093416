"""Pooling at its edges: half precision, zero sizes, indices, wrong calls.

Every test crosses all functions of pooling, by every algorithm.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fnn
from tests.check import HALF, close, tolerance
from tests.oracles import pooling as oracle

RNG = np.random.default_rng(0)
KINDS = ("max", "min", "sum", "avg", "lp")
FORMS = ("_slices", "_lax")
forms = pytest.mark.parametrize("form", FORMS)
BLOCKS = ((0, 2), (1,), (3, 4, 5))
REGIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "global max": (fnn.global_max_pool, {}),
    "global min": (fnn.global_min_pool, {}),
    "global avg": (fnn.global_avg_pool, {}),
    "adaptive max": (fnn.adaptive_max_pool, {"out": 4}),
    "adaptive avg": (fnn.adaptive_avg_pool, {"out": 4}),
    "adaptive max, equal": (fnn.adaptive_max_pool, {"out": 3}),
    "adaptive avg, equal": (fnn.adaptive_avg_pool, {"out": 3}),
    "partition max": (fnn.partition_pool, {"blocks": BLOCKS}),
    "partition min": (fnn.partition_pool, {"blocks": BLOCKS, "reduce": "min"}),
    "partition avg": (fnn.partition_pool, {"blocks": BLOCKS, "reduce": "avg"}),
}


def pools(**config: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Every pool by every algorithm, with these arguments."""
    return {
        kind + form: (
            getattr(fnn, f"{kind}_pool{form}"),
            config | ({"p": 3} if kind == "lp" else {}),
        )
        for kind in KINDS
        for form in FORMS
    }


def value_and_gradient(pool: Any, config: dict[str, Any], x: Any, ct: Any = None) -> Any:
    """The value, and the gradient for this cotangent, by default ones."""
    y, back = jax.vjp(lambda x: pool(x, **config), x)
    return y, back(jnp.ones_like(y) if ct is None else ct)[0]


def both(rows: Sequence[tuple[Any, dict[str, Any]]], *arrays: Any) -> list[tuple[Any, Any]]:
    """Values and gradients of pools with their arguments, for the same arrays: one program."""
    return jax.jit(lambda *a: [value_and_gradient(*row, *a) for row in rows])(*arrays)


def test_gradients_in_half_precision_are_summed_in_float32() -> None:
    """Where windows overlap: every entry is a sum of cotangents, and is rounded once."""
    by_axes = pools(window=(6, 5), stride=1, padding="SAME")
    at_once = pools(window=3, stride=1, padding=1)
    rows = [*by_axes.values(), *(at_once[f"{kind}_slices"] for kind in ("max", "avg", "lp"))]
    rows += [(fnn.adaptive_max_pool, {"out": 11})]
    cases = [(row, dtype) for row in rows for dtype in HALF]
    pairs = []
    for (pool, config), dtype in cases:
        x = (1 + RNG.permutation(144)).reshape(1, 12, 12, 1).astype(dtype)
        out = jax.eval_shape(partial(pool, **config), x)
        pairs.append((x, RNG.uniform(0, 1, out.shape).astype(dtype)))
    wide = [[a.astype(np.float32) for a in pair] for pair in pairs]

    @jax.jit
    def gradients(pairs: Any) -> Any:
        return [value_and_gradient(*row, *pair)[1]
                for (row, _), pair in zip(cases, pairs, strict=True)]  # fmt: skip

    for (_, dtype), got, want in zip(cases, gradients(pairs), gradients(wide), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(*np.float64((got, want)), tolerance(dtype))


SIZES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "no examples": ((0, 6, 6, 2), {"window": 2}),
    "no examples, by axes": ((0, 6, 6, 2), {"window": (6, 5), "padding": "SAME"}),
    "no channels": ((2, 6, 6, 0), {"window": 3, "stride": 2, "padding": 1}),
    "no places": ((2, 0, 6, 2), {"window": 3, "stride": 2, "padding": "SAME"}),
}


@pytest.mark.parametrize(("shape", "config"), SIZES.values(), ids=SIZES.keys())
def test_zero_sizes(shape: tuple[int, ...], config: dict[str, Any]) -> None:
    named = pools(**config) | (REGIONS if 0 not in shape[1:-1] else {})
    many = config == {"window": 2}

    def restored(x: Any) -> Any:
        indices = fnn.max_pool_indices(x, **config)
        return fnn.max_unpool(fnn.max_pool(x, **config), indices, shape[1:-1])

    @jax.jit
    def results(x: Any, none: Any) -> Any:
        """Of every pool, and of every pool mapped over no arrays at all."""
        each = [partial(value_and_gradient, *row) for row in named.values()]
        return [f(x) for f in each], [jax.vmap(f)(none)[1] for f in each if many], restored(x)

    zeros, none = np.zeros(shape, np.float32), np.zeros((0, 2, *shape[1:]), np.float32)
    own, of_none, back = results(zeros, none)
    for y, got in own:
        assert y.size == 0
        assert got.shape == shape
    assert all(got.shape == none.shape for got in of_none)
    assert back.shape == shape


def test_indices_are_found_inside_a_derivative() -> None:
    x = RNG.permutation(16).reshape(1, 4, 4, 1).astype(np.float32)

    def kept(x: Any) -> Any:
        return fnn.max_unpool(fnn.max_pool(x, 2), fnn.max_pool_indices(x, 2), (4, 4))

    y, pull = jax.vjp(kept, x)
    np.testing.assert_array_equal(pull(2 * jnp.ones_like(y))[0], np.where(y != 0, 2, 0))
    indices, tangent = jax.jvp(lambda x: fnn.max_pool_indices(x, 2), (x,), (x,))
    assert (indices.shape, tangent.dtype) == ((1, 2, 2, 1), jax.dtypes.float0)


def test_an_axis_of_nothing_has_a_partition_of_nothing() -> None:
    assert fnn.partition_pool(jnp.zeros((2, 0, 3)), ()).shape == (2, 0, 3)


def test_an_input_of_padding_alone_sums_to_0() -> None:
    named = pools(window=2, stride=1, padding=2)
    rows = [named[kind + form] for form in FORMS for kind in ("sum", "avg", "lp")]
    for y, got in both(rows, np.zeros((2, 0, 1), np.float32)):
        np.testing.assert_array_equal(y, np.zeros((2, 3, 1)))
        assert got.shape == (2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
@forms
def test_ceil_mode_of_a_window_larger_than_the_input(kind: str, form: str) -> None:
    """PyTorch's rule, ``ceil((i + lo + hi - span) / s) + 1``, gives one stop of the default stride.

    Of 3 elements with 5 taps: ceil(-2 / 5) + 1 = 1, but with stride 2: ceil(-2 / 2) + 1 = 0.
    """
    x = RNG.standard_normal((1, 3, 2)).astype(np.float32)
    pool, told = pools(window=5, ceil_mode=True)[kind + form]
    want = getattr(oracle, f"{kind}_pool")(x.astype(np.float64), **told)
    assert want.shape == (1, 1, 2)
    close(pool(x, **told), want, length=3)
    if kind == "avg":  # what ceil_mode adds does not count
        close(pool(x, **told), x.astype(np.float64).mean(1, keepdims=True), length=3)
    with pytest.raises(ValueError, match=rf"fnn.{kind}_pool{form}: window: got \(5,\)"):
        pool(x, **told, stride=2)


INDEXED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "tiles": ((2, 6, 4, 3), {"window": 2}),
    "overlap": ((1, 8, 7, 2), {"window": 3, "stride": 2, "padding": "SAME"}),
    "dilated": ((1, 9, 2), {"window": 2, "stride": 1, "padding": 2, "dilation": 3}),
    "ceil": ((1, 3, 4, 3, 1), {"window": 2, "ceil_mode": True}),
}


@pytest.mark.parametrize(("shape", "config"), INDEXED.values(), ids=INDEXED.keys())
def test_indices_lead_to_the_maxima_and_back(
    shape: tuple[int, ...], config: dict[str, Any]
) -> None:
    x = RNG.integers(0, 9, shape).astype(np.float32)
    x[0, 1, 1] = np.inf
    y, indices = fnn.max_pool(x, **config), np.asarray(fnn.max_pool_indices(x, **config))
    np.testing.assert_array_equal(indices, oracle.max_pool_indices(x, **config))
    flat = x.reshape(len(x), -1, shape[-1])
    taken = np.take_along_axis(flat, indices.reshape(len(x), -1, shape[-1]), 1)
    np.testing.assert_array_equal(taken.reshape(y.shape), y)
    values = RNG.standard_normal(y.shape).astype(np.float32)  # not equal where windows overlap
    sizes = shape[1:-1]
    ct = RNG.standard_normal(shape).astype(np.float32)
    basis = np.eye(values.size, dtype=np.float32).reshape(-1, *values.shape)
    want = [(oracle.max_unpool(e, indices, sizes) * ct).sum() for e in basis]
    unpool = lambda v: fnn.max_unpool(v, jnp.asarray(indices), sizes)
    ((got, slope),) = both([(unpool, {})], values, ct)
    np.testing.assert_array_equal(got, oracle.max_unpool(values, indices, sizes))
    np.testing.assert_allclose(np.ravel(slope), want, rtol=1e-6)


def test_indices_outside_are_left_out() -> None:
    y, indices = jnp.ones((1, 3, 1)), jnp.array([-1, 4, 2]).reshape(1, 3, 1)
    assert fnn.max_unpool(y, indices, 4).ravel().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.uint32])
def test_narrow_indices_leave_out_too(dtype: Any) -> None:
    """Of 300 places: overlapping windows of one maximum, whose last writes it, and -1."""
    y = jnp.arange(1.0, 5).reshape(1, 4, 1)
    indices = jnp.array([7, 7, 7, -1]).astype(dtype).reshape(1, 4, 1)
    want = np.zeros(300)
    want[7] = 3
    want[255] = 4 * (dtype == jnp.uint8)  # what -1 is there
    np.testing.assert_array_equal(fnn.max_unpool(y, indices, 300).ravel(), want)


def test_indices_beyond_32_bits_are_left_out() -> None:
    with jax.enable_x64(True):
        y, indices = jnp.ones((1, 1, 1)), jnp.full((1, 1, 1), 2**32 + 1)
        assert fnn.max_unpool(y, indices, 4).ravel().tolist() == [0, 0, 0, 0]


FLOATS = (jnp.float8_e4m3fn, jnp.float8_e4m3b11fnuz, jnp.float8_e5m2)


@forms
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)
def test_floats_without_infinity(form: str, dtype: Any) -> None:
    """No padding wins either, where every number is the least, and a NaN does."""
    least = float(jnp.finfo(dtype).min)
    x = np.array([least, least, -3, -2, least, least, least, np.nan], dtype).reshape(1, 8, 1)
    config = {"window": 3, "stride": 1, "padding": 1}
    named = pools(**config)
    rows = [named[kind + form] for kind in ("max", "min")]
    wide = x.astype(np.float64)
    cts = (jnp.arange(8) % 3).astype(dtype).reshape(x.shape)  # whose sums are not rounded
    for (y, slope), at in zip(both(rows, x, cts), (wide, -wide), strict=True):
        assert y.dtype == slope.dtype == dtype
        want = oracle.max_pool(at, **config)
        np.testing.assert_array_equal(np.abs(np.asarray(y, np.float64)), np.abs(want))
        slopes = oracle.max_pool_gradient(at, ct=np.asarray(cts, np.float64), **config)
        np.testing.assert_array_equal(np.asarray(slope, np.float64), slopes)
    indices = fnn.max_pool_indices(x, **config)
    np.testing.assert_array_equal(indices, oracle.max_pool_indices(wide, **config))


def test_lists_and_numpy_numbers() -> None:
    x = RNG.standard_normal((1, 6, 6, 1)).astype(np.float32)
    want = fnn.avg_pool(x, (3, 2), stride=2, padding=((1, 0), (0, 1)), dilation=1)
    two, pads = np.int64(2), [[1, 0], np.array([0, 1])]
    got = fnn.avg_pool(x, [3, two], stride=two, padding=pads, dilation=np.array([1, 1]))
    np.testing.assert_array_equal(got, want)
    half = jnp.asarray(x, jnp.bfloat16)
    norm = fnn.lp_pool(half, np.int8(2), np.float64(3))
    assert norm.dtype == jnp.bfloat16
    np.testing.assert_array_equal(norm, fnn.lp_pool(half, 2, 3))
    equal = fnn.partition_pool(x, [[0, 1], np.array([2, 4]), range(3, 6, 2)], axis=np.int64(1))
    np.testing.assert_array_equal(equal, fnn.partition_pool(x, ((0, 1), (2, 4), (3, 5))))
    assert fnn.adaptive_max_pool(x, [np.int32(2), 3]).shape == (1, 2, 3, 1)


def test_the_axis_of_a_partition() -> None:
    """None is axis 1, and of a vector the only one."""
    x = jnp.arange(6.0)
    assert fnn.partition_pool(x, BLOCKS).tolist() == [2, 1, 5]
    np.testing.assert_array_equal(fnn.partition_pool(x[None], BLOCKS), [[2, 1, 5]])


X = jnp.zeros((1, 5, 5, 1))
INDICES = jnp.zeros((1, 2, 2, 1), jnp.int32)
WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("max_pool", {"window": X}, TypeError, "fnn.max_pool: window: got .*known before compilation"),
    ("max_pool", {"window": True}, ValueError, "fnn.max_pool: window: got True"),
    ("max_pool", {"window": 2.0}, ValueError, "fnn.max_pool: window: got 2.0"),
    ("max_pool", {"window": {2: 2}}, TypeError, "fnn.max_pool: window: got dict"),
    ("sum_pool", {"window": 2, "padding": -1}, ValueError, "fnn.sum_pool: padding: got -1"),
    ("sum_pool", {"window": 2, "padding": "same"}, ValueError, "fnn.sum_pool: padding: got 'same'"),
    ("avg_pool", {"window": 2, "dilation": [1]}, ValueError, r"fnn.avg_pool: dilation: got \(1,\)"),
    ("lp_pool_lax", {"window": 2, "p": "2"}, TypeError, "fnn.lp_pool_lax: p: got str '2'"),
    ("lp_pool", {"window": 2, "p": True}, TypeError, "fnn.lp_pool: p: got bool True"),
    ("lp_pool", {"window": 2, "p": float("nan")}, ValueError, "fnn.lp_pool: p: got nan"),
    ("lp_pool", {"window": 2, "p": jnp.ones(())}, TypeError, "fnn.lp_pool: p: .*known before"),
    ("adaptive_avg_pool", {"out": [2, 2, 2]}, ValueError, "fnn.adaptive_avg_pool: out"),
    ("partition_pool", {"blocks": 3}, ValueError, "fnn.partition_pool: blocks: got 3"),
    ("partition_pool", {"blocks": [0, 1]}, ValueError, "fnn.partition_pool: blocks: got"),
    (
        "partition_pool",
        {"blocks": [[0.0]]},
        ValueError,
        "fnn.partition_pool: blocks: got index 0.0",
    ),
    ("partition_pool", {"blocks": BLOCKS, "axis": 1.0}, ValueError, "fnn.partition_pool: axis"),
    ("max_pool", {"window": 2, "ceil_mode": "no"}, TypeError, "ceil_mode: got str 'no'; .*True or"),
    ("avg_pool", {"window": 2, "count_include_pad": 1}, TypeError, "count_include_pad: got int 1"),
    ("max_unpool", {"indices": INDICES, "spatial": 4}, ValueError, "fnn.max_unpool: indices: .*y"),
    ("max_unpool", {"indices": X, "spatial": 4}, TypeError, "fnn.max_unpool: indices: .*integers"),
    ("max_unpool", {"indices": X.astype(int), "spatial": -1}, ValueError, "max_unpool: spatial"),
]


@pytest.mark.parametrize(("name", "config", "kind", "message"), WRONG)
def test_wrong_calls(
    name: str, config: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        getattr(fnn, name)(X, **config)


def test_a_pooled_axis_has_a_number_for_its_size() -> None:
    """And none of the whole image needs one."""
    like = jax.ShapeDtypeStruct((1, *export.symbolic_shape("h"), 1), jnp.float32)
    x = jnp.arange(5.0).reshape(1, 5, 1)
    refused = pools(window=2) | {name: REGIONS[name] for name in REGIONS if "global" not in name}
    refused["indices"] = fnn.max_pool_indices, {"window": 2, "padding": "SAME"}
    for pool, config in refused.values():
        with pytest.raises(ValueError, match=r"x: got float32\[1,h,1\]; needed a number, not a sy"):
            export.export(jax.jit(partial(pool, **config)))(like)
    for pool, want in (
        (fnn.global_max_pool, 4),
        (fnn.global_min_pool, 0),
        (fnn.global_avg_pool, 2),
    ):
        assert export.export(jax.jit(pool))(like).call(x) == want


def test_a_scalar_has_no_axis_to_partition() -> None:
    with pytest.raises(ValueError, match=r"fnn\.partition_pool: x: got float32\[\]; needed at lea"):
        fnn.partition_pool(jnp.ones(()), [[0]])


@pytest.mark.parametrize(
    "name", ["max_pool", "lp_pool_slices", "global_avg_pool", "partition_pool"]
)
def test_what_is_no_input(name: str) -> None:
    config = {"window": 2} if name.startswith(("max", "lp")) else {}
    config |= {"p": 2} if name.startswith("lp") else {}
    config |= {"blocks": ((0,),)} if name.startswith("part") else {}
    for x in ([[[[1.0]]]], "x", None):
        with pytest.raises(TypeError, match=f"fnn.{name}: x: got"):
            getattr(fnn, name)(x, **config)
    for x in (jnp.ones((1, 4, 1), bool), jnp.ones((1, 4, 1), complex)):
        with pytest.raises(TypeError, match=f"fnn.{name}: x: got"):
            getattr(fnn, name)(x, **config)


@pytest.mark.parametrize("kind", ["max", "min", "avg"])
def test_strides_dilations_and_paddings_together(kind: str) -> None:
    """Where a tap of the padding stands for the nearest inside, its places need not ascend."""
    slices, lax = (getattr(fnn, f"{kind}_pool_{name}") for name in ("slices", "lax"))
    x = jnp.asarray(np.random.default_rng(0).permutation(14).reshape(1, 7, 2), jnp.float32)

    def both(fn: Any, **config: Any) -> Any:
        y, pull = jax.vjp(lambda x: fn(x, **config), x)
        return y, *pull(y)

    grid = itertools.product((2, 3), (1, 2, 3), (1, 2, 3), itertools.product(range(4), range(3)))
    configs = [
        {"window": k, "stride": s, "dilation": d, "padding": (pads,)}
        for k, s, d, pads in grid
        if max(pads) <= (k - 1) * d / 2
    ]
    assert len(configs) > 60
    got, want = (
        jax.jit(lambda fn=fn: [both(fn, **config) for config in configs])() for fn in (slices, lax)
    )
    for config, *values in zip(configs, got, want, strict=True):
        for a, b in zip(*values, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=str(config))


@pytest.mark.parametrize("p", [1, 2, 3, 2.5])
def test_what_no_window_reads_may_be_nan(p: float) -> None:
    """It has gradient 0: the last element, behind two stops of three with stride 2.

    And it is in no second derivative.
    """
    x = jnp.array([1.0, 2.0, -3.0, 4.0, 5.0, jnp.nan]).reshape(1, 6, 1)
    for fn in (fnn.lp_pool_slices, fnn.lp_pool_lax):
        first = jax.grad(lambda x, fn=fn: fn(x, 3, p, stride=2).sum())
        again = jax.grad(lambda x, first=first: (first(x)[:, :5] ** 2).sum())
        for slope in (first, again):
            got, want = slope(x), slope(x[:, :5])
            np.testing.assert_allclose(got[:, :5], want, rtol=1e-5, atol=1e-6)
            assert got[0, 5, 0] == 0
