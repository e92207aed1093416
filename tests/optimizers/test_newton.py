"""Newton's method, whole and diagonal: the formula, the reference systems E2, what they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn

KEY = jax.random.key(5)
BOTH = pytest.mark.parametrize("dense_up_to", [256, 0], ids=["dense", "conjugate_gradients"])


def descend(loss: Any, x: Any, optimizer: Any, steps: int = 1) -> Any:
    """The params after each step, the first included."""
    step = fnn.make_step(lambda params, batch: loss(params), optimizer)
    params, path = jax.tree.map(jnp.array, x), [x]
    state = optimizer.init(params)
    for _ in range(steps):
        params, state, _ = step(params, state, None)
        path.append(jax.tree.map(np.array, params))
    return path


def spd(n: int) -> np.ndarray:
    a = np.random.default_rng(n).standard_normal((n, n))
    return a @ a.T + np.eye(n)


def rosenbrock(x: Any) -> Any:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


@BOTH
@pytest.mark.parametrize("start", [-3.0, 1e-3, 1e6])
def test_E2_one_step_on_a_parabola(dense_up_to: int, start: float) -> None:
    _, x = descend(lambda x: x**2 / 2, start, fnn.newton(dense_up_to=dense_up_to))
    assert x == 0


@BOTH
def test_one_step_on_a_quadratic_over_a_pytree(dense_up_to: int) -> None:
    with jax.enable_x64(True):
        h, centre = jnp.asarray(spd(7)), np.arange(7.0)

        def loss(p: Any) -> Any:
            x = jnp.concatenate([p["a"].ravel(), p["b"][0], p["b"][1][None]]) - centre
            return 0.5 * x @ (h @ x)

        x = {"a": np.zeros((2, 2)), "b": (np.ones(2), np.zeros(())), "none": None}
        optimizer = fnn.newton(dense_up_to=dense_up_to)
        steps = 1 if dense_up_to else 3  # conjugate gradients stop at a relative residual of 1e-8
        *_, last = descend(loss, x, optimizer, steps)
        np.testing.assert_allclose(last["a"].ravel(), centre[:4], atol=1e-10)
        np.testing.assert_allclose(last["b"][0], centre[4:6], atol=1e-10)
        np.testing.assert_allclose(last["b"][1], centre[6], atol=1e-10)
        _, damped = descend(loss, x, fnn.newton(0.5, damping=2.0, dense_up_to=dense_up_to))
        flat = np.concatenate([x["a"].ravel(), x["b"][0], [0.0]]) - centre
        want = flat - 0.5 * np.linalg.solve(np.asarray(h) + 2 * np.eye(7), np.asarray(h) @ flat)
        np.testing.assert_allclose(damped["a"].ravel(), (want + centre)[:4], rtol=1e-6, atol=1e-7)


@BOTH
def test_E2_the_path_on_a_convex_function(dense_up_to: int) -> None:
    """x <- x - f'(x) / f''(x) on f = cosh(x / 2), as a plain loop."""
    with jax.enable_x64(True):
        optimizer = fnn.newton(dense_up_to=dense_up_to)
        path = descend(lambda x: jnp.cosh(x / 2), np.float64(2.0), optimizer, 5)
        x = 2.0
        for got in path:
            assert got == pytest.approx(x, rel=1e-12, abs=1e-15)
            x -= 2 * np.tanh(x / 2)


@BOTH
def test_downhill_from_a_saddle(dense_up_to: int) -> None:
    """x^2 - 2 y^2: the bare method would jump up to the saddle at 0."""

    def loss(x: Any) -> Any:
        return x[0] ** 2 - 2 * x[1] ** 2

    x = np.array([1.0, 0.5], np.float32)
    _, y = descend(loss, x, fnn.newton(dense_up_to=dense_up_to))
    assert loss(y) < loss(x)
    if dense_up_to:
        np.testing.assert_allclose(y, [0.0, 1.0], atol=1e-6)  # y doubles: -g / |h|
    else:  # g is (2, -2), bent by (2 - 4) / 2 = -1: a step of g / |-1|
        np.testing.assert_allclose(y, [-1.0, 2.5], atol=1e-6)


@pytest.mark.parametrize("curvatures", [(-2.0, -2.0), (3.0, -2.0)], ids=["equal", "apart"])
def test_derivative_of_the_step_by_the_curvature(curvatures: tuple[float, float]) -> None:
    """The step is -g / |h|, and with h its derivative is g sign(h) / h^2, equal or not."""
    h, x = np.float32(curvatures), np.ones(2, np.float32)
    g, optimizer = np.float32([1, 4]), fnn.newton()

    def step(h: Any) -> Any:
        state = optimizer.init(x)
        return optimizer.update(g, state, x, value_fn=lambda x: (h * x**2).sum() / 2)[0]

    slopes = jax.jit(jax.jacobian(step))(h)
    np.testing.assert_allclose(slopes, np.diag(g * np.sign(h) / h**2), rtol=1e-5, atol=1e-6)


@BOTH
def test_directions_without_curvature_stay(dense_up_to: int) -> None:
    """A dead number has no gradient and no curvature; a linear one no curvature."""

    def loss(x: Any) -> Any:
        return 3 * (x[0] - 1) ** 2 + 0 * x[1]

    _, y = descend(loss, np.array([4.0, 7.0], np.float32), fnn.newton(dense_up_to=dense_up_to))
    np.testing.assert_allclose(y, [1.0, 7.0], atol=1e-6)
    _, y = descend(jnp.sum, np.ones(2, np.float32), fnn.newton(dense_up_to=dense_up_to))
    np.testing.assert_array_equal(y, 1)


@BOTH
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_rounding_to_half_precision_is_no_curvature(dtype: Any, dense_up_to: int) -> None:
    """(a . x)^2 / 2 is curved along a alone, where the step takes all of x: the rest stays."""
    eps = float(jnp.finfo(dtype).eps)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        a, x = (jnp.asarray(rng.standard_normal(6), dtype) for _ in range(2))
        loss = lambda x, a=a: (a * x).sum() ** 2 / 2
        _, y = descend(loss, x, fnn.newton(dense_up_to=dense_up_to))
        a, x = np.float64(a), np.float64(x)
        want = x - a * (a @ x) / (a @ a)
        assert np.linalg.norm(np.float64(y) - want) < 4 * eps * np.linalg.norm(x)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_seen(dense_up_to: int, bad: float) -> None:
    optimizer, x = fnn.newton(dense_up_to=dense_up_to), jnp.ones(2)

    @jax.jit
    def step(g: Any) -> Any:
        return optimizer.update(g, optimizer.init(x), x, value_fn=lambda x: (x * x).sum())[0]

    assert np.isnan(step(jnp.array([bad, 1.0]))).any()


@BOTH
def test_rosenbrock(dense_up_to: int) -> None:
    with jax.enable_x64(True):
        x = np.array([-1.2, 1.0])
        *_, last = descend(rosenbrock, x, fnn.newton(dense_up_to=dense_up_to), 40)
        np.testing.assert_allclose(last, 1, atol=1e-9)


def test_as_many_products_as_iterations_say() -> None:
    """Two of conjugate gradients, as a plain loop; and none up to dense_up_to numbers."""
    with jax.enable_x64(True):
        h, x = spd(7), np.arange(1.0, 8.0)
        matrix = jnp.asarray(h)

        def loss(x: Any) -> Any:
            return 0.5 * x @ (matrix @ x)

        d, r = np.zeros(7), h @ x
        p = r
        for _ in range(2):
            size = (r @ r) / (p @ h @ p)
            d, following = d + size * p, r - size * h @ p
            p, r = following + (following @ following) / (r @ r) * p, following
        _, y = descend(loss, x, fnn.newton(dense_up_to=6, iterations=2))
        np.testing.assert_allclose(y, x - d, rtol=1e-10)
        _, y = descend(loss, x, fnn.newton(dense_up_to=7, iterations=2))
        np.testing.assert_allclose(y, 0, atol=1e-10)


def test_conjugate_gradients_end_where_the_residual_is_small() -> None:
    """Below sqrt(eps) |g|, here 3.5e-4: the second slope is then left as the first step has it."""
    h, x = np.float32([1, 2]), np.ones(2, np.float32)
    optimizer = fnn.newton(dense_up_to=0)
    for slope, want in ((1e-4, 1e-4), (1e-3, 1e-3 / 2)):
        g = np.float32([1, slope])
        value_fn = lambda x: (h * x**2).sum() / 2
        updates, _ = optimizer.update(g, optimizer.init(x), x, value_fn=value_fn)
        np.testing.assert_allclose(updates, [-1, -want], rtol=1e-3)


def test_many_numbers_never_form_the_hessian() -> None:
    """200,000 numbers, whose Hessian would take 160 GB: products with it alone."""
    scale = jnp.linspace(1.0, 4.0, 200_000)

    def loss(x: Any) -> Any:
        return 0.5 * (scale * (x - 1) ** 2).mean()

    _, y = descend(loss, np.zeros(200_000, np.float32), fnn.newton())
    np.testing.assert_allclose(y, 1, atol=2e-3)
    ends = fnn.extreme_eigenvalues(loss, jnp.asarray(y), key=KEY, iterations=40)
    np.testing.assert_allclose([ends.smallest, ends.largest], [5e-6, 2e-5], rtol=2e-2)


def test_E2_diagonal_newton_is_its_formula() -> None:
    with jax.enable_x64(True):
        h = spd(5)
        h[1] = h[:, 1] = 0
        h[1, 1] = -3  # by its magnitude: downhill
        x, matrix = np.arange(1.0, 6.0), jnp.asarray(h)
        optimizer = fnn.diagonal_newton(0.5, damping=0.25)
        path = descend(lambda x: 0.5 * x @ (matrix @ x), x, optimizer, 3)
        for got in path:
            np.testing.assert_allclose(got, x, rtol=1e-12)
            x = x - 0.5 * (h @ x) / (np.abs(np.diag(h)) + 0.25)


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_diagonal_newton_moves_each_of_many_numbers(damping: float) -> None:
    """Whatever the others' curvature: one of 10,000 numbers has 10,000 times that of the rest."""
    h, x = np.ones(10_000, np.float32), np.ones(10_000, np.float32)
    h[0] = 1e4
    optimizer = fnn.diagonal_newton(damping=damping, samples=1, key=KEY)
    _, y = descend(lambda x: (h * x**2).sum() / 2, x, optimizer)
    np.testing.assert_allclose(y, 1 - h / (h + damping), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("curvature", "want"), [(np.inf, 0.0), (np.nan, np.nan)])
def test_curvature_that_is_not_finite_stops_its_own_number(curvature: float, want: float) -> None:
    bends, x = np.float32([curvature, 2.0]), np.float32([0.0, 5.0])
    slope, optimizer = np.float32([1.0, 8.0]), fnn.diagonal_newton()
    value_fn = lambda x: (bends * x**2).sum() / 2
    updates, _ = optimizer.update(slope, optimizer.init(x), x, value_fn=value_fn)
    np.testing.assert_array_equal(updates, [want, -4.0])


@BOTH
def test_damping_moves_directions_of_little_curvature(dense_up_to: int) -> None:
    """However large the largest is: 200 numbers, one of them bent a million times as much."""
    h, x = np.ones(200, np.float32), np.ones(200, np.float32)
    h[0], slope = 1e6, np.ones(200, np.float32)
    optimizer = fnn.newton(damping=1.0, dense_up_to=dense_up_to)

    @jax.jit
    def update(x: Any) -> Any:
        value_fn = lambda x: (h * x**2).sum() / 2
        return optimizer.update(slope, optimizer.init(x), x, value_fn=value_fn)[0]

    np.testing.assert_allclose(update(x), -1 / (h + 1), rtol=1e-5)


def test_diagonal_newton_by_samples() -> None:
    """Exact where the Hessian is diagonal; elsewhere other draws at every step."""
    bowl = {"x": np.array([-5.0, -2.0], np.float32)}
    sampled = fnn.diagonal_newton(samples=1, key=KEY)
    _, y = descend(lambda p: p["x"][0] ** 2 + 2 * p["x"][1] ** 2, bowl, sampled)
    np.testing.assert_allclose(y["x"], 0, atol=1e-6)
    slope = jnp.array([1.0, 2.0, 3.0, 4.0])
    x, state, updates = jnp.ones(4), sampled.init(None), []
    update = jax.jit(lambda s: sampled.update(x, s, x, value_fn=lambda x: (x @ slope) ** 2))
    for _ in range(3):
        moved, state = update(state)
        updates.append(tuple(moved.tolist()))
    assert len(set(updates)) > 1


@pytest.mark.parametrize("optimizer", [fnn.newton(damping=1.0), fnn.diagonal_newton(damping=1.0)])
def test_in_train_with_half_precision(optimizer: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5], np.float32)
    traces = []

    def loss(params: Any, batch: Any) -> Any:
        traces.append(1)
        x, y = batch
        w = params["w"].astype(jnp.float32)
        return ((x @ w + params["b"] - y) ** 2).mean()

    params = {"w": jnp.zeros(3, jnp.bfloat16), "b": jnp.zeros(()), "none": None}
    reports = list(fnn.train(loss, params, optimizer, (x, y), batch_size=10, epochs=6, key=KEY))
    assert reports[-1].loss < 1e-2 * reports[0].loss
    assert reports[-1].params["w"].dtype == jnp.bfloat16
    assert len(traces) < 6, "traced for the gradient and for the curvature, but once"


def test_rate_schedule_and_chain() -> None:
    with jax.enable_x64(True):
        halves = fnn.newton(lambda step: 1 / (2 + 2 * step.astype(float)))
        path = descend(lambda x: x**2 / 2, np.float64(1.0), halves, 3)
        np.testing.assert_allclose(path, [1, 1 / 2, 3 / 8, 5 / 16], rtol=1e-12)
        clipped = optax.chain(
            optax.clip_by_global_norm(1.0), optax.GradientTransformationExtraArgs(*fnn.newton())
        )
        _, y = descend(lambda x: 2 * x @ x, np.array([3.0, 4.0]), clipped)
        np.testing.assert_allclose(y, np.array([3.0, 4.0]) - np.array([0.6, 0.8]) / 4, rtol=1e-12)
        optimizer, x = fnn.newton(), jnp.asarray(1.0)
        state = optimizer.init(x)._replace(learning_rate=jnp.asarray(0.25))
        updates, _ = optimizer.update(x, state, x, value_fn=lambda x: x**2 / 2)
        assert updates == -0.25


def test_refusals() -> None:
    x, state = jnp.ones(2), fnn.newton().init(None)
    for name in ("newton", "diagonal_newton"):
        make = getattr(fnn, name)
        with pytest.raises(ValueError, match=f"fnn.{name}: damping: got -1; needed a number >= 0"):
            make(damping=-1)
        with pytest.raises(ValueError, match=f"fnn.{name}: value_fn: got None; needed update"):
            make().update(x, state, x)
        with pytest.raises(ValueError, match=f"fnn.{name}: params: got None; needed update"):
            make().update(x, state, value_fn=jnp.sum)
        with pytest.raises(
            ValueError, match=rf"fnn.{name}: grads: got float\d\d\[3\]; needed the shape of f"
        ):
            make().update(jnp.ones(3), state, x, value_fn=jnp.sum)
        with pytest.raises(ValueError, match=rf"fnn.{name}: loss: got float32\[2\]; needed a sca"):
            make().update(x, state, x, value_fn=lambda x: x)
    with pytest.raises(ValueError, match=r"fnn.newton: iterations: got 0; needed an int >= 1"):
        fnn.newton(iterations=0)
    with pytest.raises(ValueError, match=r"fnn.newton: dense_up_to: got 'x'; needed an int >= 0"):
        fnn.newton(dense_up_to="x")
    with pytest.raises(TypeError, match=r"fnn.diagonal_newton: key: got int 3; needed one random"):
        fnn.diagonal_newton(samples=1, key=3)
    with pytest.raises(ValueError, match=r"fnn.diagonal_newton: samples: got 0; needed an int"):
        fnn.diagonal_newton(samples=0, key=KEY)
    with pytest.raises(
        ValueError, match=r"diagonal_newton: samples, key: got 2, None; needed both"
    ):
        fnn.diagonal_newton(samples=2)
