"""Training in every mode of JAX: without jit, with NaN checks, in 64 bits, with any generator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.training.cases import DATA, KEY, Pairs, X, Y, squares, start


def noisy(params: Any, batch: Any, key: Any) -> Any:
    noise = 0.1 * jax.random.normal(key, batch.y.shape, batch.y.dtype)
    value = squares(params, batch._replace(y=batch.y + noise))
    return value, {"error": jnp.sqrt(value)}


def trained(key: Any, data: Any = DATA) -> list[Any]:
    """The loss, aux, observations and parameters of two epochs with a smaller last batch."""
    reports = fnn.train(
        noisy,
        start(),
        fnn.adam(0.1),
        data,
        batch_size=4,
        epochs=2,
        key=key,
        has_aux=True,
        report_every=2,
        observe=lambda params, grads, updates, batch: grads["w"],
        observe_every=2,
    )
    return [[r.loss, r.aux, r.observed, r.params] for r in reports]


def stepped(key: Any, data: Any = DATA) -> list[Any]:
    step, params = fnn.make_step(noisy, fnn.adam(0.1), has_aux=True), start()
    state, values = fnn.adam(0.1).init(params), []
    for i in range(2):
        params, state, value = step(params, state, data, jax.random.fold_in(key, i))
        values.append(value)
    return [params, values]


@pytest.fixture(scope="module")
def plain() -> dict[Any, Any]:
    return {trained: trained(KEY), stepped: stepped(KEY)}


def alike(got: Any, want: Any) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        close(np.asarray(a, np.float32), b, length=30)


@pytest.mark.parametrize("run", [trained, stepped])
@pytest.mark.parametrize("mode", ["disable_jit", "debug_nans", "debug_infs", "checking_leaks"])
def test_modes_change_nothing(plain: Any, run: Any, mode: str) -> None:
    arguments = () if mode == "checking_leaks" else (True,)
    with getattr(jax, mode)(*arguments):
        alike(run(KEY), plain[run])


@pytest.mark.parametrize("run", [trained, stepped])
def test_sixty_four_bits(plain: Any, run: Any) -> None:
    with jax.enable_x64(True):
        alike(run(KEY), plain[run])  # params and data stay float32
        wide = Pairs(X.astype(np.float64), Y.astype(np.float64))
        step = fnn.make_step(squares, fnn.adam(0.1))
        params = {"w": jnp.zeros(3, jnp.float64), "b": jnp.zeros((), jnp.float64)}
        params, _, value = step(params, fnn.adam(0.1).init(params), wide)
        assert {x.dtype for x in jax.tree.leaves((params, value))} == {np.dtype(np.float64)}


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_other_generators(implementation: str) -> None:
    leaves = jax.tree.leaves(trained(jax.random.key(7, impl=implementation)))
    assert all(np.isfinite(x).all() for x in leaves)


def test_a_raw_key_is_the_typed_one(plain: Any) -> None:
    alike(trained(jax.random.PRNGKey(7)), plain[trained])


def test_debug_nans_finds_the_operation() -> None:
    step = fnn.make_step(lambda params, batch: jnp.log(params - 1).sum(), fnn.sgd(0.1))
    params = jnp.zeros(2)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="log"):
        step(params, fnn.sgd(0.1).init(params), None)


@pytest.mark.parametrize("data", [DATA, [DATA], [jax.tree.map(jnp.asarray, DATA)]])
def test_guarded_transfers(data: Any) -> None:
    """What a run moves to the device, it moves by intent: data, and where it stands."""
    size = 4 if data is DATA else None
    params, optimizer = start(), fnn.adam(0.1)
    config = {"batch_size": size, "key": KEY, "has_aux": True}

    def losses(guard: str) -> list[Any]:
        with jax.transfer_guard(guard):
            reports = [*fnn.train(noisy, params, optimizer, data, epochs=2, **config)]
            run = jax.tree.map(np.asarray, reports[0].run._replace(key=None))._replace(key=KEY)
            more = fnn.train(noisy, params, optimizer, data, epochs=2, resume=run, **config)
            return [report.loss for report in (*reports, *more)]

    assert losses("disallow") == losses("allow")


def test_guarded_transfers_of_a_run_that_fails() -> None:
    def loss(params: Any, batch: Any) -> Any:
        return squares(params, batch) * jnp.where(params["b"] == 0, 1, jnp.inf)

    reports = fnn.train(loss, start(), fnn.sgd(0.1), DATA, batch_size=2, epochs=1, key=KEY)
    with jax.transfer_guard("disallow"), pytest.raises(fnn.NonFiniteError):
        list(reports)
