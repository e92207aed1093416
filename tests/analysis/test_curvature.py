"""Curvature against the dense Hessian in float64, and the reference systems B4 and B7."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import fnn

KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def network(params: Any, batch: Any) -> Any:
    x, y = batch
    h = jnp.tanh(x @ params["layers"][0]["w"] + params["layers"][0]["b"][None, :])
    return ((h @ params["layers"][1]["w"] - y) ** 2).mean()


def problem() -> Any:
    rng = np.random.default_rng(0)
    shapes = {"layers": [{"w": (3, 4), "b": (4,), "none": None}, {"w": (4, 2)}]}
    params = jax.tree.map(
        rng.standard_normal,
        shapes,
        is_leaf=lambda s: isinstance(s, tuple),
    )
    return params, (rng.standard_normal((8, 3)), np.zeros((8, 2)))


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def dense(loss: Any, params: Any, *args: Any) -> np.ndarray:
    _, unravel = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda v: loss(unravel(v), *args)))(flat(params)))


def form(matrix: Any) -> Any:
    """The quadratic with this Hessian."""
    return lambda x: 0.5 * x @ (matrix @ x)


def symmetric(values: Any, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return q @ np.diag(values) @ q.T


def test_against_the_dense_hessian() -> None:
    params, batch = problem()
    h = dense(network, params, batch)
    v = jax.tree.map(lambda x: np.cos(np.arange(x.size)).reshape(x.shape), params)
    product = fnn.hvp(network, params, v, batch)
    assert jax.tree.structure(product) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(product), h @ flat(v), atol=1e-12)
    diagonal = fnn.hessian_diagonal(network, params, batch)
    assert jax.tree.structure(diagonal) == jax.tree.structure(params)
    np.testing.assert_allclose(flat(diagonal), np.diag(h), atol=1e-12)
    values = np.linalg.eigvalsh(h)
    ends = fnn.extreme_eigenvalues(network, params, batch, key=KEY)  # 24 numbers: exact
    np.testing.assert_allclose([ends.smallest, ends.largest], values[[0, -1]], atol=1e-10)
    rate = fnn.max_stable_step(network, params, batch, key=KEY)
    np.testing.assert_allclose(rate, 2 / values[-1], rtol=1e-10)


def test_hutchinson_is_unbiased_with_the_stated_variance() -> None:
    params, batch = problem()
    h = dense(network, params, batch)
    samples = 2000
    got = fnn.hutchinson_diagonal(network, params, batch, key=KEY, samples=samples)
    deviation = np.sqrt((h**2).sum(1) - np.diag(h) ** 2)
    z = (flat(got) - np.diag(h)) / (deviation / np.sqrt(samples))
    assert np.abs(z).max() < 4.5
    assert 0.5 < np.sqrt((z**2).mean()) < 1.5
    again = fnn.hutchinson_diagonal(network, params, batch, key=jax.random.key(4), samples=samples)
    assert not np.array_equal(flat(again), flat(got))


@pytest.mark.parametrize("iterations", [5, 12, 40])
def test_lanczos_comes_from_within_and_knows_its_error(iterations: int) -> None:
    values = np.concatenate([[-3.0], np.linspace(-1, 1, 38), [5.0]])
    loss = form(symmetric(values))
    found = fnn.extreme_eigenvalues(loss, np.ones(40), key=KEY, iterations=iterations)
    ends = jax.tree.map(float, found)
    assert ends.smallest >= -3 - 1e-12
    assert ends.largest <= 5 + 1e-12
    for end in (ends.smallest, ends.largest):
        assert np.abs(values - end).min() <= ends.error + 1e-12
    if iterations > 5:
        np.testing.assert_allclose([ends.smallest, ends.largest], [-3, 5], atol=1e-4)
        assert ends.error < 0.1


@pytest.mark.parametrize(
    "values",
    [[2.0] * 6, [-1.0] * 6, [0.0] * 6, [0, 0, 0, 0, 0, 7.0], [3, 3, 3, 1, 1, 1.0], [4.0], [-4.0]],
    ids=str,
)
def test_lanczos_survives_repeated_eigenvalues(values: list[float]) -> None:
    """The chain ends after as many steps as there are different ones, and adds none of its own."""
    ends = fnn.extreme_eigenvalues(form(symmetric(values)), np.ones(len(values)), key=KEY)
    want = [min(values), max(values), 0]
    np.testing.assert_allclose([ends.smallest, ends.largest, ends.error], want, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_lanczos_at_low_precision(dtype: Any) -> None:
    """3,000 eigenvalues in [0, 1] and one of 10, of which rounding makes ghosts in a bare chain."""
    scale = np.linspace(0, 1, 3000, dtype=np.float32)
    scale[17] = 10

    def loss(params: Any) -> Any:
        x = jnp.concatenate([x.astype(jnp.float32) for x in params.values()])
        return (scale * x * x).sum() / 2

    params = {"a": np.ones(1000, dtype), "b": np.ones(2000, dtype)}
    ends = fnn.extreme_eigenvalues(loss, params, key=KEY, iterations=60)
    assert ends.largest.dtype == jnp.float32
    slack = 60 * float(jnp.finfo(dtype).eps)  # each product rounds to the dtype of params
    if jax.__version_info__ < (0, 10, 2):  # JAX 0.10.0 adds the 3,000 one after the other
        slack += 3000**0.5 * float(jnp.finfo(jnp.float32).eps)
    np.testing.assert_allclose(ends.largest, 10, rtol=slack)
    np.testing.assert_allclose(ends.smallest, 0, atol=1e-2 + 10 * slack)
    for end in (ends.smallest, ends.largest):
        assert np.abs(scale - end).min() <= ends.error


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_of_the_products_is_no_curvature(dtype: Any) -> None:
    """a a' has the eigenvalues |a|^2 and 0 only; products with it are rounded as params are."""

    def loss(x: Any, a: Any) -> Any:
        return (a * x).sum() ** 2 / 2

    zero = jnp.zeros(6, dtype)
    for seed in range(25):
        a = jnp.asarray(np.random.default_rng(seed).standard_normal(6), dtype)
        found = fnn.extreme_eigenvalues(loss, zero, a, key=KEY)
        smallest, largest, error = map(float, found)
        assert abs(smallest) <= error
        assert abs(largest - np.square(np.float64(a)).sum()) <= error
        assert error < 10 * float(jnp.finfo(dtype).eps) * largest
        assert fnn.critical_point(loss, zero, a, key=KEY).kind == "degenerate"


def logistic_least_squares(w: Any) -> Any:
    """B4: squared error of a logistic unit, flat where it saturates on the wrong side."""
    return (jax.nn.sigmoid(w) - 0.0).sum() ** 2


@pytest.mark.parametrize(
    ("loss", "point", "kind"),
    [
        (lambda x: x[0] ** 2 + 3 * x[1] ** 2, [0.0, 0.0], "minimum"),
        (lambda x: jnp.cos(x[0]) - x[1] ** 2, [0.0, 0.0], "maximum"),
        (lambda x: x[0] * x[1], [0.0, 0.0], "saddle"),
        (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, [0.0, 0.0], "degenerate"),
        (lambda x: x[0] ** 2 + x[1] ** 4, [0.0, 0.0], "degenerate"),
        (lambda x: (x > 0).astype(x.dtype).sum(), [1.0, -1.0], "degenerate"),  # 0-1 loss
        (lambda x: (jnp.sign(x) - 1).sum() ** 2, [-1.0, 2.0], "degenerate"),  # hard threshold
        (logistic_least_squares, [40.0], "degenerate"),
        (logistic_least_squares, [0.0], "not critical"),
        (lambda x: x[0] ** 2 + x[1], [0.0, 0.0], "not critical"),
        (lambda x: jnp.sqrt(x).sum(), [-1.0, 1.0], "not critical"),  # NaN
    ],
)
def test_B4_critical_points(loss: Any, point: list[float], kind: str) -> None:
    got = fnn.critical_point(loss, np.array(point), key=KEY)
    assert got.kind == kind
    signs = {"minimum": (1, 1), "maximum": (-1, -1), "saddle": (-1, 1)}
    if kind in signs:
        assert (np.sign(got.smallest), np.sign(got.largest)) == signs[kind]
        assert got.gradient_norm == 0
    assert type(got.smallest) is type(got.gradient_norm) is float


def test_B4_critical_point_of_a_network() -> None:
    """All weights zero: no gradient, as either layer hides the other, but both have one."""
    params, (x, _) = problem()
    zero = jax.tree.map(np.zeros_like, params)
    assert fnn.critical_point(network, zero, (x, np.ones((8, 2))), key=KEY).kind == "saddle"


def test_B4_critical_point_of_more_numbers_than_iterations() -> None:
    scale = np.linspace(1, 2, 400)
    bowl = lambda x: (scale * x * x).sum() / 2
    assert fnn.critical_point(bowl, np.zeros(400), key=KEY, iterations=40).kind == "minimum"


def test_B7_gradient_descent_on_a_quadratic() -> None:
    """theta_k - theta* = Q (I - a Lambda)^k Q' (theta_0 - theta*), also with b' theta + c.

    By coordinates of Q: decay for 0 < a l <= 1, oscillation to 2, beyond it divergence.
    """
    values, theta = np.array([0.5, 1.0, 4.0]), np.array([1.0, -2.0, 3.0])
    h, b, c = symmetric(values), np.array([0.3, -1.0, 0.7]), 5.0
    eigenvalues, q = np.linalg.eigh(h)
    loss = lambda x: form(h)(x) + b @ x + c
    limit = float(fnn.max_stable_step(loss, theta, key=KEY))
    assert limit == pytest.approx(0.5, rel=1e-12)
    rates, k = np.array([0.2, 0.4, 0.5, 0.55, 1.0]), np.arange(31)
    run = lambda rate: fnn.trajectory(loss, theta, fnn.sgd(rate), 30).params
    bottom = -np.linalg.solve(h, b)
    for rate, path in zip(rates, np.asarray(jax.jit(jax.vmap(run))(rates)), strict=True):
        factors = (1 - rate * eigenvalues) ** k[:, None]
        want = bottom + factors * (q.T @ (theta - bottom)) @ q.T
        np.testing.assert_allclose(path, want, rtol=1e-9, atol=1e-9)
        for al, way in zip(rate * eigenvalues, ((path - bottom) @ q).T, strict=True):
            flips, grows = way[0] * way[1] < -1e-9, abs(way[-1]) > abs(way[0]) + 1e-9
            assert (flips, grows) == (al > 1 + 1e-9, al > 2 + 1e-9)


def test_B4_on_a_saddle_gradient_descent_stays() -> None:
    loss = lambda x: x[0] ** 2 - x[1] ** 2
    x, step = np.zeros(2), jax.jit(lambda x: x - 0.1 * jax.grad(loss)(x))
    assert fnn.critical_point(loss, x, key=KEY).kind == "saddle"
    for _ in range(3):
        x = step(x)
    assert x.tolist() == [0, 0]


def digits_network() -> Any:
    """242 params on 200 digits, halved in size; a penalty, so that there is a minimum."""
    train, _ = fnn.data.digits()
    small = train.x[:200].reshape(200, 4, 2, 4, 2).mean((2, 4)).reshape(200, 16)
    params = jax.jit(lambda a, b: {"a": fnn.init_dense(a, 16, 8), "b": fnn.init_dense(b, 8, 10)})(
        *jax.random.split(KEY, 2)
    )

    def loss(params: Any, batch: Any) -> Any:
        h = fnn.tanh(fnn.dense(batch[0], **params["a"]))
        scores = fnn.dense(h, **params["b"])
        square = sum((w**2).sum() for w in jax.tree.leaves(params))
        return fnn.cross_entropy(scores, batch[1]).mean() + 0.01 * square

    return loss, params, (small.astype(float), train.y[:200])


def test_B7_the_stable_step_near_a_minimum_of_a_real_network() -> None:
    """0.98 of 2 / lambda_max stays, 1.02 leaves; far from a minimum the prediction fails."""
    loss, params, batch = digits_network()
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda x: loss(unravel(x), batch))

    @functools.partial(jax.jit, static_argnames="steps")
    def descend(x: Any, rate: Any, decay: Any, steps: int) -> Any:
        def step(carry: Any, _: Any) -> Any:
            x, v = carry
            v = decay * v - rate * slope(x)
            return (x + v, v), x + v

        return jax.lax.scan(step, (x, 0 * x), length=steps)[1]

    minimum = np.asarray(descend(flat, 0.5, 0.9, steps=3000))[-1]
    point = fnn.critical_point(loss, unravel(minimum), batch, key=KEY, iterations=250)
    assert point.kind == "minimum"
    limit = fnn.max_stable_step(loss, unravel(minimum), batch, key=KEY)
    assert float(limit) == pytest.approx(2 / point.largest, rel=1e-6)
    start = minimum + 1e-4 * np.random.default_rng(3).standard_normal(minimum.shape)
    begin = np.linalg.norm(start - minimum)
    for share, stays in ((0.98, True), (1.02, False)):
        path = np.asarray(descend(start, share * float(limit), 0.0, steps=300))
        end = np.linalg.norm(path[-1] - minimum)
        assert (end < begin / 5) if stays else (end > 10 * begin)
    # At the start of the training, 0.98 of what is stable there lets the loss grow.
    far = fnn.max_stable_step(loss, params, batch, key=KEY)
    path = descend(flat, 0.98 * float(far), 0.0, steps=300)
    first, *losses = jax.jit(jax.vmap(lambda x: loss(unravel(x), batch)))(
        np.concatenate([[flat], path])
    ).tolist()
    assert max(losses) > 1.1 * first


def test_no_upward_curvature_no_limit() -> None:
    assert np.isinf(fnn.max_stable_step(lambda x: -(x**2).sum(), np.ones(2), key=KEY))
    assert np.isinf(fnn.max_stable_step(jnp.sum, np.ones(2), key=KEY))


def test_composes_and_traces_once() -> None:
    params, batch = problem()
    size, unravel = flat(params).size, ravel_pytree(params)[1]
    h = dense(network, params, batch)
    traces = []

    def loss(params: Any, batch: Any) -> Any:
        traces.append(1)
        return network(params, batch)

    columns = jax.jit(
        jax.vmap(lambda v: ravel_pytree(fnn.hvp(loss, params, unravel(v), batch))[0])
    )(np.eye(size))
    np.testing.assert_allclose(columns, h, atol=1e-12)
    traces.clear()
    for seed in range(3):
        fnn.extreme_eigenvalues(loss, params, batch, key=jax.random.key(seed), iterations=3)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("hvp", {"v": np.ones(2)}),
        ("hessian_diagonal", {}),
        ("hutchinson_diagonal", {"key": KEY, "samples": 1}),
        ("extreme_eigenvalues", {"key": KEY}),
        ("max_stable_step", {"key": KEY}),
        ("critical_point", {"key": KEY}),
    ],
)
def test_each_refuses(name: str, config: Any) -> None:
    def call(loss: Any, params: Any) -> Any:
        return getattr(fnn, name)(loss, params, **config)

    with pytest.raises(TypeError, match=rf"^fnn.{name}: loss: got loss\(x, y\); .* loss\(params\)"):
        call(lambda x, y: x.sum(), np.ones(2))
    with pytest.raises(ValueError, match=rf"fnn.{name}: loss: got float64\[2\]; .* call .mean\(\)"):
        call(lambda x: x**2, np.ones(2))
    with pytest.raises(
        TypeError, match=rf"fnn.{name}: params\[0\]: got int64\[2\]; needed a float"
    ):
        call(lambda x: 1.0, [np.arange(2)])
    if "samples" in config:
        config = {**config, "samples": 0}
        with pytest.raises(ValueError, match=f"fnn.{name}: samples: got 0; needed an int >= 1"):
            call(jnp.sum, np.ones(2))
    if name in ("extreme_eigenvalues", "max_stable_step", "critical_point"):
        config = {**config, "iterations": 0}
        with pytest.raises(ValueError, match=f"fnn.{name}: iterations: got 0; needed an int >= 1"):
            call(jnp.sum, np.ones(2))


@pytest.mark.parametrize(
    "call",
    [
        lambda *args: fnn.hvp(*args[:2], np.ones(2), *args[2:]),
        fnn.hessian_diagonal,
        functools.partial(fnn.hutchinson_diagonal, key=KEY, samples=1),
        functools.partial(fnn.extreme_eigenvalues, key=KEY),
        functools.partial(fnn.max_stable_step, key=KEY),
        functools.partial(fnn.critical_point, key=KEY),
        functools.partial(fnn.analysis.spectral_density, key=KEY),
    ],
    ids=[
        "hvp",
        "hessian_diagonal",
        "hutchinson_diagonal",
        "extreme_eigenvalues",
        "max_stable_step",
        "critical_point",
        "analysis.spectral_density",
    ],
)
def test_args_are_arrays(call: Any, request: pytest.FixtureRequest) -> None:
    loss = lambda x, batch, key: (x**2).sum() + batch["x"]
    call(loss, np.ones(2), {"x": 1.0}, KEY)
    name = request.node.callspec.id
    message = rf"fnn.{name}: args\[0\]\['x'\]: got str 'mean'; needed arrays, .*functools.partial"
    with pytest.raises(TypeError, match=message):
        call(loss, np.ones(2), {"x": "mean"}, KEY)


def test_what_counts_as_zero_at_a_critical_point() -> None:
    loss = lambda x: x[0] ** 2 + 0.01 * x[1] ** 2
    kind = lambda x, **options: fnn.critical_point(loss, np.array(x), key=KEY, **options).kind
    assert kind([1e-3, 0.0]) == "not critical"
    assert kind([1e-3, 0.0], tolerance=5e-3) == "minimum"
    assert kind([0.0, 0.0], tolerance=0.1) == "degenerate"


def test_an_eigenvalue_within_the_error_of_lanczos_has_no_sign() -> None:
    """One step between 20 eigenvalues of -1 and 20 of 1 gives one number, which may be off by 1."""
    signs, zero = np.repeat([-1.0, 1.0], 20), np.zeros(40)
    point = fnn.critical_point(lambda x: (signs * x * x).sum() / 2, zero, key=KEY, iterations=1)
    assert point.smallest == point.largest
    assert 1e-3 < abs(point.smallest) < 0.7  # far from 0, but not as far as it may be off
    assert point.kind == "degenerate"


def test_other_refusals() -> None:
    message = r"fnn.hvp: v\['w'\]: got float64\[3\]; needed the shape of float64\[2\]"
    with pytest.raises(ValueError, match=message):
        fnn.hvp(lambda p: p["w"].sum(), {"w": np.ones(2)}, {"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"fnn.critical_point: tolerance: got -1; needed"):
        fnn.critical_point(jnp.sum, np.ones(2), key=KEY, tolerance=-1)
    with pytest.raises(ValueError, match=r"fnn.hessian_diagonal: params: got no number"):
        fnn.hessian_diagonal(lambda p: jnp.zeros(()), {})


def test_curvature_of_any_size() -> None:
    """H of 1e-25 or 1e25: no norm of a product with it overflows or vanishes in float32."""
    for size in (1e-25, 1e25):
        scales = np.float32(size) * np.array([1, 2, 3, 4], np.float32)
        ends = fnn.extreme_eigenvalues(
            lambda x, s: (s * x * x).sum() / 2, 0 * scales, scales, key=KEY
        )
        np.testing.assert_allclose([ends.smallest, ends.largest], [size, 4 * size], rtol=1e-5)


def test_a_curvature_that_is_nan_limits_no_step() -> None:
    assert np.isnan(fnn.max_stable_step(lambda x: (jnp.nan * x * x).sum(), np.ones(2), key=KEY))


def test_leaves_without_numbers() -> None:
    params = {"some": np.array([1.0, 2.0]), "none": np.zeros((0, 3))}

    def loss(p: Any) -> Any:
        return (np.array([1.0, 3.0]) * p["some"] ** 2).sum() / 2 + p["none"].sum()

    assert fnn.hvp(loss, params, params)["none"].shape == (0, 3)
    np.testing.assert_allclose(fnn.hessian_diagonal(loss, params)["some"], [1, 3])
    assert fnn.critical_point(loss, jax.tree.map(np.zeros_like, params), key=KEY).largest == 3


def test_asks_for_values_where_it_answers_in_words() -> None:
    with pytest.raises(TypeError, match=r"fnn.critical_point: params: got a traced array; needed"):
        jax.jit(lambda x: fnn.critical_point(jnp.sum, x, key=KEY).largest)(np.ones(2))
    point = functools.partial(fnn.critical_point, jnp.sum, np.ones(2))
    with pytest.raises(TypeError, match=r"fnn.critical_point: tolerance: got a traced array"):
        jax.jit(lambda t: point(key=KEY, tolerance=t).largest)(1e-4)
    with pytest.raises(TypeError, match=r"fnn.critical_point: key: got a traced array"):
        jax.jit(lambda key: point(key=key).largest)(KEY)
    with pytest.raises(TypeError, match=r"fnn.critical_point: key: got int 3; needed one random"):
        fnn.critical_point(jnp.sum, np.ones(2), key=3)  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match=r"fnn.hvp: loss: got int 3; needed a function"):
        fnn.hvp(3, np.ones(2), np.ones(2))  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match=r"fnn.critical_point: loss: got NoneType None; needed a f"):
        fnn.critical_point(None, np.ones(2), key=KEY)  # type: ignore[arg-type]  # refused
    half, single = jnp.ones(2, jnp.bfloat16), np.ones(2, np.float32)
    message = r"fnn.hvp: v: got float32\[2\]; needed the dtype of bfloat16\[2\]"
    with pytest.raises(TypeError, match=message):
        fnn.hvp(lambda x: (x**2).sum(), half, single)
