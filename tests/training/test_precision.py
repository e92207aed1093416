"""Half precision: losses as in float32, and a loss scale that finds itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from tests.training.cases import KEY

ADAM = fnn.adam(1e-2)


def tiny(w: Any, batch: Any) -> Any:
    """The gradient, 2^-26 a number, is zero in float16, where the least number is 2^-24."""
    low = lambda x: jax.lax.reduce_precision(x, 5, 10)  # what a CPU might leave out
    return (low(low(w.astype(jnp.float16)) * 2.0**-13).astype(jnp.float32) * 2.0**-13).sum()


def steps(optimizer: Any, loss: Any, batches: Any, start: Any) -> tuple[Any, Any]:
    """The params and the scales after each step."""
    step = fnn.make_step(loss, optimizer)

    def body(carry: Any, batch: Any) -> Any:
        params, state, _ = step(*carry, batch)
        return (params, state), (params, state.scale)

    return jax.lax.scan(body, (start, optimizer.init(start)), batches)[1]


def test_gradients_below_float16_count() -> None:
    w, plain = jnp.ones(3), fnn.sgd(2.0**24)
    lost, _, _ = fnn.make_step(tiny, plain)(w.copy(), plain.init(w), None)
    np.testing.assert_array_equal(lost, 1)
    kept, _ = steps(fnn.with_loss_scale(plain), tiny, jnp.zeros(2), w)
    np.testing.assert_array_equal(kept, [[0.75] * 3, [0.5] * 3])


def product(w: Any, batch: Any) -> Any:
    return (w * batch).sum()


def test_the_scale_halves_at_infinities_and_doubles_after_good_steps() -> None:
    """Gradients of 2^125 overflow from a scale of 8 on; a step that does changes nothing else."""
    batches = jnp.array([1.0, 1.0, 1.0, 2.0**125, 2.0**125, 1.0, 1.0])
    optimizer = fnn.with_loss_scale(fnn.sgd(2.0**-125, momentum=0.5), initial=4.0, grow_after=2)
    params, scales = steps(optimizer, product, batches, jnp.zeros(1))
    np.testing.assert_array_equal(scales, [4, 8, 8, 4, 4, 8, 8])
    small, v, want = 2.0**-125, 0.0, [0.0]
    for g in (small, small, small, None, 1.0, small, small):
        v = v if g is None else 0.5 * v + g
        want.append(want[-1] - (0.0 if g is None else v))
    np.testing.assert_allclose(params[:, 0], want[1:], rtol=1e-6)


def test_the_scale_stays_finite() -> None:
    optimizer = fnn.with_loss_scale(fnn.sgd(0.0), initial=2.0**99, grow_after=1)
    _, scales = steps(optimizer, product, jnp.ones(4), jnp.zeros(1))
    np.testing.assert_array_equal(scales, 2.0**100)


def test_the_scale_stays_at_one_and_above() -> None:
    optimizer = fnn.with_loss_scale(fnn.sgd(0.0), initial=2.0)
    _, scales = steps(optimizer, product, jnp.full(4, jnp.inf), jnp.zeros(1))
    np.testing.assert_array_equal(scales, 1)


def test_what_no_scale_mends_is_told() -> None:
    """The root's gradient at 0 is infinite at every scale."""
    optimizer = fnn.with_loss_scale(fnn.sgd(0.1), initial=4.0)
    run = fnn.train(
        lambda w, batch: jnp.sqrt(w) + 0 * batch.sum(), jnp.zeros(()), optimizer, np.ones(4),
        batch_size=1, epochs=1, key=KEY,
    )  # fmt: skip
    with pytest.raises(fnn.NonFiniteError, match=r"step 3: got a loss of 0, .*: 'params';"):
        list(run)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fnn.with_loss_scale(ADAM, initial=0.5), "initial: got 0.5; needed a number in"),
        (lambda: fnn.with_loss_scale(ADAM, initial=np.inf), "initial: got inf; needed a number in"),
        (lambda: fnn.with_loss_scale(ADAM, initial=1e39), r"initial: got 1e\+39; needed a number"),
        (lambda: fnn.with_loss_scale(ADAM, grow_after=0), "grow_after: got 0; needed an int >= 1"),
        (lambda: SCALED.update(W, SCALED.init(W), W), "value_fn: got None; needed update"),
        (lambda: SCALED.update(W, SCALED.init(W), value_fn=jnp.sum), "params: got None; needed"),
        (lambda: SCALED.update(W, ADAM.init(W), W), "state: got a State; needed the Scaled of"),
    ],
    ids=["initial", "infinite", "beyond_float32", "grow_after", "value_fn", "params", "state"],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^fnn.with_loss_scale: {message}"):
        call()


W = np.ones(3, np.float32)
SCALED = fnn.with_loss_scale(ADAM)


def test_the_state_of_an_optimizer_of_optax_keeps_its_dtypes() -> None:
    """Its moments are of half precision as the params are, and of what the gradients are."""
    optimizer, w = fnn.with_loss_scale(optax.adam(1e-2)), jnp.ones(3, jnp.float16)
    loss = lambda w, batch: (w.astype(jnp.float32) * batch).sum()
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        run = fnn.train(loss, w, optimizer, [np.ones(3, np.float32)] * 2, epochs=1, key=KEY)
        (report,) = run
    for new, old in zip(*map(jax.tree.leaves, (report.state, optimizer.init(w))), strict=True):
        assert new.dtype == old.dtype
    np.testing.assert_allclose(np.float32(report.params), 0.98, rtol=2e-3)


def test_gradients_are_divided_by_the_scale_that_multiplied_them() -> None:
    """In bfloat16 by 1000, to which 1001 is rounded there."""
    optimizer, w = fnn.with_loss_scale(fnn.sgd(1.0), initial=1001.0), jnp.zeros(2)
    step = fnn.make_step(lambda w, batch: w.astype(jnp.bfloat16).sum(), optimizer)
    moved, _, _ = step(w, optimizer.init(w), None)
    np.testing.assert_array_equal(moved, -1)


def init(dtype: Any) -> Any:
    k1, k2 = jax.random.split(jax.random.key(0))
    params = {"conv": fnn.init_conv(k1, (3, 3), 1, 8), "head": fnn.init_dense(k2, 2 * 2 * 8, 10)}
    return fnn.trees.cast(params, dtype)


def loss(dtype: Any) -> Any:
    """The loss of a small CNN that computes in this dtype, whatever its params are stored in."""

    def cnn(params: Any, batch: Any) -> Any:
        params = fnn.trees.cast(params, dtype)
        x = fnn.max_pool(fnn.relu(fnn.conv(batch.x.astype(dtype), **params["conv"])), 4)
        logits = fnn.dense(fnn.flatten(x), **params["head"])
        return fnn.cross_entropy(logits.astype(jnp.float32), batch.y).mean()

    return cnn


# What a run computes in, what its params are stored in, and what goes around its optimizer.
RUNS = {
    "float32": (jnp.float32, jnp.float32, lambda optimizer: optimizer),
    "bfloat16": (jnp.bfloat16, jnp.float32, lambda optimizer: optimizer),
    "float16": (jnp.float16, jnp.float32, fnn.with_loss_scale),
    "master": (
        jnp.float16,
        jnp.float16,
        lambda optimizer: fnn.with_loss_scale(fnn.with_master_weights(optimizer)),
    ),
}


def trained(name: str, epochs: int, rate: float) -> float:
    """The loss over the last of these epochs of 22 steps, each of 64 examples."""
    computed, stored, around = RUNS[name]
    data = jax.tree.map(lambda a: a[: 22 * 64], fnn.data.digits()[0])
    config = {"batch_size": 64, "epochs": epochs, "key": KEY}
    *_, last = fnn.train(loss(computed), init(stored), around(fnn.adam(rate)), data, **config)
    return last.loss


def test_half_precision_trains_as_single() -> None:
    want = trained("float32", 3, 1e-2)
    assert want < 0.8 * np.log(10), "little is learnt"
    for name in [name for name in RUNS if name != "float32"]:
        assert trained(name, 3, 1e-2) == pytest.approx(want, rel=0.02), name
