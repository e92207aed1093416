"""Marked values and their gradients, against NumPy and against the model cut in two."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from fnn.analysis import gradients_at, watch, watched
from tests.check import close

STEPS, N, D = 3, 4, 2


def net(params: Any, x: Any, act: Any = jnp.tanh) -> Any:
    """Marks in every place where they may stand."""
    h = watch(act(x @ params["in"]), "in")

    @jax.checkpoint
    def step(h: Any, w: Any) -> Any:
        h = watch(act(h @ w), "step")
        return h, act(h).sum()

    h, _ = lax.scan(step, h, params["steps"])
    h = jax.jit(lambda h: watch(2 * h, "jit"))(h)
    h = jax.vmap(lambda row: watch(row * row, "vmap"), in_axes=-1, out_axes=-1)(h)
    return h.sum()


def arguments(dtype: Any = np.float32) -> Any:
    rng = np.random.default_rng(0)
    params = {"in": rng.standard_normal((3, D)), "steps": rng.standard_normal((STEPS, D, D))}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, rng.standard_normal((N, 3))))


def oracle(params: Any, x: Any) -> Any:
    """The values and, by the recursion of back-propagation, their gradients."""
    params, x = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x))
    h = [np.tanh(x @ params["in"])]
    for w in params["steps"]:
        h.append(np.tanh(h[-1] @ w))
    values = {"in": h[0], "step": np.stack(h[1:]), "jit": 2 * h[-1], "vmap": (4 * h[-1] ** 2).T}
    delta = [8 * h[-1]]
    for w, y in zip(params["steps"][::-1], h[:0:-1], strict=True):
        delta.append((delta[-1] * (1 - y**2)) @ w.T)
    ones = np.ones((D, N))
    grads = {"in": delta[-1], "step": np.stack(delta[-2::-1]), "jit": 4 * h[-1], "vmap": ones}
    return values, grads


def assert_like(got: Any, want: Any) -> None:
    assert got.keys() == want.keys()
    for name, x in got.items():
        close(x, want[name], length=64)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64], ids=str)
def test_values_and_gradients(dtype: Any) -> None:
    with jax.enable_x64(dtype is np.float64):
        params, x = arguments(dtype)
        values, grads = watched(net)(params, x), gradients_at(net)(params, x)
        assert list(values) == list(grads) == ["in", "step", "jit", "vmap"]
        assert {v.dtype for v in (*values.values(), *grads.values())} == {jnp.dtype(dtype)}
        if dtype is jnp.bfloat16:  # seven roundings of bfloat16, each of which close allows for one
            wide = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
            for got, want in ((values, watched(net)(*wide)), (grads, gradients_at(net)(*wide))):
                for name, v in want.items():
                    most = 0.1 * max(1, np.abs(v).max())
                    np.testing.assert_allclose(got[name].astype(np.float32), v, atol=most)
            return
        want = oracle(params, x)
        assert_like(values, want[0])
        assert_like(grads, want[1])


ROUTES = {
    "jit": lambda f: jax.jit(f(jax.jit(net))),
    "checkpoint": lambda f: f(jax.checkpoint(net)),
    "checkpoint of some": lambda f: f(jax.checkpoint(net, prevent_cse=(True, False))),
    "keywords": lambda f: lambda params, x: f(functools.partial(net, act=jnp.tanh))(params, x=x),
    "functions": lambda f: lambda params, x: f(net)(params, x, act=jnp.tanh),
}


@pytest.mark.parametrize("route", ROUTES)
def test_both_compose(route: str) -> None:
    params, x = arguments()
    values, grads = oracle(params, x)
    assert_like(ROUTES[route](watched)(params, x), values)
    assert_like(ROUTES[route](gradients_at)(params, x), grads)


def test_marks_in_what_is_differentiated() -> None:
    """Where the backward pass repeats the forward pass, the marks are found once."""
    params, x = arguments()
    for model in (net, jax.checkpoint(net)):
        assert_like(watched(jax.value_and_grad(model))(params, x), oracle(params, x)[0])


def test_mapping_outside_and_inside() -> None:
    params, x = arguments()
    pair = jnp.stack([x, 2 * x])
    want = [oracle(params, y)[0] for y in pair]
    outside = jax.vmap(watched(net), (None, 0))(params, pair)
    assert_like(outside, {name: np.stack([w[name] for w in want]) for name in want[0]})
    inside = watched(jax.vmap(net, (None, 0)))(params, pair)
    for name in ("in", "jit", "vmap"):
        close(inside[name], np.stack([w[name] for w in want]), length=64)
    close(inside["step"], np.stack([w["step"] for w in want], axis=1), length=64)  # steps first


def test_derivatives_of_what_is_seen() -> None:
    params, x = arguments()

    def squares(params: Any) -> Any:
        return (watched(net)(params, x)["step"] ** 2).sum()

    def by_hand(params: Any) -> Any:
        _, h = lax.scan(
            lambda h, w: (jnp.tanh(h @ w),) * 2, jnp.tanh(x @ params["in"]), params["steps"]
        )
        return (h**2).sum()

    got, want = jax.jit(jax.grad(squares))(params), jax.jit(jax.grad(by_hand))(params)
    jax.tree.map(lambda a, b: close(a, b, length=64), got, want)

    def slope(s: Any) -> Any:
        return gradients_at(lambda s: (watch(s * x, "y") ** 3).sum())(s)["y"].sum()

    want = (6 * 2.0 * np.square(x, dtype=np.float64)).sum()
    close(jax.jit(jax.grad(slope))(2.0), want, length=12)


def unmarked(params: Any, x: Any) -> Any:
    """`net` without its marks."""

    @jax.checkpoint
    def step(h: Any, w: Any) -> Any:
        h = jnp.tanh(h @ w)
        return h, jnp.tanh(h).sum()

    h, _ = lax.scan(step, jnp.tanh(x @ params["in"]), params["steps"])
    h = jax.jit(lambda h: 2 * h)(h)
    return jax.vmap(lambda row: row * row, in_axes=-1, out_axes=-1)(h).sum()


@pytest.mark.parametrize("of", [lambda f: f, jax.value_and_grad], ids=["model", "gradient"])
def test_costs_nothing_when_nobody_asks(of: Any) -> None:
    """The program that XLA gets is the same, but for its name and the numbers of its functions."""
    args = arguments()
    texts = (jax.jit(of(f)).lower(*args).as_text() for f in (net, unmarked))
    marked, plain = (re.sub(r"jit_\w+|(?<=[>l])_\d+", "", text) for text in texts)
    assert marked == plain


def test_compiles_once() -> None:
    traces = []

    def model(x: Any) -> Any:
        traces.append(1)
        return watch(x * 2, "y").sum()

    for count, analysis in enumerate((watched, gradients_at), 1):
        for _ in range(3):
            analysis(model)(jnp.ones(2))
        assert len(traces) == count


def test_arrays_from_around_it() -> None:
    """A model may close over what is traced outside, and stale values never come back."""

    @jax.jit
    def outer(a: Any) -> Any:
        return watched(lambda x: watch(a * x, "y"))(jnp.ones(2))["y"]

    assert [outer(a)[0] for a in (2.0, 3.0)] == [2, 3]


SCALE = 1.0


def test_what_a_model_reaches_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lambda x: watch(x * SCALE, "y")
    seen = watched(model)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert seen(jnp.ones(1))["y"][0] == 2
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert [f(jnp.ones(1))["y"][0] for f in (seen, watched(model))] == [1, 1]


def test_a_model_receives_its_own_arguments() -> None:
    """A function as it was given, and nothing that a compiled program cannot hold."""
    gains = {fnn.relu: 3.0}
    seen = watched(lambda x, act: watch(x * gains[act], "y"))
    assert seen(jnp.ones(1), act=fnn.relu)["y"][0] == 3

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]  # as a dataclass has it

    message = r"analysis\.watched: an argument: got Unhashable .*; needed arrays, numbers, strings"
    with pytest.raises(TypeError, match=message):
        seen(jnp.ones(1), act=Unhashable())


def test_equal_numbers_of_other_kinds() -> None:
    """1, 1.0 and True are equal, as 0.0 and -0.0 are, and make other programs."""
    filled = watched(lambda a: watch(jnp.full(2, a), "y"))
    kinds = [filled(a)["y"].dtype for a in (1, 1.0, True, 1j)]
    assert kinds == [jnp.int32, jnp.float32, jnp.bool_, jnp.complex64]
    assert [bool(np.signbit(filled(a)["y"]).all()) for a in (0.0, -0.0)] == [False, True]


def test_other_transforms_of_the_mark() -> None:
    x = jnp.arange(3.0)
    assert watch(np.float32(2), "a") == 2
    linear = jax.linear_transpose(lambda x: 3 * watch(x, "a"), x)
    np.testing.assert_array_equal(linear(x)[0], 3 * x)
    _, tangent = jax.jvp(lambda x: watch(x, "a") ** 2, (x,), (jnp.ones(3),))
    np.testing.assert_array_equal(tangent, 2 * x)
    assert watched(jnp.sum)(x) == {}


def twice(x: Any) -> Any:
    return watch(watch(x, "a"), "a")


def loop(x: Any) -> Any:
    return lax.while_loop(lambda x: (x < 9).all(), lambda x: watch(2 * x, "a"), x)


def branch(x: Any) -> Any:
    return lax.cond(x.sum() > 0, lambda x: watch(x, "a"), lambda x: x, x)


@jax.custom_jvp
def ruled(x: Any) -> Any:
    return watch(2 * x, "a")


ruled.defjvps(lambda tangent, y, x: tangent)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: watch([1.0], "a"), "fnn.analysis.watch: x: got list .*; needed an array"),
        (lambda: watch(jnp.ones(1), ""), "fnn.analysis.watch: name: got ''; needed a string"),
        (lambda: watched(3), "fnn.analysis.watched: model: got int 3; needed a function"),
        (lambda: watched(twice)(jnp.ones(2)), "fnn.analysis.watched: name: got 'a' twice"),
        (lambda: watched(loop)(jnp.ones(2)), "fnn.analysis.watched: name: got a inside while"),
        (lambda: watched(branch)(jnp.ones(2)), "name: got a inside cond; needed a mark outside"),
        (lambda: watched(ruled)(jnp.ones(2)), "name: got a inside custom_jvp_call; needed"),
        (
            lambda: gradients_at(lambda x: watch(x, "a"))(jnp.ones(2)),
            r"fnn.analysis.gradients_at: loss: got float32\[2\]; needed a scalar",
        ),
        (
            lambda: gradients_at(lambda x: {"acc": x.sum(), "loss": x.sum()})(jnp.ones(2)),
            "fnn.analysis.gradients_at: loss: got dict .*; needed a scalar",
        ),
        (
            lambda: gradients_at(lambda x: (watch(x, "a").sum(), x))(jnp.ones(2)),
            "fnn.analysis.gradients_at: loss: got tuple .*; needed a scalar",
        ),
        (lambda: gradients_at(lambda x: None)(jnp.ones(2)), "gradients_at: loss: got NoneType"),
        (
            lambda: gradients_at(lambda x: watch(x, "a").sum().astype(float))(jnp.arange(2)),
            r"fnn.analysis.gradients_at: a: got int32\[2\]; needed an array of floating-point",
        ),
        (
            lambda: watched(jnp.sum)(jax.ShapeDtypeStruct((2,), jnp.float32)),
            r"fnn.analysis.watched: an argument: got float32\[2\] without values; needed",
        ),
        (
            lambda: gradients_at(jnp.sum)(jax.ShapeDtypeStruct((2,), jnp.float32)),
            r"fnn.analysis.gradients_at: an argument: got float32\[2\] without values; needed",
        ),
        (lambda: gradients_at(fnn)(jnp.ones(2)), "fnn.analysis.gradients_at: loss: got module"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
