"""The learning-rate range test: against a loop in Python, and what it suggests."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.analysis import rate_range

KEY = jax.random.key(2)
DATA = jnp.linspace(-1, 1, 32)


def distance(w: Any, x: Any) -> Any:
    return ((w - x) ** 2).mean()


def test_the_run_is_the_loop() -> None:
    """One example, so that no batch is random: w' = w - rate 2 (w - x), in float64."""
    found = rate_range(
        distance,
        jnp.full(1, 3.0),
        fnn.sgd,
        jnp.ones(1),
        batch_size=2,
        key=KEY,
        low=1e-3,
        high=8.0,
        steps=60,
        smoothing=0.8,
    )
    rates = 1e-3 * 8000 ** (np.arange(60) / 59)
    np.testing.assert_allclose(found.rates, rates, rtol=1e-5)
    w, losses = 3.0, []
    for rate in rates[:40]:
        losses.append((w - 1) ** 2)
        w -= rate * 2 * (w - 1)
    np.testing.assert_allclose(found.losses[:40], losses, rtol=1e-3)
    average = [
        sum(0.2 * 0.8 ** (t - i) * losses[i] for i in range(t + 1)) / (1 - 0.8 ** (t + 1))
        for t in range(40)
    ]
    np.testing.assert_allclose(found.smoothed[:40], average, rtol=1e-3)


def test_rates_whose_ratio_overflows() -> None:
    """In float32."""
    call = functools.partial(rate_range, distance, jnp.ones(()), fnn.sgd, DATA, batch_size=1)
    rates = call(key=KEY, low=1e-30, high=1e10, steps=41).rates
    np.testing.assert_allclose(rates, np.logspace(-30, 10, 41), rtol=1e-5)


def test_a_key_that_is_bound_stays() -> None:
    def noisy(w: Any, x: Any, key: Any) -> Any:
        return distance(w, x) + (0 if key is None else jax.random.uniform(key))

    def losses(loss: Any) -> Any:
        return rate_range(loss, jnp.ones(()), fnn.sgd, DATA, batch_size=8, key=KEY).losses

    bound = losses(functools.partial(noisy, key=None))
    np.testing.assert_allclose(bound, losses(distance), rtol=1e-5)


def test_the_suggestion_is_where_it_says() -> None:
    found = rate_range(distance, jnp.full((), 5.0), fnn.sgd, DATA, batch_size=8, key=KEY)
    least = int(np.argmin(found.smoothed[: found.stop]))
    assert found.suggestion == pytest.approx(float(found.rates[least]) / 10)
    assert found.smoothed[found.stop] > 4 * found.smoothed[least]
    assert found.how == (
        f"a tenth of {found.rates[least]:.2g}, where the smoothed loss is least; it diverges at "
        f"{found.rates[found.stop]:.2g}"
    )
    assert str(found) == f"learning rate {found.suggestion:.2g}: {found.how}"
    assert found.rates[found.stop] > 1  # above 2 / lambda_max = 1 the loss must grow
    assert found.suggestion < 1


@pytest.mark.parametrize("constant", [30.0, 100.0])
def test_a_loss_below_zero(constant: float) -> None:
    """A negative loss diverges where it has risen by three times its size, and no sooner."""

    def below(w: Any, x: Any) -> Any:
        return distance(w, x) - constant

    found = rate_range(below, jnp.full((), 5.0), fnn.sgd, DATA, batch_size=8, key=KEY)
    usual = rate_range(distance, jnp.full((), 5.0), fnn.sgd, DATA, batch_size=8, key=KEY)
    least = np.minimum.accumulate(found.smoothed)
    assert found.smoothed[found.stop] > -2 * least[found.stop] > 0
    assert (found.smoothed[: found.stop] <= -2 * least[: found.stop]).all()
    assert found.suggestion == pytest.approx(usual.suggestion, rel=0.3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_losses_that_overflow(dtype: Any) -> None:
    """Without a warning, which the tests take for an error."""
    start, data = jnp.full((), 5, dtype), DATA.astype(dtype)
    found = rate_range(distance, start, fnn.sgd, data, batch_size=8, key=KEY, high=1e9)
    assert not np.isfinite(found.losses[-1])
    assert 0.01 < found.suggestion < 1


def test_it_suggests_a_rate_that_trains() -> None:
    train, _ = fnn.data.digits()
    x, y = fnn.flatten(train.x[:512]), train.y[:512]
    keys = jax.random.split(KEY, 2)
    params = {"a": fnn.init_dense(keys[0], 64, 16), "b": fnn.init_dense(keys[1], 16, 10)}

    def loss(params: Any, batch: Any) -> Any:
        h = fnn.relu(fnn.dense(batch[0], **params["a"]))
        return fnn.cross_entropy(fnn.dense(h, **params["b"]), batch[1]).mean()

    found = rate_range(loss, params, fnn.adam, (x, y), batch_size=32, key=KEY)
    optimizer = fnn.adam(found.suggestion)
    step, state = fnn.make_step(loss, optimizer), optimizer.init(params)
    first = loss(params, (x, y))
    for _ in range(60):
        params, state, value = step(params, state, (x, y))
    assert value < 0.2 * first


def test_optimizers_of_optax() -> None:
    call = functools.partial(
        rate_range, distance, jnp.full((), 5.0), data=DATA, batch_size=8, key=KEY, steps=40
    )
    own = call(optimizer=fnn.adam)
    with jax.numpy_dtype_promotion("standard"):  # which optax needs
        other = call(optimizer=optax.adam)
    np.testing.assert_allclose(other.losses, own.losses, rtol=1e-3)


def test_batches_are_drawn_at_random() -> None:
    """From all of the data: the loss is the batch's mean, whatever the rate."""
    loss = lambda w, x: 0 * w + x.mean()
    losses = rate_range(loss, jnp.ones(()), fnn.sgd, DATA, batch_size=8, key=KEY).losses
    assert len(set(losses.tolist())) > 50
    deviation = float(DATA.std()) / 8**0.5
    assert abs(losses.mean()) < 4 * deviation / len(losses) ** 0.5
    assert 0.8 < losses.std() / deviation < 1.2


class Plain(NamedTuple):
    init: Any
    update: Any


def test_what_an_update_takes_besides_gradients() -> None:
    """As from `fnn.make_step`: the loss, its gradient and its value, or none of them."""
    call = functools.partial(
        rate_range, distance, jnp.full((), 5.0), data=DATA, batch_size=8, key=KEY, steps=40
    )
    scaled = call(optimizer=lambda rate: fnn.with_loss_scale(fnn.adam(rate)))
    np.testing.assert_allclose(scaled.losses, call(optimizer=fnn.adam).losses, rtol=1e-5)
    newton = call(optimizer=fnn.newton, high=1.0)  # of curvature 2, so half of the gradient
    half = call(optimizer=lambda rate: fnn.sgd(lambda step: rate(step) / 2), high=1.0)
    np.testing.assert_allclose(newton.losses, half.losses, rtol=1e-4)

    def only(rate: Any) -> Any:
        return Plain(lambda params: jnp.zeros((), int), descend(rate))

    def descend(rate: Any) -> Any:
        return lambda grads, step, params, *, value: (-rate(step) * grads + 0 * value, step + 1)

    np.testing.assert_allclose(call(optimizer=only).losses, call(optimizer=fnn.sgd).losses)


def test_a_loss_with_a_key_and_one_that_never_falls() -> None:
    def noisy(w: Any, x: Any, key: Any) -> Any:
        return distance(w, x) + 0.1 * jax.random.normal(key)

    found = rate_range(noisy, jnp.full((), 5.0), fnn.sgd, DATA, batch_size=8, key=KEY, steps=50)
    assert len(set(found.losses.tolist())) > 45
    flat = rate_range(lambda w, x: 0 * w + 1, jnp.ones(()), fnn.sgd, DATA, batch_size=1, key=KEY)
    assert np.isnan(flat.suggestion)
    assert flat.how == "the loss does not fall at any rate from 1e-06 to 10"
    half = rate_range(
        distance,
        jnp.full((), 5, jnp.bfloat16),
        fnn.sgd,
        DATA.astype(jnp.bfloat16),
        batch_size=8,
        key=KEY,
    )
    assert half.losses.dtype == jnp.bfloat16
    assert 0.01 < half.suggestion < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": fnn.sgd(0.1)}, "optimizer: got .*; needed a function of the learning rate"),
        ({"optimizer": lambda rate: rate}, r"optimizer\(rate\): got .*; needed an optimizer"),
        ({"low": 0.0}, "low: got 0.0; needed a number > 0"),
        ({"high": np.inf}, "high: got inf; needed a number > 0, and finite"),
        ({"high": 1e-7}, "low, high: got 1e-06, 1e-07; needed low < high"),
        ({"smoothing": 1.0}, r"smoothing: got 1.0; needed a number in \[0, 1\)"),
        ({"steps": 1}, "steps: got 1; needed an int >= 2"),
        ({"batch_size": 0}, "batch_size: got 0; needed an int >= 1"),
        ({"key": 0}, "key: got int 0; needed one random key"),
        ({"data": []}, "data: got no array; needed arrays"),
        ({"loss": lambda w, x: w - x}, r"loss: got float32\[1\]; needed a scalar"),
        ({"params": jnp.arange(2)}, r"params: got int32\[2\]; needed a floating"),
        ({"loss": None}, r"loss: got NoneType None; needed a function loss\(params, batch\)"),
        ({"loss": lambda w: w}, r"loss: got loss\(w\); needed loss\(params, batch\), and key"),
        ({"optimizer": lambda: fnn.sgd(1.0)}, r"optimizer: got optimizer\(\); needed .*\(rate\)$"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    call = {
        "loss": distance,
        "params": jnp.ones(()),
        "optimizer": fnn.sgd,
        "data": DATA,
        "batch_size": 1,
        "key": KEY,
        **change,
    }
    with pytest.raises((TypeError, ValueError), match=f"fnn.analysis.rate_range: {message}"):
        rate_range(**call)


def test_asks_for_values() -> None:
    with pytest.raises(TypeError, match=r"analysis.rate_range: params: got a traced array"):
        jax.jit(lambda w: rate_range(distance, w, fnn.sgd, DATA, batch_size=1, key=KEY).losses)(1.0)
    for name in ("low", "high", "smoothing"):
        call = functools.partial(rate_range, distance, jnp.ones(()), fnn.sgd, DATA, batch_size=1)
        with pytest.raises(TypeError, match=f"analysis.rate_range: {name}: got a traced array"):
            jax.jit(lambda x, call=call, name=name: call(key=KEY, **{name: x}).losses)(0.5)
