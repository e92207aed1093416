"""Where formulas lose their numbers: tiny, huge and half-precision gradients, roots of zero."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from tests.optimizers.table import ALONE, walk


def along(optimizer: Any, gradients: Any, dtype: Any = jnp.float32) -> Any:
    """The updates along a list of gradients of one number."""

    def body(state: Any, g: Any) -> Any:
        updates, state = optimizer.update(g[None], state, jnp.zeros(1, dtype))
        return state, updates[0]

    @jax.jit
    def run(gradients: Any) -> Any:
        return lax.scan(body, optimizer.init(jnp.zeros(1, dtype)), gradients)[1]

    return run(jnp.asarray(gradients, dtype))


def in_double(optimizer: Any, gradients: Any) -> Any:
    with jax.enable_x64(True):
        return along(optimizer, gradients, jnp.float64)


def test_adam_in_float16_after_the_gradient_is_gone() -> None:
    updates = along(fnn.adam(1e-3), [1e-3, 0.0], jnp.float16)
    np.testing.assert_allclose(np.float64(updates), [-0.001, -0.00067], rtol=2e-3)
    assert updates.dtype == jnp.float16


@pytest.mark.parametrize("in_root", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_centered_rmsprop_where_the_variance_is_zero(
    in_root: bool, corrected: bool, momentum: float
) -> None:
    """``v - m^2`` rounds below zero, with these gradients first at step 173."""
    optimizer = fnn.rmsprop(
        0.1, centered=True, eps_in_root=in_root, bias_correction=corrected, momentum=momentum
    )
    updates = along(optimizer, [10.0] * 5 + [1.0] * 395)
    most = 0.1 / 1e-8 ** (0.5 if in_root else 1) / (1 - momentum)  # where the variance is 0
    assert np.isfinite(updates).all()
    assert (updates < 0).all()
    assert np.abs(updates).max() <= most * 10 * (1 + 1e-5)


SQUARES = ["adagrad", "rmsprop", "rmsprop, centered", "adadelta", "adam", "adam, early",
           "amsgrad", "adamax", "nadam", "muon"]  # fmt: skip


@pytest.mark.parametrize("name", SQUARES)
def test_one_gradient_of_1e20(name: str) -> None:
    """Every step of a path in float64, of which a square is beyond float32."""
    optimizer, gradients = ALONE[name](), [1.0, 1e20, 1.0, -2.0, 3.0, 0.0]
    got, want = along(optimizer, gradients), in_double(optimizer, gradients)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-9)
    assert np.abs(want[1]) > 1e-4


def test_adagrad_moves_on_after_many_huge_gradients() -> None:
    """Their sum of squares stays at the largest number; an infinite gradient makes it infinite."""
    optimizer, huge = fnn.adagrad(2.0**64), jnp.full(1, 1e19)
    state = optimizer.init(huge)
    largest = jnp.full(1, jnp.finfo(jnp.float32).max)
    state = state._replace(moments={"sum_of_squares": largest})
    for g, want in ((huge, -1.0), (huge, -1.0), (huge * jnp.inf, None), (huge, -0.0)):
        updates, state = optimizer.update(g, state)
        assert want is None or updates.tolist() == [pytest.approx(want * 2**60)]


@pytest.mark.parametrize("make", [fnn.adagrad, fnn.rmsprop, fnn.adadelta, fnn.adam])
def test_squares_beyond_half_moments_stay_at_their_largest_number(make: Any) -> None:
    updates = along(make(1.0, half_moments=True), [3e4, 1.0, 256.0], jnp.float16)
    assert np.isfinite(updates).all()
    assert (updates < 0).all()
    if make is fnn.adagrad:
        want = -256 / np.sqrt(65504.0 + 256**2)
        np.testing.assert_allclose(np.float64(updates[2]), want, rtol=1e-3)
    assert not np.isfinite(along(make(1.0, half_moments=True), [np.inf], jnp.float16)).any()


def test_infinite_and_undefined_gradients_are_seen() -> None:
    bad = np.array([np.inf, -np.inf, np.nan], np.float32)

    def first(name: str) -> Any:
        return jax.vmap(lambda g: along(ALONE[name](), g[None])[0])(bad)

    firsts = jax.jit(lambda: {n: first(n) for n in SQUARES})()
    for name, updates in firsts.items():
        assert not np.isfinite(updates).any(), (name, updates)


@pytest.mark.parametrize("name", [n for n in ALONE if "b2" in ALONE[n].numbers and n != "adamw"])
def test_bias_is_corrected_for_long_means(name: str) -> None:
    """1 - (1 - 1e-6) is 1 % off in float32."""
    optimizer = ALONE[name](b1=1 - 1e-6, b2=1 - 1e-6, **dict.fromkeys(
        {"eps", "eps_root"} & set(ALONE[name].numbers), 1e-9))  # fmt: skip
    gradients = [1.0, -0.5, 2.0]
    np.testing.assert_allclose(
        along(optimizer, gradients), in_double(optimizer, gradients), rtol=3e-5, atol=1e-7
    )


def test_first_step_of_adam_with_a_long_mean_square() -> None:
    assert float(along(fnn.adam(1.0, b2=1 - 1e-6), [1.0])[0]) == pytest.approx(-1, rel=1e-6)


def test_clipping_keeps_what_is_beside_a_huge_gradient() -> None:
    for limit, grads, want in (
        (1.0, [1e20, 1, 1], [1, 1e-20, 1e-20]),
        (1.0, [3e38, 3e38], [0.5**0.5] * 2),  # of which the norm itself is beyond float32
        (1.0, [1e-30, 0], [1e-30, 0]),
        (1e-30, [3e-25, 4e-25], [6e-31, 8e-31]),
    ):
        clip = fnn.clip_by_global_norm(limit)
        got, _ = jax.jit(clip.update)(np.array(grads, np.float32), ())
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_the_derivative_of_clipping_at_zero_is_the_identity() -> None:
    for clip in (fnn.clip_by_global_norm(1.0), fnn.clip_by_value(1.0)):
        jacobian = jax.jit(jax.jacobian(lambda g, c=clip: c.update(g, ())[0]))(jnp.zeros(3))
        np.testing.assert_array_equal(jacobian, np.eye(3))


def test_derivative_of_adam_at_zero_is_that_of_its_formula() -> None:
    """-rate / eps, as the root adds nothing; no NaN in the second derivative either."""

    def first(g: Any) -> Any:
        return along(fnn.adam(0.5, eps=1e-2), g[None])[0]

    assert jax.jit(jax.grad(first))(0.0) == pytest.approx(-0.5 / 1e-2, rel=1e-6)
    assert np.isfinite(jax.jit(jax.grad(jax.grad(first)))(0.0))


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1.0, 1e20])
def test_muon_whatever_the_size_of_the_gradient(size: float) -> None:
    eye = np.eye(3, dtype=np.float32)
    opt = fnn.muon(1.0)
    of = jax.jit(lambda g: opt.update(g, opt.init(eye), 0 * eye)[0])
    updates, want = of(np.float32(size) * eye), of(eye)
    np.testing.assert_allclose(updates, want, rtol=1e-5, atol=1e-7)
    assert (np.linalg.svd(updates)[1] > 0.6).all()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e20])
def test_the_derivative_of_muon(size: float) -> None:
    """By finite differences: eps is beside the largest number, so that it moves with that."""
    with jax.enable_x64(True):
        opt, like = fnn.muon(1.0, eps=0.1), np.zeros((2, 3))
        update = jax.jit(lambda g: opt.update(g, opt.init(like), like)[0])
        g, h = size * np.array([[1.0, -2.0, 0.5], [3.0, 0.2, 1.0]]), 1e-6 * size
        slopes = np.asarray(jax.jit(jax.jacobian(update))(g))
        for at in np.ndindex(g.shape):
            step = np.zeros_like(g)
            step[at] = h
            want = (update(g + step) - update(g - step)) / (2 * h)
            np.testing.assert_allclose(slopes[..., *at] * size, want * size, atol=1e-6)


@pytest.mark.parametrize("dense_up_to", [256, 0])
@pytest.mark.parametrize(("size", "bend"), [(1e25, 1.0), (1e-25, 1.0), (1.0, 1e20), (1.0, 1e-20)])
def test_newton_whatever_the_size_of_the_loss(dense_up_to: int, size: float, bend: float) -> None:
    h = np.array([[2.0, 1.0], [1.0, 3.0]], np.float32) * np.float32(bend)
    x = np.array([1.0, -2.0], np.float32) * np.float32(size)
    opt = fnn.newton(dense_up_to=dense_up_to)

    @jax.jit
    def step(h: Any, x: Any) -> Any:
        return opt.update(h @ x, opt.init(x), x, value_fn=lambda y: y @ (h @ (y / 2)))[0]

    updates = step(h, x)
    np.testing.assert_allclose(updates, -x, rtol=1e-3)


@pytest.mark.parametrize("dense_up_to", [256, 0])
def test_newton_is_differentiated_where_eigenvalues_are_equal(dense_up_to: int) -> None:
    """Through the Hessian too, by the derivative of ``H x = g``; that of `eigh` is NaN."""
    opt = fnn.newton(0.5, dense_up_to=dense_up_to, damping=0.25)
    x, g = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.5, 1.0, -1.0])

    def moved(a: Any, g: Any) -> Any:
        """The step at the loss ``(1 + a) |x|^2 / 2``, plus curvature between the numbers."""
        loss = lambda x: (1 + a) * x @ x / 2 + a * x[0] * x[1]
        return opt.update(g, opt.init(x), x, value_fn=loss)[0] @ jnp.array([1.0, 2.0, 3.0])

    def formula(a: Any, g: Any) -> Any:
        h = (1.25 + a) * jnp.eye(3) + a * jnp.zeros((3, 3)).at[0, 1].set(1).at[1, 0].set(1)
        return -0.5 * jnp.linalg.solve(h, g) @ jnp.array([1.0, 2.0, 3.0])

    slopes = jax.jit(lambda a, g: [jax.grad(f, (0, 1))(a, g) for f in (moved, formula)])
    for place in (0.0, 0.3):
        for a, b in zip(*slopes(place, g), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)
    assert np.isfinite(slopes(0.0, 0 * g)[0][0])


def test_magnitudes_are_differentiated_where_the_loss_bends_down() -> None:
    """|H| of a saddle, against central differences in float64."""
    with jax.enable_x64(True):
        opt, g = fnn.newton(damping=0.5), jnp.array([0.5, 1.0])

        def moved(a: Any) -> Any:
            h = jnp.array([[2.0, 0.0], [0.0, -1.0]]) + a * jnp.array([[1.0, 3.0], [3.0, -2.0]])
            loss = lambda x: x @ (h @ x) / 2
            return opt.update(g, opt.init(g), g, value_fn=loss)[0] @ jnp.array([1.0, 2.0])

        value, slope = (jax.jit(f) for f in (moved, jax.grad(moved)))
        want = (float(value(0.1 + 1e-6)) - float(value(0.1 - 1e-6))) / 2e-6
        assert slope(0.1) == pytest.approx(want, rel=1e-7)


def test_the_counter_of_steps_stays_at_the_largest() -> None:
    """And the update is that of any late step."""
    opt, last = fnn.adam(0.1, nesterov=True), jnp.int32(2**31 - 1)
    start = opt.init(jnp.ones(1))
    late, _ = opt.update(jnp.ones(1), start._replace(step=jnp.int32(10**9)))
    updates, state = opt.update(jnp.ones(1), start._replace(step=last))
    assert state.step == last
    np.testing.assert_array_equal(updates, late)


def test_adamax_without_eps_is_differentiated_at_zero() -> None:
    """A largest magnitude of zero counts as 1e-19, as the roots of the other optimizers do."""
    updates = along(fnn.adamax(0.1, eps=0.0), [0.0, 0.0, 3.0, 0.0])
    assert updates[:2].tolist() == [0.0, 0.0]
    assert np.isfinite(updates).all()
    slope = jax.jit(jax.grad(lambda g: along(fnn.adamax(0.1, eps=0.0), g[None])[0]))(0.0)
    assert np.isfinite(slope)
    assert slope < 0


def test_radam_whose_longest_mean_is_as_long_as_its_threshold() -> None:
    """With b2 = 0.6 its length p rises to 4, where r would be 0 / 0: plain means to the end."""
    updates = along(fnn.radam(0.1, b2=0.6, threshold=4.0), [2.0] * 60)
    np.testing.assert_allclose(updates, -0.2, rtol=1e-5)


def test_slow_parameters_of_half_precision_add_up() -> None:
    """A hundredth of a step is below half a unit of bfloat16."""
    opt, x = fnn.lookahead(fnn.sgd(2.0**-6), 1, slow_rate=0.1), jnp.ones(1, jnp.bfloat16)
    state = opt.init(x)
    for _ in range(8):
        updates, state = opt.update(jnp.ones(1, jnp.bfloat16), state, x)
        x = x + updates
    assert state.slow.dtype == jnp.float32
    assert float(state.slow[0]) < 1 - 2.0**-8


def test_moments_are_found_by_their_names_in_optax() -> None:
    import optax

    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    names = {
        "adam": ["mu", "nu"], "adamw": ["mu", "nu"], "amsgrad": ["mu", "nu", "nu_max"],
        "adamax": ["mu", "nu"], "nadam": ["mu", "nu"], "radam": ["mu", "nu"], "lion": ["mu"],
        "rmsprop": ["nu"], "adagrad": ["sum_of_squares"], "adadelta": ["e_g", "e_x"],
    }  # fmt: skip

    def after_a_step(optimizer: Any) -> Any:
        return optimizer.update(params, optimizer.init(params), params)[1]

    @jax.jit
    def states() -> Any:
        pairs = {name: [getattr(lib, name)(0.1) for lib in (fnn, optax)] for name in names}
        return {name: list(map(after_a_step, pair)) for name, pair in pairs.items()}

    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        for name, pair in states().items():
            for moment in names[name]:
                mine, theirs = (optax.tree.get(state, moment) for state in pair)
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), mine, theirs)
    state = optax.sgd(0.1, momentum=0.9).init(params)
    own = fnn.sgd(0.1, momentum=0.9).init(params)
    assert jax.tree.structure(optax.tree.get(own, "trace")) == jax.tree.structure(
        optax.tree.get(state, "trace")
    )


def test_debiased_average_forgets_where_it_began() -> None:
    opt, x = fnn.chain(fnn.sgd(1.0), fnn.average(0.75, debias=True)), jnp.array([8.0])
    state, weights, seen = opt.init(x), [], []
    for t in range(5):
        updates, state = opt.update(jnp.array([1.0]), state, x)
        x = x + updates
        seen.append(float(x[0]))
        weights = [0.75 ** (t - i) for i in range(t + 1)]
    np.testing.assert_allclose(fnn.averaged(state), [np.average(seen, weights=weights)], rtol=1e-6)
    with pytest.raises(ValueError, match=r"fnn.average: debias: got True; needed a decay with it"):
        fnn.average(debias=True)


def test_an_average_is_of_the_dtype_of_its_params() -> None:
    """Whatever kind of number its decay is."""
    with jax.enable_x64(True):
        opt, x = fnn.average(np.float64(0.75)), jnp.ones(2, jnp.float32)
        _, state = opt.update(x, opt.init(x), x)
        assert state.average.dtype == jnp.float32
        np.testing.assert_array_equal(state.average, 1.25)


def test_walk_is_the_loop_that_it_stands_for() -> None:
    """The helper of the tests that cross all optimizers."""
    opt, x = fnn.momentum(0.5, 0.5), jnp.array([2.0])
    assert walk(opt, x, [1.0, 0.0, -1.0])[:, 0].tolist() == [-1.0, -0.5, 0.75]


def test_slow_parameters_further_away_than_float16_reaches() -> None:
    """78,000 from the fast ones: an update of 65504, and not of infinity, which stayed for good."""
    opt, x = fnn.lookahead(fnn.sgd(1.0), 3, slow_rate=0.1), jnp.array([6e4], jnp.float16)
    state, seen = opt.init(x), []
    for g in (6e4, 3e4, 3e4, 0.0, 0.0, 0.0):
        updates, state = opt.update(jnp.array([g], jnp.float16), state, x)
        x = x + updates
        seen.append(float(x[0]))
    first = float(np.float16(65504 - 30000))
    np.testing.assert_allclose(seen[:5], [0, -30000, first, first, first])
    assert seen[5] == float(np.float16(48000 + 0.1 * (first - 48000)))
