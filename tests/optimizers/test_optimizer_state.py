"""What optimizers share: the rate in the state, any pytree, errors that name the path."""

import dataclasses
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.optimizers.base import Rate, State
from tests.optimizers.table import value


def test_learning_rate_is_read_and_replaced_without_a_trace() -> None:
    traces = []
    opt = optax.chain(optax.clip(1.0), fnn.chain(fnn.clip_by_value(1.0), fnn.adam(0.5)))

    @jax.jit
    def update(g: Any, state: Any) -> Any:
        traces.append(1)
        return opt.update(g, state)

    g = jnp.ones(2)
    state = opt.init(g)
    _, state = update(g, state)
    assert float(fnn.learning_rate(state)) == 0.5
    for rate in (0.25, np.float64(0.125), jnp.float32(2.0)):
        updates, state = update(g, fnn.with_learning_rate(state, rate))
        assert float(fnn.learning_rate(state)) == float(rate)
        np.testing.assert_allclose(updates, -float(rate), rtol=1e-4)
    assert len(traces) == 1


def test_learning_rate_follows_the_schedule() -> None:
    schedule = fnn.schedules.power(1.0, -1)
    opt = fnn.sgd(schedule)
    state = opt.init(jnp.zeros(1))
    for step in range(4):
        assert float(fnn.learning_rate(state)) == pytest.approx(1 / (step + 1))
        updates, state = opt.update(jnp.ones(1), state)
        assert float(updates[0]) == pytest.approx(-1 / (step + 1))


def test_learning_rate_may_be_a_traced_array() -> None:
    """Many rates at once, by vmap."""

    def last(rate: Any) -> Any:
        opt = fnn.momentum(rate)
        return opt.update(jnp.ones(2), opt.init(jnp.ones(2)))[0]

    rates = np.array([0.5, 0.25], np.float32)
    want = -rates[:, None] * np.ones((1, 2))
    np.testing.assert_allclose(jax.jit(jax.vmap(last))(rates), want, rtol=1e-6)


def test_learning_rate_errors() -> None:
    with pytest.raises(ValueError, match=r"fnn.learning_rate: state: got 0 leaves .*exactly one"):
        fnn.learning_rate(optax.sgd(0.1).init(jnp.zeros(1)))
    twice = fnn.chain(fnn.sgd(0.1), fnn.sgd(0.2)).init(jnp.zeros(1))
    with pytest.raises(ValueError, match="got 2 leaves"):
        fnn.with_learning_rate(twice, 0.1)
    state = fnn.sgd(0.1).init(jnp.zeros(1))
    for rate in (True, jnp.ones(1)):
        with pytest.raises(TypeError, match=r"with_learning_rate: rate: got .*; needed a number"):
            fnn.with_learning_rate(state, rate)


def test_the_learning_rates_of_many_states_are_replaced_at_once() -> None:
    states = jax.vmap(lambda rate: fnn.sgd(rate).init(jnp.ones(2)))(jnp.array([0.5, 0.25]))
    for rate, want in ((0.125, [0.125, 0.125]), (jnp.array([1.0, 2.0]), [1.0, 2.0])):
        replaced = fnn.with_learning_rate(states, rate)
        assert fnn.learning_rate(replaced).tolist() == want
    needed = r"needed a number, or real numbers of shape \(2,\)"
    for bad, message in (
        ("a", "got str 'a'; needed a number"),
        (1j, "got complex 1j; needed a number"),
        ([1.0, 2.0], r"got list \[1.0, 2.0\]; needed a number"),
        (jnp.array([1j, 2.0]), rf"got complex64\[2\]; {needed}"),
        (jnp.ones(3), rf"got float32\[3\]; {needed}"),
        (jnp.ones(1), rf"got float32\[1\]; {needed}"),
        (jnp.array([1.0, jnp.nan]), rf"got float32\[2\] with a NaN; {needed}"),
        (np.nan, "got nan; needed a number"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"_learning_rate: rate: {message}"):
            fnn.with_learning_rate(states, bad)


def test_the_average_is_found_at_any_depth() -> None:
    x = {"w": jnp.array([3.0]), "b": jnp.array([1.0])}
    opt = fnn.with_master_weights(fnn.accumulate(fnn.chain(fnn.sgd(1.0), fnn.average()), 1))
    for optimizer in (opt, optax.chain(optax.clip(1.0), optax.GradientTransformation(*opt))):
        _, state = optimizer.update(jax.tree.map(jnp.ones_like, x), optimizer.init(x), x)
        assert jax.tree.map(float, jax.tree.map(jnp.sum, fnn.averaged(state))) == {"w": 2, "b": 0}
    two = fnn.partition({k: fnn.chain(fnn.sgd(1.0), fnn.average()) for k in x}, lambda path: path)
    needed = "needed exactly one; read the leaf `average` of the part that you mean"
    for other, count in ((fnn.sgd(0.1), 0), (two, 2)):
        message = f"^fnn.averaged: state: got {count} leaves `average`; {needed}"
        with pytest.raises(ValueError, match=message):
            fnn.averaged(other.init(x))


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: Any
    b: Any


def nested(dtype: Any) -> Any:
    w = jnp.arange(1.0, 7.0).astype(dtype).reshape(2, 3)
    return {"a": Layer(w, None), "b": (Pair(w[0], [w]), {"c": w[1, 1]}), "d": None}


ALL = {
    "sgd": fnn.sgd(0.1),
    "momentum": fnn.momentum(0.1),
    "nesterov": fnn.nesterov(0.1, rate_inside=True),
    "adagrad": fnn.adagrad(0.1),
    "rmsprop": fnn.rmsprop(0.1, centered=True, eps=1e-3, momentum=0.9),
    "adadelta": fnn.adadelta(),
    "adam": fnn.adam(0.1),
    "adamw": fnn.adamw(0.1, mask=lambda path: path.endswith("w")),
    "amsgrad": fnn.amsgrad(0.1),
    "adamax": fnn.adamax(0.1),
    "nadam": fnn.nadam(0.1, momentum_decay=0.004),
    "radam": fnn.radam(0.1),
    "lion": fnn.lion(0.1),
    "muon": fnn.muon(0.1),
}
AROUND = {
    "accumulate": fnn.accumulate(fnn.chain(fnn.clip_by_global_norm(1.0), fnn.adam(0.1)), 2),
    "average": fnn.chain(fnn.l2(0.1), fnn.clip_by_value(0.5), fnn.sgd(0.1), fnn.average()),
    "lookahead": fnn.freeze(fnn.lookahead(fnn.momentum(0.1), 2), lambda path: path == "a/w"),
    "with_master_weights": fnn.with_master_weights(fnn.rmsprop(0.1)),
    "flat": fnn.flat(fnn.adam(0.1)),
}
every = pytest.mark.parametrize("opt", [*ALL.values(), *AROUND.values()], ids=[*ALL, *AROUND])


@every
def test_any_pytree_in_half_precision_and_one_trace(opt: Any) -> None:
    """Nested params keep structure and dtype, and bfloat16 follows float32."""
    traces = []

    @jax.jit
    def both(*trees: Any) -> Any:
        traces.append(1)
        return [two_steps(params) for params in trees]

    def two_steps(params: Any) -> Any:
        state = opt.init(params)
        for _ in range(2):
            updates, state = opt.update(params, state, params)
        return updates, state

    (half, state), (single, _) = both(nested(jnp.bfloat16), nested(jnp.float32))
    assert jax.tree.structure(half) == jax.tree.structure(nested(jnp.bfloat16))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(half))
    inside = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, State))
    states = [x for x in inside if isinstance(x, State)]
    assert states
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves([s.moments for s in states]))
    both(nested(jnp.bfloat16), nested(jnp.float32))
    assert len(traces) == 1
    for h, s in zip(jax.tree.leaves(half), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(np.float32(h), s, rtol=0.04)  # of moments in 8 bits


@every
def test_gradients_of_another_shape(opt: Any) -> None:
    params = nested(jnp.float32)
    state = opt.init(params)
    for path, change in {
        r"grads\['b'\]\[0\].first: got float32\[2\]; needed the shape of float32\[3\]":
            {"b": (Pair(jnp.ones(2), params["b"][0].second), params["b"][1])},
        r"grads\['a'\].b: got float32\[1\]; needed nothing":
            {"a": Layer(params["a"].w, jnp.ones(1))},
        r"grads\['a'\].w: got nothing; needed float32\[2,3\]": {"a": Layer(None, None)},
        r"grads\['b'\]\[0\].second: got a tuple; needed a list":
            {"b": (Pair(params["b"][0].first, tuple(params["b"][0].second)), params["b"][1])},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=path):
            opt.update({**params, **change}, state, params)
    with pytest.raises(TypeError, match=r"grads\['a'\].w: got int32\[2,3\]; needed floating"):
        opt.update({**params, "a": Layer(jnp.ones((2, 3), jnp.int32), None)}, state, params)


@every
def test_params_that_are_no_arrays(opt: Any) -> None:
    with pytest.raises(TypeError, match=r"params\['.'\].*: got float 1.0; needed a floating-point"):
        opt.init({"a": {"w": 1.0}, "b": 1.0})


@every
def test_params_of_numpy_in_double_precision(opt: Any) -> None:
    """As JAX reads them, without a warning: moments in float32, or with x64 in float64."""
    params = {"a": {"w": np.ones((2, 3))}, "b": np.ones((2, 3))}
    for wide in (False, True):
        with jax.enable_x64(wide):
            dtypes = {x.dtype for x in jax.tree.leaves(opt.init(params)) if x.ndim}
            assert dtypes <= {np.dtype(np.float64 if wide else np.float32)}


def test_gradients_are_checked_against_the_state_without_params() -> None:
    with pytest.raises(ValueError, match=r"fnn.adam: grads\['w'\]: got float32\[3\]"):
        fnn.adam(0.1).update({"w": jnp.ones(3)}, fnn.adam(0.1).init({"w": jnp.ones(2)}))


def test_numbers_out_of_their_range() -> None:
    """Each is named, with the function that was called."""
    for make, argument, bad in [
        (fnn.sgd, "momentum", 1.0),
        (fnn.momentum, "momentum", -0.1),
        (fnn.nesterov, "momentum", 1.0),
        (fnn.adagrad, "initial", -1.0),
        (fnn.rmsprop, "decay", 1.0),
        (fnn.rmsprop, "initial", -1.0),
        (fnn.adadelta, "eps", -1e-6),
        (fnn.adam, "b1", 1.0),
        (fnn.adam, "b2", float("nan")),
        (fnn.amsgrad, "eps_root", -1.0),
        (fnn.adamax, "eps", -1.0),
        (fnn.nadam, "momentum_decay", -1.0),
        (fnn.radam, "threshold", 3.0),
        (fnn.lion, "weight_decay", -1.0),
        (fnn.adamw, "weight_decay", -1.0),
        (fnn.muon, "momentum", 1.0),
        (fnn.muon, "iterations", 0),
        (fnn.newton, "damping", -1.0),
    ]:
        with pytest.raises(ValueError, match=rf"fnn.{make.__name__}: {argument}: got {bad}"):
            make(0.1, **{argument: bad})
        with pytest.raises((TypeError, ValueError), match=rf"{make.__name__}: {argument}: got "):
            make(0.1, **{argument: "much"})
    with pytest.raises(TypeError, match=r"sgd: learning_rate: got str 'much'; needed a number$"):
        fnn.sgd("much")
    for make in (fnn.sgd, fnn.adam, fnn.muon, fnn.newton):
        for returned in (jnp.ones(3), "much"):
            message = rf"fnn.{make.__name__}: learning_rate: got a schedule that returns "
            with pytest.raises(TypeError, match=message):
                make(lambda step, returned=returned: returned).init(jnp.ones(3))
        for rate in ("much", None, jnp.ones(2)):
            with pytest.raises(TypeError, match=rf"fnn.{make.__name__}: learning_rate: got "):
                make(rate)
    for call, message in {
        lambda: fnn.clip_by_global_norm(-1.0): "clip_by_global_norm: max_norm: got -1.0",
        lambda: fnn.clip_by_value(-1.0): "clip_by_value: limit: got -1.0",
        lambda: fnn.l2(-1.0): "l2: strength: got -1.0",
        lambda: fnn.add_weight_decay(fnn.sgd(0.1), -1.0): "add_weight_decay: weight_decay: got -1",
        lambda: fnn.lookahead(fnn.sgd(0.1), slow_rate=0.0): "lookahead: slow_rate: got 0.0",
    }.items():
        with pytest.raises(ValueError, match=f"fnn.{message}"):
            call()


MAKERS = [
    *(fnn.sgd, fnn.momentum, fnn.nesterov, fnn.adagrad, fnn.rmsprop, fnn.adadelta),
    *(fnn.adam, fnn.adamw, fnn.amsgrad, fnn.adamax, fnn.nadam, fnn.radam, fnn.lion, fnn.muon),
    *(fnn.newton, fnn.diagonal_newton),
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_errors_name_the_function_that_was_called(make: Any) -> None:
    """Not one that it is made of."""
    x, name = {"w": jnp.ones(2)}, make.__name__
    opt, arguments = make(0.1), inspect.signature(make).parameters.values()
    calls: list[tuple[str, Any]] = [
        (p.name, lambda p=p: make(**{"learning_rate": 0.1, p.name: "much"}))
        for p in arguments
        if p.annotation in (float, Rate)
    ]
    calls += [
        ("params", lambda: opt.init({"w": jnp.ones(2, int)})),
        ("state", lambda: opt.update(x, {}, x, value_fn=value)),
        ("grads", lambda: opt.update({"w": jnp.ones(3)}, opt.init(x), x, value_fn=value)),
    ]
    if name in ("adamw", "lion", "muon"):
        none = make(0.1, mask=lambda path: path == "b")
        calls += [
            ("mask", lambda: make(0.1, mask="w")),
            ("mask", lambda: none.update(x, none.init(x), x)),
            ("params", lambda: opt.update(x, opt.init(x))),
        ]
    for argument, call in calls:
        with pytest.raises((TypeError, ValueError), match=rf"^fnn\.{name}: {argument}\b"):
            call()


@pytest.mark.parametrize("opt", ALL.values(), ids=ALL)
def test_a_number_of_python_is_a_gradient(opt: Any) -> None:
    """Without jit, as with it."""
    x = jnp.ones(())
    state = opt.init({"w": x})
    got, want = (opt.update({"w": g}, state, {"w": x})[0]["w"] for g in (2.0, 2 * x))
    assert (got.dtype, got) == (want.dtype, want)


@pytest.mark.parametrize("make", [fnn.muon, fnn.newton], ids=["muon", "newton"])
def test_iterations_are_an_integer_array_at_most(make: Any) -> None:
    for bad in (jnp.array(2.5), jnp.array([2, 3]), jnp.array(True), jnp.array(0), jnp.array(-1)):
        with pytest.raises(ValueError, match=rf"fnn.{make.__name__}: iterations: got .*an int >= "):
            make(0.1, iterations=bad)
        with pytest.raises(ValueError, match=rf"fnn.{make.__name__}: iterations: got .*an int >= "):
            make(0.1, iterations=np.asarray(bad))
    make(0.1, iterations=jnp.array(1))
    optimizer, x = make(0.1, iterations=np.array(1, np.uint8)), jnp.ones((2, 2))
    fnn.trajectory(lambda x: (x**2).sum(), x, optimizer, 1)
    jax.jit(lambda n: make(0.1, iterations=n).init(jnp.ones(2)))(2)
    with pytest.raises(ValueError, match=r"iterations: got float32\[\]; needed an int >= 1, or an"):
        jax.jit(lambda n: make(0.1, iterations=n).init(n))(2.0)


@pytest.mark.parametrize("make", [fnn.sgd, fnn.rmsprop], ids=["sgd", "rmsprop"])
def test_a_momentum_that_is_no_number(make: Any) -> None:
    """Not even one that equals zero."""
    for bad in (False, 0j, np.zeros(2)):
        with pytest.raises(TypeError, match=rf"fnn.{make.__name__}: momentum: got .*; needed a n"):
            make(0.1, momentum=bad)


def test_amsgrad_refuses_another_word() -> None:
    with pytest.raises(ValueError, match=r"fnn.amsgrad: correct_square: got 'later'"):
        fnn.amsgrad(0.1, correct_square="later")


def test_muon_orthogonalises() -> None:
    """Singular values of the update near 1, whatever those of the gradient, for wide and tall."""
    for shape, scale in (((8, 4), 1.0), ((4, 8), 2**0.5)):
        g = jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)
        opt = fnn.muon(1.0)
        updates, _ = jax.jit(lambda g, opt=opt: opt.update(g, opt.init(g), jnp.zeros_like(g)))(g)
        values = np.linalg.svd(updates)[1] / scale
        assert 0.6 < values.min() <= values.max() < 1.3


@pytest.mark.parametrize("opt", ALL.values(), ids=ALL)
def test_a_matrix_that_is_cut_over_explicit_axes(opt: Any) -> None:
    """Along either axis: the update is that of the whole matrix, and cut as the gradient is."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Explicit,))
    w = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)

    @jax.jit
    def update(w: Any) -> Any:
        params = {"w": w}
        return opt.update({"w": w**2}, opt.init(params), params)[0]["w"]

    want = update(w)
    for spec in (P("d", None), P(None, "d")):
        cut = jax.device_put(w, NamedSharding(mesh, spec))
        got = update(cut)
        assert got.sharding == cut.sharding
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_zero_gradients_of_dead_units_stay_finite() -> None:
    opts = {**ALL, "no eps": fnn.adagrad(0.1, initial=0.0, eps=0.0)}
    opts |= {f"no eps, {f.__name__}": f(0.1, eps=0.0) for f in (fnn.adam, fnn.adamax, fnn.rmsprop)}

    @jax.jit
    def updates(params: Any) -> Any:
        return {k: opt.update(params, opt.init(params), params)[0] for k, opt in opts.items()}

    for name, found in updates({"w": np.zeros((2, 2), "f"), "b": np.zeros(2, "f")}).items():
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(found)), name


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("rate", [fnn.schedules.cosine(0.5, 4), 0.5, jnp.float32(0.5)])
def test_a_run_goes_on_where_x64_is_set_otherwise(rate: Any, wide: bool) -> None:
    opt, x = fnn.adam(rate), jnp.ones(2)
    step = fnn.make_step(lambda x, batch: (x**2).sum(), opt)
    with jax.enable_x64(wide):
        state = opt.init(x)
    with jax.enable_x64(not wide):
        moved, following, _ = step(x, state, None)
        assert jax.tree.map(jnp.result_type, following) == jax.tree.map(jnp.result_type, state)
        step(moved, following, None)
