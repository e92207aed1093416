"""Gradient checking: what is right passes, what is wrong is found by its path, kinks are named."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.analysis import assert_gradients, check_gradients

KEY = jax.random.key(1)


@jax.custom_vjp
def squared(x: Any) -> Any:
    return x**2


# A planted error: one entry of the gradient is 0.1 % too large.
squared.defvjp(lambda x: (x**2, x), lambda x, ct: (ct * 2 * x * jnp.ones_like(x).at[1].set(1.001),))


def network(params: Any, batch: Any) -> Any:
    x, labels = batch
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv"])), 2)
    return fnn.cross_entropy(fnn.dense(fnn.flatten(x), **params["head"]), labels).mean()


def problem() -> Any:
    params = {
        "conv": fnn.init_conv(jax.random.key(0), (3, 3), 1, 2),
        "head": fnn.init_dense(KEY, 8, 3),
    }
    x = np.random.default_rng(0).standard_normal((6, 4, 4, 1)).astype(np.float32)
    return params, (x, np.arange(6) % 3)


def test_B1_every_entry_of_a_network() -> None:
    params, batch = problem()
    check = check_gradients(network, params, batch)
    counts = {leaf.path: leaf.checked for leaf in check.leaves}
    assert counts == {"conv/w": 18, "conv/b": 2, "head/w": 24, "head/b": 3}
    errors = [leaf.relative for leaf in check.leaves]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1e-6
    assert check.h == pytest.approx(2.0 ** (-52 / 3))
    lines = str(check).splitlines()
    assert lines[0] == "jax.grad against (L(x+h) - L(x-h)) / 2h in float64, h = 6.1e-06 max(1, |x|)"
    assert [line.split()[0] for line in lines[2:]] == [leaf.path for leaf in check.leaves]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64], ids=str)
def test_float64_inside_whatever_there_is_outside(dtype: Any) -> None:
    with jax.enable_x64(dtype is np.float64):
        x = np.array([0.3, -2.0]).astype(dtype)
        data = (np.array([1.0, 2.0]).astype(dtype), np.arange(2), KEY)
        (leaf,) = check_gradients(lambda x, d: (jnp.sin(x) * d[0][d[1]]).sum(), x, data).leaves
        assert leaf.relative < 1e-9
        assert jnp.result_type(float) == (np.float64 if dtype is np.float64 else np.float32)


def test_B1_errors_against_h() -> None:
    """Two-sided h^2 |L'''| / 6, one-sided h |L''| / 2, until rounding takes over."""
    point = np.array([0.5])
    third, second = np.sin(0.5) / 1.0, np.cos(0.5)  # of cos, whose gradient is -sin

    def error(h: float, two_sided: bool) -> float:
        leaf = check_gradients(lambda x: jnp.cos(x).sum(), point, h=h, two_sided=two_sided).leaves[
            0
        ]
        return leaf.absolute

    for h in (1e-2, 1e-3, 1e-4):
        assert error(h, True) == pytest.approx(h**2 * third / 6, rel=1e-2)
        assert error(h, False) == pytest.approx(h * second / 2, rel=1e-2)
    for two_sided in (True, False):
        best = check_gradients(lambda x: jnp.cos(x).sum(), point, two_sided=two_sided)
        assert best.leaves[0].absolute < (1e-10 if two_sided else 2e-8)
        assert error(1e-13, two_sided) > 1e-5  # rounding of the loss over h


def test_B1_the_worst_entry_by_its_path() -> None:
    def loss(params: Any, x: Any) -> Any:
        return (squared(params["deep"][1]["w"]) * x).sum() + (params["first"] ** 2).sum()

    params = {"deep": [{"w": np.ones(3)}, {"w": np.array([1.0, 2.0, 3.0])}], "first": np.ones(2)}
    check = check_gradients(loss, params, np.ones(3))
    worst = check.leaves[0]
    assert (worst.path, worst.place) == ("deep/1/w", (1,))
    assert (worst.gradient, worst.difference) == pytest.approx((4.004, 4.0))
    assert (worst.absolute, worst.relative) == pytest.approx((4e-3, 1e-3), rel=1e-2)
    assert all(leaf.relative < 1e-8 for leaf in check.leaves[1:])
    with pytest.raises(
        AssertionError, match=r"gradient of deep/1/w\[1\] is 4.004, .* 4: .* 1.0e-03"
    ):
        assert_gradients(loss, params, np.ones(3))
    assert_gradients(loss, params, np.ones(3), tolerance=2e-3)


def test_B1_two_passes_for_an_entry_where_reverse_mode_takes_a_few_for_all() -> None:
    passes: list[int] = []

    def loss(x: Any, w: Any) -> Any:
        jax.debug.callback(lambda: passes.append(1))
        return jnp.tanh(w @ x).sum()

    def flops(function: Any, size: int) -> float:
        shapes = ((size,), (size, size))
        x, w = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        return float(jax.jit(function).lower(x, w).compile().cost_analysis()["flops"])

    for size in (5, 9):
        passes.clear()
        check_gradients(loss, np.ones(size), np.ones((size, size)))
        jax.effects_barrier()
        assert len(passes) == 2 * size + 2  # and one at the point itself, one for `jax.grad`
    ratios = [flops(jax.grad(loss), size) / flops(loss, size) for size in (20, 200)]
    assert 1 < min(ratios) <= max(ratios) < 4


def test_kinks_are_named_and_are_no_errors() -> None:
    def loss(x: Any) -> Any:
        return (fnn.relu(x) * jnp.arange(1.0, 5.0, dtype=x.dtype)).sum()

    at = np.array([0.0, 1.0, 1e-7, -2e-6])  # at the kink, away, and beside it within h
    (leaf,) = check_gradients(loss, at).leaves
    assert (leaf.checked, leaf.kinks, leaf.kink, leaf.relative < 1e-8) == (1, 3, (0,), True)
    assert_gradients(loss, at)
    assert "3 at a kink of the loss, the first at [0]" in str(check_gradients(loss, at))
    tie = np.array([2.0, 2.0])
    assert_gradients(lambda x: fnn.max_pool(x.reshape(1, 2, 1), 2).sum(), tie)
    assert_gradients(lambda x: (x > 0).astype(x.dtype).sum(), np.zeros(1))  # a jump
    one_sided = check_gradients(loss, at, two_sided=False).leaves[0]
    assert (one_sided.kinks, one_sided.checked) == (1, 3)


@pytest.mark.parametrize(("kink", "curvature"), [(1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)])
def test_a_kink_with_curvature_on_both_sides_is_named(kink: float, curvature: float) -> None:
    """The gradient at 0, 1/2, is an end of what lies between the slopes of the sides."""

    def loss(x: Any) -> Any:
        return (0.5 * x + kink * fnn.relu(x) + curvature * x**2 / 2).sum()

    (leaf,) = check_gradients(loss, np.zeros(1)).leaves
    assert (leaf.kinks, leaf.relative) == (1, 0)


MATRIX = np.random.default_rng(0).standard_normal((7, 3))
MINIMA = {
    "at 1": lambda x, c: ((x / c - 1) ** 2).sum(),
    "of a product": lambda x, c: ((MATRIX @ x - MATRIX @ c) ** 2).mean(),
    "of a wave": lambda x, c: -jnp.cos(x - c).sum(),
}


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("name", MINIMA)
def test_the_minimum_of_a_smooth_loss_is_no_kink(name: str, scale: float) -> None:
    """What differs there is rounding of x +- h, of which the loss, near 0, has none."""
    c = scale * np.array([1.0, -2.0, 3.3])
    assert_gradients(MINIMA[name], c, c)
    assert check_gradients(MINIMA[name], c, c).leaves[0].kinks == 0


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
def test_the_minimum_over_a_bias_of_large_data_is_no_kink(size: float) -> None:
    """What differs there is rounding of data that are far larger than the parameter."""
    data = size * np.array([1.0, -2.0, 3.3])
    loss = lambda bias, data: ((data + bias - data) ** 2).sum()
    (leaf,) = check_gradients(loss, np.zeros(3), data).leaves
    assert (leaf.checked, leaf.kinks, leaf.relative < 1e-5) == (3, 0, True)


@pytest.mark.parametrize("h", [None, 1e-10, 1e-14])
def test_kinks_at_1_are_named_whatever_the_step(h: float | None) -> None:
    for loss in (lambda x: jnp.abs(x - 1).sum(), lambda x: fnn.relu(1 - x).sum()):
        (leaf,) = check_gradients(loss, np.ones(3), h=h).leaves
        assert (leaf.checked, leaf.kinks) == (0, 3)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_kinks_far_from_0_are_named(scale: float) -> None:
    """Beside curvature too, and a wrong gradient there is an error."""
    c = scale * np.array([1.0, -2.0, 3.3])
    for loss in (
        lambda x, c: fnn.relu(x - c).sum(),
        lambda x, c: (jnp.abs(x - c) + 0.5 * x).sum(),
        lambda x, c: (fnn.relu(x - c) + (x - c) ** 2 / 2).sum(),
        lambda x, c: jnp.where(x > c, x - c, 2 * (c - x)).sum(),
    ):
        assert check_gradients(loss, c, c).leaves[0].kinks == 3
    for loss in (lambda x, c: bent(x - c).sum(), lambda x, c: (bent(x - c) + (x - c) ** 2).sum()):
        with pytest.raises(AssertionError, match=r"gradient of params\[\d\] is 1.5"):
            assert_gradients(loss, c, c)


@jax.custom_jvp
def bent(x: Any) -> Any:
    return jnp.abs(x)


bent.defjvps(lambda tangent, y, x: 1.5 * tangent)  # no slope that |x| has to either side


def test_a_wrong_gradient_at_a_kink_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"gradient of params\[0\] is 1.5"):
        assert_gradients(lambda x: bent(x).sum(), np.zeros(1))


def bowl(x: Any, slope: Any, curvature: Any) -> Any:
    return slope * x + curvature * x**2 / 2


@jax.custom_jvp
def wrong_bowl(x: Any, slope: Any, curvature: Any) -> Any:
    return bowl(x, slope, curvature)


wrong_bowl.defjvps(lambda tangent, y, x, s, c: tangent * (1.01 * s + c * x), None, None)


@pytest.mark.parametrize("slope", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("curvature", [1e-3, 1.0, 1e3])
def test_small_gradients_beside_curvature(slope: float, curvature: float) -> None:
    """Curvature hides no wrong gradient, and is not taken for a kink or an error."""
    args = [np.array(number) for number in (0.0, slope, curvature)]
    assert_gradients(bowl, *args)
    (leaf,) = check_gradients(wrong_bowl, *args).leaves
    assert (leaf.kinks, leaf.relative > 1e-5) == (0, True)


def test_what_rounding_of_the_loss_hides_is_no_error() -> None:
    assert_gradients(lambda x: 1 + 1e-9 * jnp.sin(x).sum(), np.arange(9.0))
    with pytest.raises(AssertionError):  # what it does not hide is
        assert_gradients(lambda x: 1 + 1e-5 * squared(x).sum(), np.arange(1.0, 4.0))


def test_a_random_sample_of_large_leaves() -> None:
    params = {"large": np.ones((30, 40)), "small": np.ones(3), "none": np.ones((0, 2))}
    traces = []

    def loss(params: Any) -> Any:
        traces.append(1)
        return sum((x**2).sum() for x in params.values())

    checks = [check_gradients(loss, params, entries=5, key=jax.random.key(i)) for i in range(2)]
    assert [{s.path: s.checked for s in c.leaves} for c in checks] == [{"large": 5, "small": 3}] * 2
    assert len(traces) < 8  # of one program, not one per entry or key
    wrong = np.ones(2000)
    wrong[777] = 2
    with pytest.raises(AssertionError, match=r"params\[777\]"):
        assert_gradients(lambda x: squared_at(x, 777), wrong, entries=1999, key=KEY)
    few, one = wrong[757:797], functools.partial(squared_at, place=20)
    drawn = [check_gradients(one, few, entries=10, key=jax.random.key(i)) for i in range(30)]
    assert 0 < sum(c.leaves[0].relative > 1e-5 for c in drawn) < 30


def squared_at(x: Any, place: int) -> Any:
    return (jnp.roll(squared(jnp.roll(x, 1 - place)), place - 1)).sum()


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_smallest_step_changes_every_number(two_sided: bool) -> None:
    x = np.array([0.0, 1e-300, 1.0, -1.9999, 3.0, 1e30])
    (leaf,) = check_gradients(total, x, h=8 * 2.0**-52, two_sided=two_sided).leaves
    assert np.isfinite([leaf.difference, leaf.absolute]).all()
    kinked = np.array([0.0, 1.0, -3.9999])
    (leaf,) = check_gradients(
        lambda x: jnp.abs(x).sum(), kinked, h=8 * 2.0**-52, two_sided=two_sided
    ).leaves
    assert np.isfinite([leaf.difference, leaf.absolute]).all()


def test_numbers_that_are_not_finite() -> None:
    check = check_gradients(
        lambda p: jnp.log(p["a"]).sum() + p["b"].sum(),
        {"a": np.array([1.0, -1.0]), "b": np.ones(1)},
    )
    assert check.leaves[0].relative == np.inf
    with pytest.raises(AssertionError, match="nan"):
        assert_gradients(lambda x: jnp.log(x).sum(), -np.ones(1))


def test_one_sided_differences_at_the_end_of_a_domain() -> None:
    """To the other side the loss is no number."""
    loss = lambda x: jnp.where(x < 0, jnp.nan, jnp.sin(x)).sum()
    (leaf,) = check_gradients(loss, np.array([0.0, 1.0]), two_sided=False).leaves
    assert (leaf.checked, leaf.kinks, leaf.relative < 1e-7) == (2, 0, True)
    with pytest.raises(AssertionError, match="nan"):
        assert_gradients(loss, np.array([0.0, 1.0]))


def total(x: Any) -> Any:
    return x.sum()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(3, np.ones(2)), "loss: got int 3; needed a function"),
        (
            lambda f: f(lambda x: x, np.ones(2), np.ones(2)),
            r"loss: got loss\(x\); needed loss\(params, args\[0\]\)$",
        ),
        (lambda f: f(lambda x: x, np.ones(2)), r"loss: got float64\[2\]; needed a scalar"),
        (
            lambda f: f(total, np.arange(2, dtype=np.int32)),
            r"params: got int32\[2\]; needed a float",
        ),
        *(
            (lambda f, h=h: f(total, np.ones(2), h=h), f"h: got {h}; needed a number >= 1.776")
            for h in (0.0, 1e-17, np.inf, np.nan)
        ),
        (
            lambda f: f(total, np.ones(2), two_sided="no"),
            "two_sided: got str 'no'; needed True or False",
        ),
        (lambda f: f(total, np.ones(2), entries=0, key=KEY), "entries: got 0; needed an int"),
        (lambda f: f(total, np.ones(2), entries=1), "key: got None; needed a random key"),
        (lambda f: f(total, np.ones(2), entries=1, key=3), "key: got int 3; needed one random"),
        (
            lambda f: f(lambda x: total(x).astype(jnp.float32), np.ones(2)),
            r"loss: got float32\[\]; needed float64 for float64",
        ),
        (lambda f: jax.jit(lambda x: f(total, x))(np.ones(2)), "params: got a traced array"),
        (lambda f: f(total, np.ones((0, 2))), "params: got no number; needed at least one"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    for f in (check_gradients, assert_gradients):
        with pytest.raises((TypeError, ValueError), match=f"fnn.analysis.{f.__name__}: {message}"):
            call(f)
    with pytest.raises(ValueError, match="assert_gradients: tolerance: got 0; needed a number > 0"):
        assert_gradients(total, np.ones(2), tolerance=0)
