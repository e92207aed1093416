"""The trajectory of an optimizer equals its steps, taken one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn


def bowl(x: jax.Array) -> jax.Array:
    return 0.1 * x[0] ** 2 + 2 * x[1] ** 2


START = jnp.array([-5.0, -2.0])


@pytest.mark.parametrize(
    "optimizer", [fnn.sgd(0.2, momentum=0.5), optax.adam(0.1)], ids=["fnn", "optax"]
)
def test_it_is_the_loop(optimizer: fnn.Optimizer) -> None:
    x, state, points = START, optimizer.init(START), [START]

    @jax.jit
    def step(x: jax.Array, state: optax.OptState) -> tuple[jax.Array, optax.OptState]:
        updates, state = optimizer.update(jax.grad(bowl)(x), state, x)
        return x + updates, state

    for _ in range(6):
        with jax.numpy_dtype_promotion("standard"):
            x, state = step(x, state)
        points.append(x)
    with jax.numpy_dtype_promotion("standard"):  # optax counts in integers
        got = fnn.trajectory(bowl, START, optimizer, 6)
    np.testing.assert_allclose(got.params, np.stack(points), rtol=1e-6)
    np.testing.assert_allclose(got.loss, [bowl(p) for p in points], rtol=1e-5)


def test_no_step_is_the_start_alone() -> None:
    got = fnn.trajectory(bowl, START, fnn.sgd(0.1), 0)
    np.testing.assert_array_equal(got.params, START[None])
    assert got.loss.shape == (1,)


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"fnn\.trajectory: steps: got -1; needed an int >= 0"):
        fnn.trajectory(bowl, START, fnn.sgd(0.1), -1)
    with pytest.raises(ValueError, match=r"^fnn\.trajectory: loss: got float32\[2\]; needed a sca"):
        fnn.trajectory(lambda x: x, START, fnn.sgd(0.1), 1)
    with pytest.raises(
        ValueError, match=r"^fnn\.trajectory: loss: got tuple .*; needed a scalar array: "
    ):
        fnn.trajectory(lambda x: (bowl(x), 1), START, fnn.sgd(0.1), 1)
    message = r"^fnn\.trajectory: loss: got loss\(x, key\); needed loss\(params\)$"
    with pytest.raises(TypeError, match=message):
        fnn.trajectory(lambda x, key: bowl(x), START, fnn.sgd(0.1), 1)
    with pytest.raises(TypeError, match=r"^fnn\.trajectory: loss: got int 3; needed a function"):
        fnn.trajectory(3, START, fnn.sgd(0.1), 1)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match=r"^fnn\.trajectory: optimizer: got function .*; needed an"):
        fnn.trajectory(bowl, START, fnn.adam, 1)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match=r"^fnn\.trajectory: params: got int32\[2\]; needed a floa"):
        fnn.trajectory(bowl, jnp.arange(2), fnn.sgd(0.1), 1)
