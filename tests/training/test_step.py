"""make_step: the formula, what it takes and gives, one trace, errors."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from tests.check import close
from tests.training.cases import DATA, KEY, X, Y, counted, squares, start


def test_step_is_the_formula_and_donates() -> None:
    loss, traces = counted(squares)
    optimizer, params, batch = fnn.sgd(0.5), start(), jax.tree.map(jnp.asarray, DATA)
    step = fnn.make_step(loss, optimizer)
    state, w, b = optimizer.init(params), np.zeros(3), 0.0
    for _ in range(3):
        error = X.astype(np.float64) @ w + b - Y
        before = params
        params, state, value = step(params, state, batch)
        assert before["w"].is_deleted()
        close(value, (error**2).mean(), length=30)
        w, b = w - 0.5 * 2 * X.T @ error / 10, b - 0.5 * 2 * error.mean()
        close(params["w"], w, length=30)
        close(params["b"], b, length=30)
    assert not batch.x.is_deleted()
    assert len(traces) == 1


def test_step_passes_aux_and_key() -> None:
    def noisy(params: Any, batch: Any, key: Any) -> Any:
        noise = jax.random.normal(key, params.shape)
        return (params * noise).sum(), noise

    step = fnn.make_step(noisy, fnn.sgd(1.0), has_aux=True)
    state = fnn.sgd(1.0).init(jnp.ones(4))
    params, _, (value, noise) = step(jnp.ones(4), state, None, KEY)
    want = np.asarray(jax.random.normal(KEY, (4,)))
    close(noise, want)
    close(value, want.sum(), length=4)
    close(params, 1 - want)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
        optax.polyak_sgd(max_learning_rate=1.0),
        optax.GradientTransformation(*optax.sgd(0.3)),
    ],
    ids=["lbfgs", "line_search", "polyak", "plain"],
)
def test_step_gives_each_optimizer_what_it_takes(optimizer: Any) -> None:
    step, params = fnn.make_step(squares, optimizer), start()
    state = optimizer.init(params)
    values = []
    for _ in range(60):
        params, state, value = step(params, state, DATA)
        values.append(float(value))
    assert values[-1] < 1e-3 < values[0]


def test_step_rounds_once() -> None:
    """bfloat16 params move by the float32 update; rounded first, this one would be half a bit."""
    update = jnp.full(2, 2.0**-8 * (1 + 2.0**-10))
    wide = optax.GradientTransformation(
        lambda params: None, lambda grads, state, params=None: (update, state)
    )
    step = fnn.make_step(lambda params, batch: params.sum(), wide)
    params, _, _ = step(jnp.ones(2, jnp.bfloat16), None, None)
    assert params.dtype == jnp.bfloat16
    np.testing.assert_array_equal(params.astype(jnp.float32), 1 + 2.0**-7)


@pytest.mark.parametrize(
    ("loss", "params", "kind", "message"),
    [
        (lambda p, b: p * b, jnp.ones(2), ValueError, r"loss: got float32\[2\]; .* call .mean\(\)"),
        (lambda p, b: (p.sum(), b), jnp.ones(2), ValueError, r"loss: got tuple .* a scalar array"),
        (lambda p, b: p["w"].sum(), {"w": np.arange(2)}, TypeError, r"params\['w'\]: got int32\[2"),
        (lambda p, b, key: p.sum(), jnp.ones(2), ValueError, "key: got None; needed a key"),
        (3, jnp.ones(2), TypeError, r"loss: got int 3; needed a function loss\(params, batch\)"),
    ],
    ids=["vector", "tuple", "integers", "no_key", "no_function"],
)
def test_step_refuses(loss: Any, params: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^fnn.make_step: {message}"):
        fnn.make_step(loss, fnn.sgd(0.1))(params, None, jnp.ones(2))


def test_step_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"loss: got float32\[\]; needed a tuple \(value, aux\)"):
        fnn.make_step(squares, fnn.sgd(0.1), has_aux=True)(start(), None, DATA)
    with pytest.raises(ValueError, match=r"key: got key.*; needed no key, as loss takes none"):
        fnn.make_step(squares, fnn.sgd(0.1))(start(), None, DATA, KEY)
    broadcast = optax.stateless(lambda grads, params: jax.tree.map(jnp.sum, grads))
    message = r"make_step: updates\['w'\]: got float32\[\]; needed the shape of float32\[3\]"
    with pytest.raises(ValueError, match=message):
        fnn.make_step(squares, broadcast)(start(), broadcast.init(start()), DATA)


def alone(params: Any, batch: Any) -> Any:
    return ((params["w"] - batch["w"]) ** 2).sum()


def test_params_may_be_in_the_batch_too() -> None:
    """As in distillation, where the student starts from its teacher: donated, it would be lost."""
    step, optimizer = fnn.make_step(alone, fnn.sgd(0.25)), fnn.sgd(0.25)
    device = jax.devices()[0]
    for same in (lambda x: x, lambda x: jax.device_put(x, device), lambda x: x.addressable_data(0)):
        w = jnp.ones(3)
        params, teacher = {"w": w}, {"w": same(w)}
        state = optimizer.init(params)
        for _ in range(2):
            params, state, _ = step(params, state, teacher)
        np.testing.assert_array_equal(teacher["w"], 1)
        np.testing.assert_array_equal(params["w"], 1)


def test_steps_are_dispatched_before_the_ones_before_are_computed() -> None:
    """Also where one is given what shares memory with what is still computed."""

    def slow(w: Any, batch: Any) -> Any:
        return jax.lax.fori_loop(0, 30, lambda _, w: jnp.tanh(w @ w), w).mean() + batch.mean()

    optimizer, zero = fnn.sgd(0.1), np.zeros(())
    step = fnn.make_step(slow, optimizer)

    def first_is_ready_after_six() -> bool:
        params = jnp.eye(200)
        state, values = optimizer.init(params), []
        for _ in range(6):
            params, state, value = step(params, state, zero)
            values.append(value)
        ready = values[0].is_ready()
        shared = jax.device_put(params, jax.devices()[0])
        step(params, state, shared)
        assert not shared.is_deleted()
        return bool(ready)

    assert not all(first_is_ready_after_six() for _ in range(20))


def test_one_array_in_two_places_of_the_params() -> None:
    shared = jnp.ones(2)
    params = {"a": shared, "b": shared}
    step = fnn.make_step(lambda p, batch: (p["a"] - 2 * p["b"]).sum(), fnn.sgd(1.0))
    params, _, _ = step(params, fnn.sgd(1.0).init(params), None)
    np.testing.assert_array_equal(params["a"], 0)
    np.testing.assert_array_equal(params["b"], 3)


def test_step_names_what_is_used_up() -> None:
    step, params = fnn.make_step(squares, fnn.sgd(0.1)), start()
    state = fnn.sgd(0.1).init(params)
    step(params, state, DATA)
    with pytest.raises(ValueError, match=r"make_step: params or state: got a deleted float32\[\]"):
        step(params, state, DATA)


@pytest.mark.parametrize("seed", [3, np.uint32(3), jnp.arange(2, dtype=jnp.int32)])
def test_a_seed_is_no_key(seed: Any) -> None:
    step = fnn.make_step(lambda p, batch, key: p.sum(), fnn.sgd(0.1))
    with pytest.raises(TypeError, match=r"make_step: key: got .* needed one random key"):
        step(jnp.ones(2), fnn.sgd(0.1).init(jnp.ones(2)), None, seed)


@pytest.mark.parametrize(
    ("own", "other", "path"),
    [
        (fnn.adam(0.1), fnn.sgd(0.1), r"state.*'b'.*: got nothing; needed float32\[\]"),
        (fnn.sgd(0.1), fnn.adam(0.1), r"state.*: got float32.*; needed nothing"),
        (fnn.adam(0.1), optax.adam(0.1), r"state.*: got .*"),
        (optax.adam(0.1), fnn.adam(0.1), r"state.*: got .*"),
        (optax.sgd(0.1, 0.9), optax.sgd(0.1), r"state.*: got nothing"),
        (fnn.chain(fnn.clip_by_global_norm(1.0), fnn.adam(0.1)), fnn.adam(0.1), r"state.*: got .*"),
    ],
    ids=["less", "more", "of_optax", "for_optax", "within_optax", "chained"],
)
def test_the_state_of_another_optimizer(own: Any, other: Any, path: str) -> None:
    message = f"^fnn.make_step: {path}.* as this optimizer's init returns it"
    with pytest.raises(ValueError, match=message):
        fnn.make_step(squares, own)(start(), other.init(start()), DATA)


def test_the_state_of_other_params() -> None:
    state = fnn.adam(0.1).init(start() | {"w": jnp.zeros(4)})
    message = r"state.*'w'.*: got float32\[4\]; needed the shape of float32\[3\]"
    with pytest.raises(ValueError, match=message):
        fnn.make_step(squares, fnn.adam(0.1))(start(), state, DATA)


def test_an_error_of_the_optimizer_stays_its_own() -> None:
    def update(grads: Any, state: Any, params: Any = None) -> Any:
        raise KeyError("what it says")

    broken = optax.GradientTransformation(fnn.sgd(0.1).init, update)
    with pytest.raises(KeyError, match="what it says"):
        fnn.make_step(squares, broken)(start(), broken.init(start()), DATA)


def test_a_sweep_is_a_vmap_of_a_scan_of_steps() -> None:
    """16 rates and momenta at once: each is the run that it would be alone."""
    batches = jax.tree.map(lambda a: jnp.asarray(a).reshape(5, 2, *a.shape[1:]), DATA)

    def run(rate: Any, momentum: Any) -> Any:
        optimizer = fnn.sgd(rate, momentum=momentum)
        step = fnn.make_step(squares, optimizer)

        def body(carry: Any, batch: Any) -> Any:
            params, state, value = step(*carry, batch)
            return (params, state), value

        (params, _), values = jax.lax.scan(body, (start(), optimizer.init(start())), batches)
        return params, values

    rates, momenta = map(jnp.asarray, np.geomspace([1e-3, 0.1], [0.1, 0.9], 16, dtype="f4").T)
    params, values = jax.jit(jax.vmap(run))(rates, momenta)
    assert values.shape == (16, 5)
    for i in (0, 7, 15):
        rate, momentum = float(rates[i]), float(momenta[i])
        want = [np.zeros(3), 0.0, np.zeros(3), 0.0]
        for x, y in zip(X.reshape(5, 2, 3).astype(np.float64), Y.reshape(5, 2), strict=True):
            w, b, v, c = want
            error = x @ w + b - y
            v, c = momentum * v + x.T @ error, momentum * c + error.sum()
            want = [w - rate * v, b - rate * c, v, c]
        close(params["w"][i], want[0], length=50)
        close(params["b"][i], want[1], length=50)


def test_frozen_params_cost_no_gradient() -> None:
    """What no update reads is not computed: a step of the head alone is that of a smaller model."""

    def loss(params: Any, batch: Any) -> Any:
        x = jnp.tanh(batch @ params["body"])
        return ((x @ params["head"]) ** 2).mean()

    def flops(optimizer: Any) -> float:
        params = {"body": jnp.ones((64, 64)), "head": jnp.ones((64, 4))}
        step = jax.jit(fnn.make_step(loss, optimizer))
        compiled = step.lower(params, optimizer.init(params), jnp.ones((128, 64))).compile()
        return compiled.cost_analysis()["flops"]

    frozen = optax.masked(optax.set_to_zero(), {"body": True, "head": False})
    product = 2 * 128 * 64 * 64
    assert flops(fnn.sgd(0.1)) > 2 * product
    assert flops(optax.chain(optax.sgd(0.1), frozen)) < 1.2 * product
    once = flops(fnn.with_loss_scale(fnn.sgd(0.1)))  # one loss, and no gradient without the scale
    assert once < 1.1 * flops(fnn.sgd(0.1))


def test_a_deleted_batch_is_named() -> None:
    optimizer, w = fnn.sgd(0.1), jnp.ones(3)
    step = fnn.make_step(lambda params, batch: (params * batch).sum(), optimizer)
    new, state, _ = step(w, optimizer.init(w), jnp.ones(3))
    with pytest.raises(ValueError, match=r"make_step: batch or key: got a deleted float32\[3\]"):
        step(new, state, w)


def test_a_key_that_is_bound_stays() -> None:
    """As for a loss without its dropout: neither asked for nor replaced."""

    def loss(params: Any, batch: Any, key: Any) -> Any:
        return params * (1.0 if key is None else jnp.nan)

    optimizer, w = fnn.sgd(1.0), jnp.ones(())
    plain = functools.partial(loss, key=None)
    scaled = functools.partial(jax.jit(functools.partial(loss, key=None)))
    for bound in (plain, jax.jit(plain), jax.checkpoint(plain), scaled):
        step = fnn.make_step(bound, optimizer)
        assert step(w.copy(), optimizer.init(w), None)[0] == 0
        (report,) = fnn.train(bound, w, optimizer, X, batch_size=10, epochs=1, key=KEY)
        assert report.loss == 1
        assert fnn.augmented(bound, lambda key, batch: batch)(w, None, key=KEY) == 1
