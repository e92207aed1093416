"""Normalization, its statistics and standardisation against oracles; edges; messages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import HALF, check, close
from tests.oracles import normalization as oracle

DTYPES = [*HALF, np.dtype(np.float32), np.dtype(np.float64)]
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
RNG = np.random.default_rng(0)


def draw(dtype: Any, *shape: int) -> Any:
    return RNG.standard_normal(shape).astype(dtype)


def trained_batch_norm(x: Any, scale: Any, bias: Any) -> Any:
    return fnn.batch_norm(x, scale, bias, *fnn.batch_stats(x))


def wide_stats(x: Any) -> Any:
    return jnp.stack(fnn.batch_stats(x))


@by_dtype
def test_batch_norm(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, scale, bias, mean = draw(dtype, 4, 3, 2), *draw(dtype, 3, 2)
        var = np.array([0.5, 2], dtype)
        check(fnn.batch_norm, oracle.batch_norm, x, scale, bias, mean, var, length=12)


@by_dtype
def test_batch_norm_with_the_statistics_of_its_input(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, scale, bias = draw(dtype, 5, 2, 3), draw(dtype, 3), draw(dtype, 3)
        check(trained_batch_norm, oracle.trained_batch_norm, x, scale, bias, length=10)


@by_dtype
def test_layer_norm(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, scale, bias = draw(dtype, 2, 3, 8), draw(dtype, 8), draw(dtype, 8)
        check(fnn.layer_norm, oracle.layer_norm, x, scale, bias, length=8)


@by_dtype
def test_rms_norm(dtype: Any) -> None:
    with jax.enable_x64(True):
        check(fnn.rms_norm, oracle.rms_norm, draw(dtype, 2, 3, 8), draw(dtype, 8), length=8)


@by_dtype
def test_group_norm(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, scale, bias = draw(dtype, 3, 2, 2, 6), draw(dtype, 6), draw(dtype, 6)
        check(fnn.group_norm, oracle.group_norm, x, scale, bias, length=12, groups=2)


@by_dtype
def test_instance_norm(dtype: Any) -> None:
    with jax.enable_x64(True):
        x, scale, bias = draw(dtype, 3, 5, 4), draw(dtype, 4), draw(dtype, 4)
        check(fnn.instance_norm, oracle.instance_norm, x, scale, bias, length=5)


def test_trailing_axes_without_bias() -> None:
    x, scale = draw(np.float32, 3, 2, 4), draw(np.float32, 2, 4)
    check(fnn.layer_norm, oracle.layer_norm, x, scale, length=8, batch=False, eps=0.1)
    check(fnn.rms_norm, oracle.rms_norm, x[0], scale, length=8, batch=False, eps=0.1)


def test_one_group_is_one_set_and_c_groups_are_instances() -> None:
    x, scale = draw(np.float32, 3, 5, 4), np.ones(4, np.float32)
    check(fnn.group_norm, oracle.group_norm, x, scale, length=20, groups=1)
    instances = fnn.instance_norm(x, scale)
    np.testing.assert_array_equal(fnn.group_norm(x, scale, groups=4), instances)
    assert fnn.group_norm(x[:, 0], scale, groups=2).shape == (3, 4)  # no spatial axes


OFFSETS = pytest.mark.parametrize("mean", [0.0, 1e4, -1e6])


@OFFSETS
def test_statistics_do_not_cancel(mean: float) -> None:
    x = (mean + 0.1 * RNG.standard_normal((64, 8, 8, 3))).astype(np.float32)
    got, want = fnn.batch_stats(x), oracle.batch_stats(x.astype(np.float64))
    # XLA adds the 4096 in groups, and in JAX 0.10.0 one after the other.
    length = 64 if jax.__version_info__ >= (0, 10, 2) else 4096
    close(got.mean, want[0], length=length)
    close(got.var, want[1], length=length)


@OFFSETS
def test_normalized_values_do_not_cancel(mean: float) -> None:
    x = (mean + RNG.standard_normal((16, 4, 6))).astype(np.float32)
    scale, wide = np.ones(6, np.float32), x.astype(np.float64)
    ones, zeros = np.ones(6), np.zeros(6)
    close(fnn.layer_norm(x, scale), oracle.layer_norm(wide, ones), length=6)
    group = oracle.group_norm(wide, ones, groups=2)
    close(fnn.group_norm(x, scale, groups=2), group, length=12)
    close(fnn.instance_norm(x, scale), oracle.instance_norm(wide, ones), length=4)
    # Here the mean is handed over as float32: half an ulp of it over a deviation of about 1.
    slack = float(np.spacing(np.float32(abs(mean))))
    want = oracle.trained_batch_norm(wide, ones, zeros)
    close(trained_batch_norm(x, scale, 0 * scale), want, length=64, slack=slack)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_statistics_of_half_precision_are_float32(dtype: Any) -> None:
    x = (RNG.standard_normal((4096, 2)) + 3).astype(dtype)
    mean, var = fnn.batch_stats(x)
    assert mean.dtype == var.dtype == jnp.float32
    want = oracle.batch_stats(x.astype(np.float64))
    close(mean, want[0], length=64)
    close(var, want[1], length=64)
    y = fnn.batch_norm(x, *np.ones((2, 2), dtype), mean, var)
    assert y.dtype == dtype


def test_statistics_have_the_gradient_of_their_formula() -> None:
    with jax.enable_x64(True):
        x = draw(np.float64, 6, 2) + 1e4
        check(wide_stats, oracle.batch_stats, draw(np.float64, 6, 2), length=6)
        gradient = jax.jit(jax.grad(lambda x: fnn.batch_stats(x).var.sum()))(x)
        close(gradient, 2 / 6 * (x - x.mean(0)), length=6, slack=1e-11)


NORMS: list[Any] = [
    fnn.layer_norm,
    lambda x, scale, bias, eps=1e-5: fnn.rms_norm(x, scale, eps=eps) + bias.reshape(1, 1, -1),
    lambda x, scale, bias, eps=1e-5: fnn.group_norm(x, scale, bias, groups=2, eps=eps),
    fnn.instance_norm,
]
POWERS = [(0, (13, -10)), (1, (56, -90)), (2, (56, -20, -90)), (3, (480, -500))]


@pytest.mark.parametrize(("place", "powers"), POWERS, ids=lambda p: str(p) if p != 4 else "")
def test_squares_neither_overflow_nor_vanish(place: int, powers: tuple[int, ...]) -> None:
    """A norm of ``size z`` is that of z with ``eps / size^2``, its gradient that over size."""
    dtype = DTYPES[place]
    args = draw(dtype, 3, 5, 4), draw(dtype, 4), np.zeros(4, dtype)

    def three(norm: Any, eps: Any, size: Any, z: Any, *rest: Any) -> Any:
        y, pullback = jax.vjp(lambda x, s, b: norm(x, s, b, eps=eps), z * size, *rest)
        x_gradient, scale_gradient, _ = pullback(jnp.asarray(z[::-1]))
        return y, x_gradient, scale_gradient

    @jax.jit
    def results(args: Any, wide: Any) -> Any:
        def pair(norm: Any, power: int) -> Any:
            size = 2.0**power
            narrow = three(norm, 1e-5, jnp.asarray(size, dtype), *args)
            return narrow, three(norm, 1e-5 / size / size, 1.0, *wide)

        return [[pair(norm, power) for norm in NORMS] for power in powers]

    with jax.enable_x64(True):
        found = results(args, [a.astype(float) for a in args])
        for power, pairs in zip(powers, found, strict=True):
            for (y, x_gradient, scale_gradient), want in pairs:
                close(y, want[0], length=20)
                close(x_gradient, np.asarray(want[1]) / 2.0**power, length=20)
                close(scale_gradient, want[2], length=60)


@jax.jit
def all_norms_and_gradients(x: Any, scale: Any, bias: Any) -> Any:
    layers = [
        trained_batch_norm,
        fnn.instance_norm,
        fnn.layer_norm,
        lambda *a: fnn.group_norm(*a, groups=2),
        lambda x, scale, bias: fnn.rms_norm(x - x, scale) + bias.reshape(1, 1, 2),
    ]
    results = [jax.vjp(layer, x, scale, bias) for layer in layers]
    return [y for y, _ in results], [pullback(jnp.ones_like(x)) for _, pullback in results]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_constant_inputs_give_the_bias_and_finite_gradients(value: float) -> None:
    x, bias = np.full((4, 3, 2), value, np.float32), np.array([1, 2], np.float32)
    values, gradients = all_norms_and_gradients(x, np.ones(2, np.float32), bias)
    for y in values:
        np.testing.assert_allclose(y, np.broadcast_to(bias, x.shape), atol=2e-4)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert (np.asarray(fnn.batch_stats(x).var) >= 0).all()


def test_running_stats_is_the_average_that_pytorch_keeps() -> None:
    running = fnn.BatchStats(jnp.zeros(2), jnp.ones(2))
    mean, var = np.zeros(2), np.ones(2)
    for _ in range(3):
        x = draw(np.float32, 5, 4, 2)
        running = fnn.running_stats(running, fnn.batch_stats(x), decay=0.7, count=20)
        flat = x.reshape(20, 2).astype(np.float64)
        mean = 0.7 * mean + 0.3 * flat.mean(0)
        var = 0.7 * var + 0.3 * flat.var(0, ddof=1)
    close(running.mean, mean, length=20)
    close(running.var, var, length=20)


def test_running_stats_without_count_averages_the_biased_variance() -> None:
    old = fnn.BatchStats(jnp.zeros(1), jnp.zeros(1))
    new = fnn.running_stats(old, fnn.batch_stats(jnp.array([[1.0], [3.0]])), decay=0.0)
    assert (new.mean.tolist(), new.var.tolist()) == ([2.0], [1.0])


def test_running_stats_keep_nine_tenths_by_default() -> None:
    old, new = fnn.BatchStats(jnp.zeros(1), jnp.ones(1)), fnn.BatchStats(jnp.ones(1), jnp.zeros(1))
    mean, var = fnn.running_stats(old, new)
    np.testing.assert_allclose((mean, var), [[0.1], [0.9]], rtol=1e-6)


def test_running_stats_of_several_layers_are_those_of_each() -> None:
    old, new = (
        {"first": fnn.batch_stats(k * x), "deep": [fnn.batch_stats(k + y)]}
        for x, y in [(draw(np.float32, 5, 2), draw(np.float32, 5, 4, 3))]
        for k in (1, 2)
    )
    both = jax.jit(lambda *a: fnn.running_stats(*a, decay=0.7, count=5))(old, new)
    assert jax.tree.structure(both) == jax.tree.structure(old)
    one = lambda a, b: fnn.running_stats(a, b, decay=0.7, count=5)
    close(both["first"], one(old["first"], new["first"]))
    close(both["deep"][0], one(old["deep"][0], new["deep"][0]))


@pytest.mark.parametrize(("name", "values"), [("decay", (0.0, 0.9, 1.0)), ("count", (2, 5, 1e4))])
def test_the_numbers_of_running_stats_may_be_traced(name: str, values: Any) -> None:
    old, new = (fnn.batch_stats(k * draw(np.float32, 3, 2)) for k in (1, 2))
    update = lambda value: fnn.running_stats(old, new, **{name: value})
    with jax.enable_x64(True):
        swept = jax.jit(jax.vmap(update))(np.array(values))
        for got, want in zip(zip(*swept, strict=True), map(update, values), strict=True):
            close(np.stack(got), np.stack(want))
    assert swept.var.dtype == jnp.float32


def test_a_count_in_half_precision_is_computed_in_float32() -> None:
    """In bfloat16, 299 is 300, and no variance would be corrected."""
    old, new = (fnn.BatchStats(jnp.zeros(1), jnp.full(1, v)) for v in (0.0, 1.0))
    got = fnn.running_stats(old, new, decay=0.0, count=jnp.bfloat16(300))
    np.testing.assert_allclose(got.var, 300 / 299, rtol=1e-6)


def test_a_count_may_exceed_an_int32() -> None:
    ones = fnn.BatchStats(jnp.ones(1), jnp.ones(1))
    assert fnn.running_stats(ones, ones, count=3_000_000_000).var.tolist() == [1]


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_B8_standardize_by_the_training_set(mean: float) -> None:
    train = (mean + 3 * RNG.standard_normal((50, 4, 3))).astype(np.float32)
    train[..., 1] = 0.1  # a constant channel
    fitted = fnn.fit_standardize(train)
    want = oracle.mean_and_std(train.astype(np.float64))
    close(np.stack([fitted["mean"], fitted["std"]]), want, length=200)
    y = np.asarray(fnn.standardize(train, **fitted), np.float64)
    assert np.abs(y.mean((0, 1))).max() < 1e-3
    np.testing.assert_allclose(y.std((0, 1)), [1, 0, 1], atol=1e-5)
    test = train[:2] + 1
    wide = (test.astype(np.float64) - want[0]) / want[1]
    close(fnn.standardize(test, **fitted), wide, length=200, slack=1e-3 if mean else 0)


def test_B8_tanh_centres_the_hidden_units() -> None:
    """Of inputs with mean 0 a tanh unit has mean 0, a logistic one 1/2."""
    x = np.random.default_rng(1).standard_normal((4000, 5)).astype(np.float32)
    z = fnn.dense(fnn.standardize(3 + x, **fnn.fit_standardize(3 + x)), np.eye(5, dtype=np.float32))
    np.testing.assert_allclose(np.mean(fnn.tanh(z), 0), 0, atol=0.05)
    np.testing.assert_allclose(np.mean(fnn.sigmoid(z), 0), 0.5, atol=0.05)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_deviations_whose_squares_are_no_float32(size: float) -> None:
    x = (size * (3 + RNG.standard_normal((50, 3)))).astype(np.float32)
    fitted = fnn.fit_standardize(x)
    want = oracle.mean_and_std(x.astype(np.float64))
    close(fitted["mean"], want[0], length=50)
    close(fitted["std"], want[1], length=50)
    gradient = jax.jit(jax.grad(lambda x: fnn.fit_standardize(x)["std"].sum()))(x)
    close(gradient, (x - want[0]) / want[1] / 50, length=50)


def test_a_mean_whose_rounding_has_no_square_in_float32() -> None:
    """The variance, which is too large, is infinite, and the layers give 0."""
    x = np.float32([2**100, 2**100, 2**100 + 2**77])  # the mean lies between
    mean, var = fnn.batch_stats(x[:, None])
    close(mean, x.astype(float).mean(keepdims=True))
    assert np.isposinf(var).all()
    one = np.ones(3, np.float32)
    values = fnn.layer_norm(x[None], one), fnn.instance_norm(x[None, :, None], one[:1])
    assert not any(map(np.any, values))


@pytest.mark.parametrize("size", [2.0**43, 2.0**60])
def test_batch_norm_of_large_inputs_has_its_gradient(size: float) -> None:
    x, ct = draw(np.float32, 5, 2, 3), draw(np.float32, 5, 2, 3)

    @jax.jit
    def gradient(x: Any, eps: Any) -> Any:
        def normed(x: Any) -> Any:
            return fnn.batch_norm(x, jnp.ones(3), jnp.zeros(3), *fnn.batch_stats(x), eps=eps)

        return jax.vjp(normed, x)[1](jnp.asarray(ct))[0]

    large = np.asarray(gradient(x * np.float32(size), 1e-5))
    close(large * np.float32(size), gradient(x, 0.0), length=10)


def test_a_gradient_keeps_what_is_normalized_and_not_the_deviations_too() -> None:
    """A layer of a network keeps its product and its ReLU: two arrays, not three."""
    x, w, one = (
        jax.ShapeDtypeStruct((64, 16, 16, 32), jnp.float32),
        jnp.zeros((32, 32)),
        np.ones(32),
    )

    def temporary(depth: int) -> int:
        def stack(w: Any, x: Any) -> Any:
            for _ in range(depth):
                x = fnn.relu(trained_batch_norm(x @ w, *np.float32((one, one))))
            return x.sum()

        memory = jax.jit(jax.grad(stack)).lower(w, x).compile().memory_analysis()
        return int(memory.temp_size_in_bytes)

    assert temporary(6) - temporary(2) < 4 * 2.5 * 4 * x.size


def test_an_empty_batch_is_refused() -> None:
    for fn in (fnn.batch_stats, fnn.fit_standardize):
        for shape in ((0, 3), (2, 0, 3)):
            with pytest.raises(ValueError, match="needed at least one example and position"):
                fn(np.zeros(shape, np.float32))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_what_it_is_normalized_with(bad: float) -> None:
    x = draw(np.float32, 3, 5, 4)
    spoiled = x.copy()
    spoiled[1, 2, 3] = bad
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    layers = [*(functools.partial(n, scale=one, bias=zero) for n in NORMS),
              lambda x: trained_batch_norm(x, one, zero)]  # fmt: skip
    reach = [np.s_[1, 2, :], np.s_[1, 2, :], np.s_[1, :, 2:], np.s_[1, :, 3], np.s_[:, :, 3]]
    results = jax.jit(lambda xs: [[f(x) for f in layers] for x in xs])([spoiled, x])
    got, want = jax.tree.map(np.asarray, results)
    for a, b, place in zip(got, want, reach, strict=True):
        clean = np.ones(x.shape, bool)
        clean[place] = False
        np.testing.assert_allclose(a[clean], b[clean], rtol=1e-6, atol=1e-6)
        assert np.isnan(a[1, 2, 3])


def test_standardize_half_precision_with_float32_statistics() -> None:
    x = (RNG.standard_normal((64, 3)) * 4 + 100).astype(np.float16)
    fitted = fnn.fit_standardize(x)
    assert fitted["mean"].dtype == jnp.float32
    y = fnn.standardize(x, **fitted)
    assert y.dtype == jnp.float16
    assert np.abs(np.asarray(y, np.float64).mean(0)).max() < 1e-3


def test_init_norm() -> None:
    params = fnn.init_norm((2, 3), dtype=jnp.bfloat16)
    assert {k: (a.shape, str(a.dtype)) for k, a in params.items()} == {
        "scale": ((2, 3), "bfloat16"),
        "bias": ((2, 3), "bfloat16"),
    }
    assert (np.asarray(params["scale"]) == 1).all()
    assert (np.asarray(params["bias"]) == 0).all()
    assert list(fnn.init_norm(4, bias=False)) == ["scale"]
    x = draw(np.float32, 3, 4)
    wide = x.astype(np.float64)
    close(fnn.layer_norm(x, **fnn.init_norm(4)), oracle.layer_norm(wide, np.ones(4)), length=4)
    plain = fnn.rms_norm(x, **fnn.init_norm(4, bias=False))
    close(plain, oracle.rms_norm(wide, np.ones(4)), length=4)


def over_largest(w: Any) -> Any:
    return w / np.linalg.svd(w.reshape(-1, w.shape[-1]), compute_uv=False)[0]


@pytest.mark.parametrize("shape", [(6, 4), (2, 2, 3, 4)])
def test_spectral_norm_and_its_gradient_at_convergence(shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        w, u = draw(np.float64, *shape), draw(np.float64, shape[-1])
        _, u = fnn.spectral_norm(w, u, iterations=400)
        close(np.linalg.norm(u), 1.0, length=4)

        def normed(w: Any) -> Any:
            return fnn.spectral_norm(w, u, iterations=0)[0]

        check(normed, over_largest, w, length=24, batch=False)


def test_spectral_norm_converges_through_its_state() -> None:
    w, u = draw(np.float32, 5, 3), draw(np.float32, 3)
    errors = []
    for _ in range(30):
        normed, u = fnn.spectral_norm(w, u)
        errors.append(abs(np.linalg.svd(normed, compute_uv=False)[0] - 1))
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-5


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_spectral_norm_of_large_and_small_weights(size: float) -> None:
    w, u = draw(np.float32, 5, 3), draw(np.float32, 3)
    want, want_u = fnn.spectral_norm(w, u, iterations=3)
    got, got_u = fnn.spectral_norm(w * np.float32(size), u * np.float32(size), iterations=3)
    close(got, want, length=5)
    close(got_u, want_u, length=5)

    slope = jax.jit(jax.grad(lambda w: (fnn.spectral_norm(w, u)[0] ** 2).sum()))
    close(np.asarray(slope(w * np.float32(size))) * np.float32(size), slope(w), length=15)


def test_spectral_norm_of_zero_is_zero() -> None:
    w, u = np.zeros((3, 2), np.float32), np.ones(2, np.float32)
    gradient = jax.jit(jax.grad(lambda w: 5 * fnn.spectral_norm(w, u)[0].sum()))(w)
    assert (np.asarray(fnn.spectral_norm(w, u)[0]) == 0).all()
    assert (np.asarray(gradient) == 0).all()
    _, u = fnn.spectral_norm(w, 3 * u)
    close(u, np.full(2, 0.5**0.5))


def test_spectral_norm_inside_shard_map() -> None:
    """Of weights that vary over the mesh, with a start that does not."""
    mesh, P = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P
    w, u = np.float32([[1, 2], [3, 4]]), np.float32([1, 1])
    on = jax.shard_map(fnn.spectral_norm, mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
    for got, want in zip(on(w, u), fnn.spectral_norm(w, u), strict=True):
        close(got, want)


@pytest.mark.parametrize("u", [[0.0, 0.0], [0.0, 2.0]])
def test_spectral_norm_that_finds_nothing_of_its_weights_says_so(u: list[float]) -> None:
    """The start has no part along the singular vector: the weights' scale is not known."""
    w, start = np.diag(np.float32([4, 0])), np.array(u, np.float32)
    for iterations in (0, 1):
        normed, kept = fnn.spectral_norm(w, start, iterations=iterations)
        assert np.isnan(normed).all()
        assert kept.tolist() == [0, float(any(u))]


X = np.ones((2, 3, 4), np.float32)
C = np.ones(4, np.float32)
D = C.astype(np.float64)
S = fnn.BatchStats(C, C)
VECTORS = "shape (4,) for x float32[2,3,4]"
IMAGES = "shape (n, *spatial, c)"
WRONG: list[tuple[Any, ...]] = [
    (fnn.batch_stats, (C,), {}, f"fnn.batch_stats: x: got float32[4]; needed {IMAGES}"),
    (fnn.batch_norm, (C, C, C, C, C), {}, f"fnn.batch_norm: x: got float32[4]; needed {IMAGES}"),
    (fnn.batch_norm, (X, C, C[:1], C, C), {},
     f"fnn.batch_norm: bias: got float32[1]; needed {VECTORS}"),
    (fnn.batch_norm, (X, C, C, C, C[None]), {},
     f"fnn.batch_norm: var: got float32[1,4]; needed {VECTORS}"),
    (fnn.batch_norm, (X, C, C, C, C), {"eps": -1.0},
     "fnn.batch_norm: eps: got -1.0; needed a number >= 0"),
    (fnn.batch_norm, (X, D, C, C, C), {},
     "fnn.batch_norm: scale: got float64[4]; needed float32 for x float32[2,3,4]"),
    (fnn.batch_norm, (X.astype(np.float16), D, C, C, C), {},
     "fnn.batch_norm: scale: got float64[4]; needed float16 or float32 for x float16[2,3,4]"),
    (fnn.layer_norm, (X, np.float32(1)), {},
     "fnn.layer_norm: scale: got float32[]; needed the last axes of x float32[2,3,4]"),
    (fnn.layer_norm, (X, C[:3]), {}, f"fnn.layer_norm: scale: got float32[3]; needed {VECTORS}"),
    (fnn.layer_norm, (X, C, C[:3]), {}, f"fnn.layer_norm: bias: got float32[3]; needed {VECTORS}"),
    (fnn.rms_norm, (X, X[None]), {},
     "fnn.rms_norm: scale: got float32[1,2,3,4]; needed the last axes of x float32[2,3,4]"),
    (fnn.group_norm, (X, C), {"groups": 3},
     "fnn.group_norm: groups: got 3; needed a divisor of the 4 channels"),
    (fnn.group_norm, (X, C), {"groups": 0}, "fnn.group_norm: groups: got 0; needed an int >= 1"),
    (fnn.group_norm, (C, C), {"groups": 2},
     f"fnn.group_norm: x: got float32[4]; needed {IMAGES}"),
    (fnn.instance_norm, (X[0], C), {},
     f"fnn.instance_norm: x: got float32[3,4]; needed {IMAGES}, a spatial axis"),
    (fnn.init_norm, (0,), {}, "fnn.init_norm: shape: got 0; needed an int >= 1"),
    (fnn.init_norm, ((),), {}, "fnn.init_norm: shape: got (); needed at least one size"),
    (fnn.running_stats, (S, S), {"decay": 1.5},
     "fnn.running_stats: decay: got 1.5; needed a number in [0, 1]"),
    (fnn.running_stats, (S, S), {"count": 1},
     "fnn.running_stats: count: got 1; needed a number >= 2, and finite"),
    (fnn.running_stats, (S, S), {"count": float("inf")},
     "fnn.running_stats: count: got inf; needed a number >= 2, and finite"),
    (fnn.running_stats, ((C, C), S), {},
     "fnn.running_stats: running[0]: got float32[4]; needed fnn.BatchStats of mean and var"),
    (fnn.running_stats, (S, None), {},
     "fnn.running_stats: batch: got NoneType None; needed fnn.BatchStats of mean and var"),
    (fnn.running_stats, ({"a": S}, {"a": S, "b": S}), {},
     "fnn.running_stats: batch['b'].mean: got float32[4]; needed nothing, as in running"),
    (fnn.running_stats, ({"a": S, "b": None}, {"a": S, "b": S}), {},
     "fnn.running_stats: running['b']: got NoneType None; needed fnn.BatchStats of mean and var"),
    (fnn.running_stats, ({"a": S}, {"a": fnn.BatchStats(C[:1], C[:1])}), {},
     "fnn.running_stats: batch['a'].mean: got float32[1]; needed the shape of float32[4], "
     "as in running"),
    (fnn.running_stats, (S, fnn.BatchStats(C, C[:1])), {},
     "fnn.running_stats: batch.var: got float32[1]; needed shape (c,), the same of mean and var"),
    (fnn.running_stats, (fnn.BatchStats(X[0], X[0]),) * 2, {},
     "fnn.running_stats: running.mean: got float32[3,4]; needed shape (c,), the same of mean and "
     "var"),
    (fnn.running_stats, (fnn.BatchStats(C.astype(np.float16), C), S), {},
     "fnn.running_stats: running.mean: got float16[4]; needed float32 or wider"),
    (fnn.running_stats, (S, fnn.BatchStats(C, C.astype(np.int64))), {},
     "fnn.running_stats: batch.var: got int64[4]; needed float32 or wider"),
    (fnn.running_stats, (S, fnn.BatchStats(C, D)), {},
     "fnn.running_stats: batch.var: got float64[4]; needed float32, the dtype of batch.mean"),
    (fnn.running_stats, (S, fnn.BatchStats(D, D)), {},
     "fnn.running_stats: batch.mean: got float64[4]; needed float32, the dtype of running.mean"),
    (fnn.fit_standardize, (C,), {}, f"fnn.fit_standardize: x: got float32[4]; needed {IMAGES}"),
    (fnn.standardize, (C, C, C), {}, f"fnn.standardize: x: got float32[4]; needed {IMAGES}"),
    (fnn.standardize, (X, C, C[:2]), {}, f"fnn.standardize: std: got float32[2]; needed {VECTORS}"),
    (fnn.spectral_norm, (C, C), {},
     "fnn.spectral_norm: w: got float32[4]; needed shape (*d_in, d_out)"),
    (fnn.spectral_norm, (X, C[:2]), {},
     f"fnn.spectral_norm: u: got float32[2]; needed {VECTORS.replace(' x ', ' w ')}"),
    (fnn.spectral_norm, (X, C.astype(np.float16)), {},
     "fnn.spectral_norm: u: got float16[4]; needed the dtype of w, float32"),
    (fnn.spectral_norm, (X, C), {"iterations": -1},
     "fnn.spectral_norm: iterations: got -1; needed an int >= 0"),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args", "config", "message"), WRONG)
def test_messages(fn: Any, args: Any, config: Any, message: str) -> None:
    with jax.enable_x64(True), pytest.raises((ValueError, TypeError)) as error:
        fn(*args, **config)
    assert str(error.value) == message
    about_dtype = "64" in message or "float16[4]" in message or "BatchStats" in message
    assert error.type is (TypeError if about_dtype else ValueError)


@pytest.mark.usefixtures("optimized")  # for the tests from here on: LLVM fuses the two squares
def test_the_variance_of_a_constant_is_not_negative() -> None:
    constants = np.random.default_rng(0).uniform(0.01, 100, (1, 1000)).astype(np.float32)
    for n in (33, 100, 1000):
        assert (np.asarray(fnn.batch_stats(np.repeat(constants, n, 0)).var) >= 0).all(), n
