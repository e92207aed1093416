"""What every optimizer, option and wrapper has: one table of them, crossed with the properties."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import fnn
from tests.optimizers.table import ALONE, ROWS, Row, small, step, walk

every = pytest.mark.parametrize("name", ROWS)
FACTORS = [1.0, -0.5, 2.0, 0.0]  # gradients, times the params


def path(optimizer: Any, dtype: Any = jnp.float32) -> Any:
    return walk(optimizer, small(dtype), FACTORS)


def of_every_row(fn: Callable[[Row], Any], x64: bool = False) -> Callable[[str], Any]:
    """Compute for all rows in one program, when the first is asked for."""

    @functools.cache
    def results() -> Any:
        with jax.enable_x64(x64):
            return jax.jit(lambda: {name: fn(row) for name, row in ROWS.items()})()

    return lambda name: results()[name]


def assert_close(got: Any, want: Any, rtol: float = 2e-5) -> None:
    """Of trees of updates, relative to the largest number of each."""

    def leaf(g: Any, w: Any) -> None:
        assert g.dtype == w.dtype
        g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
        assert np.isfinite(w).all()
        np.testing.assert_allclose(g, w, rtol=0, atol=rtol * np.abs(w).max(initial=1e-30))

    jax.tree.map(leaf, got, want)


plain = of_every_row(lambda row: path(row()))


def is_moment(path: tuple[Any, ...]) -> bool:
    return any(getattr(key, "name", None) == "moments" for key in path)


half = of_every_row(lambda row: path(row(), jnp.bfloat16))


# with_master_weights has updates that lead to the rounded params: test_transforms.py.
not_to_rounded_params = pytest.mark.parametrize(
    "name", [name for name in ROWS if name != "with_master_weights"]
)


@not_to_rounded_params
def test_half_precision_has_the_updates_of_single_rounded(name: str) -> None:
    """The moments lose nothing: only the update is rounded."""
    want = jax.tree.map(lambda u: u.astype(jnp.bfloat16), plain(name))
    assert_close(half(name), want, 2.0**-7)


@every
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_moments_of_half_precision_are_single(name: str, dtype: Any) -> None:
    params = small(dtype)
    state = jax.eval_shape(ROWS[name]().init, params)
    moments = [x for p, x in jax.tree_util.tree_leaves_with_path(state) if is_moment(p)]
    assert all(x.dtype == jnp.float32 for x in moments)


def test_an_average_of_half_precision_is_single() -> None:
    """The mean of a one and 299 twos, each of which would be lost in bfloat16."""
    optimizer, x = fnn.average(), jnp.ones(1, jnp.bfloat16)
    state = optimizer.init(x)
    for value in (1, *[2] * 299):
        _, state = optimizer.update(jnp.zeros_like(x), state, x * value)
    assert state.average.dtype == jnp.float32
    np.testing.assert_allclose(state.average, 2 - 1 / 300, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in ALONE if n != "sgd"])
def test_moments_of_half_precision_as_optax_keeps_them(name: str) -> None:
    """And the updates are those of single precision, but for the rounding of the moments."""
    optimizer, params = ROWS[name](half_moments=True), small(jnp.bfloat16)
    want = jax.tree.map(lambda u: u.astype(jnp.bfloat16), plain(name))
    assert_close(path(optimizer, jnp.bfloat16), want, 2.0**-4)
    state = jax.eval_shape(optimizer.init, params)
    updates, following = jax.eval_shape(optimizer.update, params, state, params)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(updates))
    for moments in (state.moments, following.moments):
        kept = {k: v for k, v in moments.items() if k != "product"}  # nadam's, a single number
        assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(kept))


def tiny(row: Row) -> Any:
    """Updates along gradients whose squares are zero in float16."""
    return [walk(row(), small(dtype), [2.0**-10, 0.0, 0.0]) for dtype in (jnp.float16, jnp.float32)]


tiny_paths = of_every_row(tiny)


@not_to_rounded_params
def test_small_gradients_in_float16(name: str) -> None:
    got, want = tiny_paths(name)
    assert_close(got, jax.tree.map(lambda u: u.astype(jnp.float16), want), 2.0**-9)


def changed(numbers: dict[str, float]) -> dict[str, float]:
    return {k: v * (0.9 if k != "threshold" else 1.25) for k, v in numbers.items()}


def sweep(row: Row) -> Any:
    """A whole run, mapped over the learning rate and every number."""
    both = [(0.1, row.numbers), (0.05, changed(row.numbers))]
    rates, numbers = jax.tree.map(lambda *x: jnp.array(x), *both)
    return jax.vmap(lambda rate, numbers: path(row(rate, **numbers)))(rates, numbers)


swept = of_every_row(sweep)
other = of_every_row(lambda row: path(row(0.05, **changed(row.numbers))))


@every
def test_every_number_may_be_traced(name: str) -> None:
    """Two whole runs in one program by `jax.vmap`, as each alone with Python's numbers."""
    for i, want in enumerate((plain(name), other(name))):
        got = jax.tree.map(lambda x, i=i: x[i], swept(name))
        # In "all", a variance of one value is 0 but for rounding, of which it takes the root.
        assert_close(got, want, 1e-3 if name == "rmsprop, all" else 2e-5)


@every
def test_numbers_of_other_kinds_change_no_dtype(name: str) -> None:
    row, params = ROWS[name], small(jnp.bfloat16)

    def types(optimizer: Any) -> Any:
        def two(params: Any) -> Any:
            updates, state = step(optimizer, params, optimizer.init(params), params)
            return step(optimizer, updates, state, params)

        return [(x.shape, x.dtype) for x in jax.tree.leaves(jax.eval_shape(two, params))]

    want = types(row())
    for kind in (np.float64, np.float32, jnp.float32):
        assert types(row(0.1, **{k: kind(v) for k, v in row.numbers.items()})) == want, kind
    assert types(row(np.float64(0.1))) == want


@every
def test_state_keeps_its_form(name: str) -> None:
    """So that it can be carried through `lax.scan`, from its first step on."""
    params = small(jnp.bfloat16)
    for rate in (0.1, jnp.float32(0.1), fnn.schedules.power(0.1, -0.5)):
        optimizer = ROWS[name](rate)
        state = jax.eval_shape(optimizer.init, params)
        assert jax.eval_shape(functools.partial(step, optimizer), params, state, params)[1] == state


def slopes(row: Row) -> Any:
    """Derivatives of two updates by their gradients, at zero: forward, and reverse."""

    def total(factors: Any) -> Any:
        return sum(map(jnp.sum, jax.tree.leaves(walk(row(), small(), factors))))

    _, forward = jax.linearize(total, jnp.zeros(2))
    return forward(jnp.ones(2)), jax.linear_transpose(forward, jnp.zeros(2))(jnp.ones(()))


slope = of_every_row(slopes)


@every
def test_derivatives_at_a_gradient_of_zero_are_finite(name: str) -> None:
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope(name)))


@every
def test_without_jit_and_with_checks_for_nan(name: str) -> None:
    want = plain(name)
    with jax.disable_jit(), jax.debug_nans(True):
        assert_close(path(ROWS[name]()), want, 1e-4)


double = of_every_row(lambda row: path(row(), jnp.float64), x64=True)


@every
def test_double_precision(name: str) -> None:
    got = double(name)
    assert all(u.dtype == np.float64 for u in jax.tree.leaves(got))
    assert_close(jax.tree.map(lambda u: np.asarray(u, np.float32), got), plain(name), 1e-4)


def empty(row: Row) -> Any:
    params = {"w": jnp.zeros((0, 3)), "v/w": jnp.zeros((3, 0)), "b": jnp.ones(2), "c": jnp.zeros(0)}
    hollow = {"w": jnp.zeros((0, 3)), "b": jnp.zeros(0), "c": jnp.zeros(0)}
    return [walk(row(), p, [1.0, 1.0]) for p in (params, hollow, {})]


emptied = of_every_row(empty)


@every
def test_leaves_and_trees_without_numbers(name: str) -> None:
    for updates in emptied(name):
        assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates))


def injected(row: Row) -> Any:
    """The row's optimizer as `optax.inject_hyperparams` takes it: extra arguments are passed on."""

    def make(**numbers: Any) -> Any:
        return optax.GradientTransformationExtraArgs(*row(**numbers))

    kind = inspect.Parameter.KEYWORD_ONLY
    names = ["learning_rate", *row.numbers]
    signature = inspect.Signature([inspect.Parameter(n, kind) for n in names])
    make.__signature__ = signature  # type: ignore[attr-defined]  # as inspect documents it
    return optax.inject_hyperparams(make)


def rates(t: Any) -> Any:
    return 0.1 * (1 + (t if isinstance(t, int) else t.astype(float)))


COUNT = 2  # steps with another number each; the second is of what the first has left


def steps(optimizer: Any, assign: Any = None) -> list[Any]:
    """Updates one by one: what optax's state holds changes its type in the first."""
    params, update = small(), jax.jit(functools.partial(step, optimizer))
    state, found = optimizer.init(params), []
    for t in range(COUNT):
        if assign:
            state.hyperparams["learning_rate"] = assign(t)
        updates, state = update(params, state, params)
        found.append(updates)
    return found


def inject(row: Row) -> Any:
    """Steps with the rate of optax's schedule, as assigned between them, and of fnn's schedule."""
    scheduled = injected(row)(learning_rate=rates, **row.numbers)
    assigned = injected(row)(learning_rate=7.0, **row.numbers)
    return steps(scheduled), steps(assigned, assign=rates), steps(row(rates))


through_optax = of_every_row(inject)


# accumulate counts its steps, and optax the calls.
@pytest.mark.parametrize("name", [name for name in ROWS if name != "accumulate"])
def test_inject_hyperparams_has_its_effect(name: str) -> None:
    scheduled, assigned, want = through_optax(name)
    assert_close(scheduled, want, 1e-4)
    assert_close(assigned, want, 1e-4)


def schedules_of(numbers: dict[str, float]) -> dict[str, Any]:
    return {
        k: lambda t, k=k, v=v: 4 + rates(t) if k == "threshold" else v * rates(t)
        for k, v in numbers.items()
    }


def inject_all(row: Row) -> Any:
    """Every number another at every step, by optax and by making the optimizer anew."""
    numbers, params = schedules_of(row.numbers), small()
    optimizer = injected(row)(learning_rate=0.1, **numbers)
    state, found = row(0.1, **{k: s(0) for k, s in numbers.items()}).init(params), []
    for t in range(COUNT):
        anew = row(0.1, **{k: s(t) for k, s in numbers.items()})
        updates, state = step(anew, params, state, params)
        found.append(updates)
    return steps(optimizer), found


all_through_optax = of_every_row(inject_all)


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].numbers])
def test_inject_hyperparams_with_other_numbers(name: str) -> None:
    got, want = all_through_optax(name)
    assert_close(got, want, 1e-4)


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta",
                                  "adam", "adamw", "amsgrad", "adamax", "nadam", "radam", "lion",
                                  "muon"])  # fmt: skip
def test_inject_hyperparams_around_the_function_itself(name: str) -> None:
    """All its defaults become arrays too; under jit, with a state that is donated."""
    make, params = getattr(fnn, name), small()
    optimizer = optax.inject_hyperparams(make)(learning_rate=rates)
    update = jax.jit(optimizer.update, donate_argnums=1)
    state, found = optimizer.init(params), []
    for _ in range(COUNT):
        updates, state = update(params, state, params)
        found.append(updates)
    assert_close(found, jax.jit(lambda: steps(make(rates)))(), 1e-4)
    assert float(fnn.learning_rate(state)) == pytest.approx(0.1 * COUNT)


def test_the_rate_that_was_set_last_counts() -> None:
    """That of the state, or another array that the optimizer is made with."""
    g = jnp.ones(1)

    def of(rate: Any, state: Any) -> Any:
        updates, state = fnn.add_weight_decay(fnn.sgd(rate), 1.0).update(g, state, g)
        assert state.given == rate
        return -float(updates[0]) / 2, state  # the gradient's and the decay's half

    array = jnp.float32
    state = fnn.sgd(array(0.5)).init(g)
    used, state = of(array(0.5), state)
    assert used == 0.5
    used, state = of(array(0.5), fnn.with_learning_rate(state, 0.25))
    assert used == 0.25
    used, state = of(array(0.5), state)
    assert used == 0.25, "the replaced rate stays"
    used, state = of(array(2.0), state)
    assert used == 2.0, "another array is newer"
    used, state = of(array(2.0), state)
    assert (used, float(fnn.learning_rate(state))) == (2.0, 2.0)


@pytest.mark.parametrize("first", [0.5, np.float32(0.5), jnp.float32(0.5), lambda step: 0.5])
def test_the_decay_has_the_rate_of_the_update(first: Any) -> None:
    """Whatever the rate of one step was made of, and that of the state."""
    g = jnp.ones(1)
    schedule = lambda step: 2.0 ** -step.astype(jnp.float32)
    rates = ((0.5, 0.5), (jnp.float32(0.125), 0.125), (0.5, 0.125), (schedule, 0.125), (0.5, 2**-4))
    state = fnn.sgd(first).init(g)
    for rate, want in rates:
        updates, state = fnn.add_weight_decay(fnn.sgd(rate), 2.0).update(g, state, g)
        assert -float(updates[0]) == 3 * want, "a number lives in the state, from init on"


def test_a_rate_is_differentiated_whatever_the_state_was_made_with() -> None:
    x = jnp.ones(1)
    for state in (fnn.sgd(0.5).init(x), fnn.sgd(jnp.float32(0.5)).init(x)):
        slope = jax.jit(jax.grad(lambda rate, s=state: fnn.sgd(rate).update(x, s, x)[0].sum()))(0.5)
        assert slope == -1


@every
def test_the_state_of_another_optimizer(name: str) -> None:
    params = small()
    others = (fnn.adam(0.1).init(params), fnn.sgd(0.1, momentum=0.9).init(params), (), {})
    refused = 0
    for state in others:
        if jax.tree.structure(state) == jax.tree.structure(ROWS[name]().init(params)):
            continue
        with pytest.raises(ValueError, match=r"fnn\.\w+: state.*: got "):
            step(ROWS[name](), params, state, params)
        refused += 1
    assert refused > 1


@pytest.mark.parametrize("name", [name for name in ALONE if name != "sgd"])  # which has no moments
def test_the_state_of_other_params(name: str) -> None:
    params, other = small(), {**small(), "w": jnp.ones(4)}
    optimizer = ROWS[name]()
    with pytest.raises(ValueError, match=r"state\.moments\['\w+'\]\['w'\]: got float32\[4\]"):
        optimizer.update(params, optimizer.init(other), params)


def test_sixteen_rates_and_momenta_in_one_compiled_run() -> None:
    """Each of the runs is the one that it is alone."""
    traces = []

    def run(rate: Any, momentum: Any) -> Any:
        traces.append(1)
        optimizer, x = fnn.sgd(rate, momentum=momentum), jnp.array([-5.0, -2.0])

        def body(carry: Any, _: None) -> Any:
            x, state = carry
            updates, state = optimizer.update(x * jnp.array([0.2, 4.0]), state, x)
            return (x + updates, state), None

        return lax.scan(body, (x, optimizer.init(x)), length=50)[0][0]

    rates, momenta = (a.ravel() for a in jnp.meshgrid(jnp.array([0.02, 0.1, 0.3, 0.6]),
                                                      jnp.array([0.0, 0.3, 0.6, 0.9])))  # fmt: skip
    found = jax.jit(jax.vmap(run))(rates, momenta)
    assert len(traces) == 1
    assert np.abs(found[-1]).max() > 1e-2 > np.abs(found).max(1).min()
    for rate, momentum, x in zip(rates.tolist(), momenta.tolist(), found, strict=True):
        np.testing.assert_allclose(x, run(rate, momentum), rtol=1e-3, atol=1e-5)


WIDTHS = [(jnp.float32, jnp.float64), (jnp.float64, jnp.float32), (jnp.bfloat16, jnp.float64)]


@every
@pytest.mark.parametrize(("of_grads", "dtype"), WIDTHS)
def test_gradients_may_have_another_dtype_than_params(name: str, of_grads: Any, dtype: Any) -> None:
    """The updates have that of the params, and the state its own."""
    with jax.enable_x64(True):
        optimizer, params, grads = ROWS[name](), small(dtype), small(of_grads)
        state = optimizer.init(params)
        found = jax.eval_shape(functools.partial(step, optimizer), grads, state, params)
        dtypes = [jax.tree.map(jnp.result_type, tree) for tree in (found, (params, state))]
    assert dtypes[0] == dtypes[1]


@pytest.mark.parametrize("name", ["l2", "accumulate", "average"])
def test_what_mixes_gradients_and_params_does_so_in_the_wider_dtype(name: str) -> None:
    makes: dict[str, Any] = {
        "l2": lambda: fnn.chain(fnn.l2(0.5), fnn.sgd(1.0)),
        "accumulate": lambda: fnn.accumulate(fnn.chain(fnn.sgd(1.0), fnn.average()), 2),
        "average": lambda: fnn.average(0.5),
    }
    with jax.enable_x64(True):
        optimizer = makes[name]()
        x = jnp.array([1.0 + 2.0**-40, 3.0])
        state = optimizer.init(x)
        for g in (1.0, 2.0):
            updates, state = optimizer.update(jnp.array([g, -g], jnp.float32), state, x)
        kept = x if name == "l2" else fnn.averaged(state)
    want = {"l2": [-2.5, 0.5], "accumulate": [-1.5, 1.5], "average": [2.0, -2.0]}
    np.testing.assert_allclose(updates, want[name], rtol=1e-6)
    # Of the iterates x + 1 and x + 2, a quarter and a half; of the one iterate x - 1.5.
    moved = {"l2": 0.0, "accumulate": -1.5, "average": 1.25}[name]
    np.testing.assert_allclose(kept, np.asarray(x) + moved * np.array([1, -1]), rtol=1e-15)


@every
def test_the_state_of_float32_params_is_the_same_with_x64(name: str) -> None:
    """So that a run goes on where x64 is set otherwise."""
    params = jax.tree.map(np.asarray, small())
    rates = [0.1, fnn.schedules.cosine(0.1, 9), np.float64(0.1), jnp.ones(())]

    def states(params: Any) -> Any:
        for optimizer in map(ROWS[name], rates):
            state = optimizer.init(params)
            yield state, step(optimizer, params, state, params)[1]

    def dtypes(wide: bool) -> Any:
        with jax.enable_x64(wide):
            shapes = jax.eval_shape(lambda params: [*states(params)], params)
            return jax.tree.map(lambda x: x.dtype, shapes)

    assert dtypes(True) == dtypes(False)


def test_one_float64_leaf_makes_the_rate_float64() -> None:
    with jax.enable_x64(True):
        for dtypes in (("float64", "float32"), ("bfloat16", "float64")):
            params = [jnp.ones(2, dtype) for dtype in dtypes]
            state = fnn.sgd(0.1).init(params)
            assert float(state.learning_rate) == 0.1
            wide = [u for u in fnn.sgd(0.1).update(params, state)[0] if u.dtype == "float64"]
            assert wide[0].tolist() == [-0.1, -0.1]
