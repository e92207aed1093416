"""`freeze` and `partition`: the updates, the state and the work of optax's, their messages."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn


def init() -> Any:
    k1, k2, k3 = jax.random.split(jax.random.key(0), 3)
    first, second = fnn.init_conv(k1, (3, 3), 1, 16), fnn.init_conv(k2, (3, 3), 16, 32)
    return {"features": {"1": first, "2": second}, "head": fnn.init_dense(k3, 2 * 2 * 32, 10)}


def loss(params: Any, batch: Any) -> Any:
    x, y = batch
    for layer in params["features"].values():
        x = fnn.max_pool(fnn.relu(fnn.conv_lax(x, **layer)), 2)
    return fnn.cross_entropy(fnn.dense(fnn.flatten(x), **params["head"]), y).mean()


def is_feature(path: str) -> bool:
    return path.startswith("features")


BATCH = (jnp.ones((4, 8, 8, 1)), jnp.zeros(4, int))


def flops(optimizer: Any) -> float:
    """Of a whole step, the gradient included, in one program."""

    def step(params: Any, state: Any) -> Any:
        grads = jax.grad(loss)(params, BATCH)
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    params = jax.eval_shape(init)
    compiled = jax.jit(step).lower(params, jax.eval_shape(optimizer.init, params)).compile()
    return float(compiled.cost_analysis()["flops"])


def test_what_is_frozen_costs_nothing() -> None:
    """Neither its gradient, nor its update, nor state: as with optax's partition."""
    params = init()
    mine = fnn.freeze(fnn.adam(1e-3), is_feature)
    labels = jax.tree.map(lambda path: "f" if is_feature(path) else "h", fnn.paths(params))
    theirs = optax.partition({"h": fnn.adam(1e-3), "f": optax.set_to_zero()}, labels)
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        assert flops(mine) <= flops(theirs) < 0.5 * flops(fnn.adam(1e-3))
    held = fnn.count(jax.eval_shape(mine.init, params))
    assert held == 2583 == 2 * fnn.count(params["head"]) + 3  # moments, the step and two rates


def test_freeze_is_the_optimizer_on_the_rest() -> None:
    params = {"a": {"w": jnp.ones(3), "b": None}, "h": jnp.array([2.0, 1.0])}
    opt, alone = fnn.freeze(fnn.adam(0.1), lambda path: path == "a/w"), fnn.adam(0.1)
    state, own = opt.init(params), alone.init(params["h"])
    for _ in range(3):
        updates, state = opt.update(params, state, params)
        want, own = alone.update(params["h"], own, params["h"])
        np.testing.assert_array_equal(updates["h"], want)
        assert not updates["a"]["w"].any()
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert float(fnn.learning_rate(state)) == pytest.approx(0.1)
    assert fnn.learning_rate(fnn.with_learning_rate(state, 0.5)) == 0.5


def test_partition_is_each_optimizer_on_its_part() -> None:
    """And is optax's; paths and masks of the inner ones stay those of the whole tree."""
    params = {"x": {"w": jnp.ones(2), "b": jnp.ones(1)}, "y": jnp.ones(3), "z": jnp.ones(1)}
    inner = fnn.adamw(0.1, weight_decay=0.5, mask=lambda path: path == "x/w")
    opt = fnn.partition({"x": inner, "y": optax.sgd(0.5), "z": None}, lambda path: path[0])
    updates, state = opt.update(params, opt.init(params), params)
    np.testing.assert_allclose(updates["x"]["w"], -0.1 - 0.05, rtol=1e-6)
    np.testing.assert_allclose(updates["x"]["b"], -0.1, rtol=1e-6)
    assert updates["y"].tolist() == [-0.5] * 3
    assert updates["z"].tolist() == [0.0]
    assert set(state) == {"x", "y"}
    two = fnn.partition({"x": fnn.sgd(0.1), "y": fnn.sgd(0.2)}, lambda p: "xy"["x" not in p])
    state = two.init(params)
    with pytest.raises(ValueError, match="got 2 leaves"):
        fnn.learning_rate(state)
    assert fnn.learning_rate(state["y"]) == np.float32(0.2)


def test_newton_of_a_part_sees_the_loss_of_its_part() -> None:
    def value(params: Any) -> Any:
        return (params["a"] ** 2 * params["b"]).sum()

    params = {"a": jnp.array([3.0]), "b": jnp.array([2.0])}
    opt = fnn.freeze(fnn.newton(), lambda path: path == "b")
    step = fnn.make_step(lambda params, batch: value(params), opt)
    moved, _, _ = step(params, opt.init(params), None)
    assert (moved["a"].tolist(), moved["b"].tolist()) == ([0.0], [2.0])


def test_a_line_search_of_a_part_is_given_the_gradient_of_its_part() -> None:
    def value(params: Any, batch: Any) -> Any:
        return ((params["a"] - params["b"]) ** 2).sum() + (params["a"] - 3.0).sum() ** 2

    params = {"a": jnp.zeros(2), "b": jnp.array([1.0, 4.0])}
    optimizer = fnn.freeze(optax.lbfgs(), lambda path: path == "b")
    step, state = fnn.make_step(value, optimizer), optimizer.init(params)
    for _ in range(20):
        params, state, _ = step(params, state, None)
    assert params["b"].tolist() == [1.0, 4.0]
    np.testing.assert_allclose(params["a"], [4 / 3, 13 / 3], rtol=1e-4)  # where its slope is 0


def test_messages() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    for wrong in (is_feature, {"w": fnn.sgd(0.1)}, {"w"}, fnn.adam):
        with pytest.raises(
            TypeError, match=r"^fnn.freeze: optimizer: got .*; needed an object wit"
        ):
            fnn.freeze(wrong, is_feature)  # type: ignore[arg-type]  # which is the mistake
    with pytest.raises(TypeError, match=r"^fnn.freeze: mask: got Optimizer .* function mask\(path"):
        fnn.freeze(fnn.sgd(0.1), fnn.sgd(0.1))  # type: ignore[arg-type]  # which is the mistake
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'mask'"):
        fnn.freeze(fnn.sgd(0.1))  # type: ignore[call-arg]  # which is the mistake
    for mask in (lambda path: path == "kernel", lambda path: True):
        with pytest.raises(
            ValueError, match=r"fnn.freeze: mask: got no leaf for '\w+'; needed som"
        ):
            fnn.freeze(fnn.sgd(0.1), mask).init(params)
    parts = {"w": fnn.adam(0.1), "b": fnn.sgd(0.1)}
    with pytest.raises(TypeError, match=r"fnn.partition: part: got str 'w'; needed a function pa"):
        fnn.partition(parts, "w")  # type: ignore[arg-type]  # which is the mistake
    with pytest.raises(TypeError, match=r"fnn.partition: optimizers: got list .*; needed a dict"):
        fnn.partition([*parts.values()], str)  # type: ignore[arg-type]  # which is the mistake
    with pytest.raises(TypeError, match=r"partition: optimizers: got the part int 0; needed a str"):
        fnn.partition({"w": None, 0: fnn.sgd(0.1)}, str)  # type: ignore[dict-item]  # the mistake
    with pytest.raises(ValueError, match=r"fnn.partition: part: got 'x' for b; needed one of \['w"):
        fnn.partition(parts, lambda path: "x").init(params)
    listed: Any = lambda path: ["w"]
    with pytest.raises(TypeError, match=r"partition: part: got list \['w'\] for b; needed a str"):
        fnn.partition(parts, listed).init(params)
    with pytest.raises(ValueError, match=r"fnn.partition: part: got no leaf for 'b'"):
        fnn.partition(parts, lambda path: "w").init(params)
    opt = fnn.partition(parts, lambda path: path)
    with pytest.raises(ValueError, match=r"fnn.partition: state: got a dict of parts \['x'\]"):
        opt.update(params, {"x": ()}, params)
    with pytest.raises(ValueError, match=r"fnn.partition: state: got a State; needed that of its"):
        opt.update(params, fnn.adam(0.1).init(params), params)
    with pytest.raises(ValueError, match=r"fnn.partition: grads\['w'\]: got float32\[3\]"):
        opt.update({**params, "w": jnp.ones(3)}, opt.init(params), params)
