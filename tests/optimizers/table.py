"""Every optimizer, its options and what goes around it, once, for the tests that cross them all."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import fnn


class Row(NamedTuple):
    """An optimizer to test.

    Attributes:
        make: ``make(learning_rate, **numbers)``.
        numbers: every number that it takes besides the rate; each may be traced.
    """

    make: Callable[..., Any]
    numbers: dict[str, float] = {}  # noqa: RUF012, nothing changes it

    def __call__(self, learning_rate: Any = 0.1, **other: Any) -> Any:
        return self.make(learning_rate, **{**self.numbers, **other})


def option(make: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return functools.partial(make, **options)


def is_w(path: str) -> bool:
    return path.endswith("w")


def is_b(path: str) -> bool:
    return path.endswith("b")


MEANS = {"b1": 0.8, "b2": 0.9}
ADAM = {**MEANS, "eps": 1e-3, "eps_root": 1e-4}
ALONE = {
    "sgd": Row(fnn.sgd),
    "sgd, momentum": Row(fnn.sgd, {"momentum": 0.9}),
    "momentum": Row(fnn.momentum, {"momentum": 0.9}),
    "nesterov": Row(option(fnn.nesterov, rate_inside=True), {"momentum": 0.9}),
    "adagrad": Row(fnn.adagrad, {"initial": 0.1, "eps": 1e-3}),
    "adagrad, outside": Row(
        option(fnn.adagrad, eps_in_root=False), {"initial": 0.0, "eps": 1e-3}
    ),
    "rmsprop": Row(fnn.rmsprop, {"decay": 0.8, "eps": 1e-3, "initial": 0.1}),
    "rmsprop, centered": Row(
        option(fnn.rmsprop, centered=True), {"decay": 0.8, "eps": 1e-3, "momentum": 0.5}
    ),
    "rmsprop, all": Row(
        option(
            fnn.rmsprop,
            centered=True,
            bias_correction=True,
            eps_in_root=False,
            nesterov=True,
            rate_inside=False,
        ),
        {"decay": 0.8, "eps": 1.0, "momentum": 0.5},
    ),
    "adadelta": Row(fnn.adadelta, {"decay": 0.8, "eps": 1e-3}),
    "adam": Row(fnn.adam, ADAM),
    "adam, early": Row(option(fnn.adam, eps_before_correction=True, nesterov=True), ADAM),
    "adamw": Row(option(fnn.adamw, mask=is_w), ADAM | {"weight_decay": 0.1}),
    "amsgrad": Row(fnn.amsgrad, ADAM),
    "amsgrad, after": Row(option(fnn.amsgrad, correct_mean=False, correct_square="after"), ADAM),
    "adamax": Row(fnn.adamax, {**MEANS, "eps": 1e-3}),
    "nadam": Row(fnn.nadam, ADAM | {"momentum_decay": 0.004}),
    "radam": Row(fnn.radam, ADAM | {"b2": 0.99, "threshold": 4.0}),
    "radam, early": Row(option(fnn.radam, eps_before_correction=True), ADAM | {"b2": 0.5}),
    "lion": Row(fnn.lion, {**MEANS, "weight_decay": 0.1}),
    "muon": Row(fnn.muon, {**MEANS, "momentum": 0.8, "eps": 1e-3, "weight_decay": 0.1,
                           "rest_rate": 0.5}),
}  # fmt: skip
SECOND_ORDER = {
    "newton": Row(fnn.newton, {"damping": 0.1}),
    "newton, iterative": Row(option(fnn.newton, dense_up_to=0), {"damping": 0.1}),
    "diagonal_newton": Row(fnn.diagonal_newton, {"damping": 0.1}),
}


def after(optimizer: Any) -> Callable[..., Any]:
    """Make a chain of an optimizer and what stands behind it."""
    return lambda learning_rate, **numbers: fnn.chain(fnn.sgd(learning_rate), optimizer(**numbers))


def before(transform: Any) -> Callable[..., Any]:
    """Make a chain of a transform and an optimizer."""
    return lambda learning_rate, **numbers: fnn.chain(
        transform(**numbers), fnn.adam(learning_rate, eps=1e-3)
    )


def around(wrapper: Callable[..., Any], base: Any = fnn.adam, **fixed: Any) -> Callable[..., Any]:
    """Make a wrapper around an optimizer."""
    return lambda learning_rate, **numbers: wrapper(base(learning_rate), **fixed, **numbers)


def by_part(learning_rate: Any) -> Any:
    parts = {"w": fnn.adam(learning_rate), "b": fnn.sgd(0.1)}
    return fnn.partition(parts, lambda path: "b" if is_b(path) else "w")


AROUND = {
    "clip_by_global_norm": Row(before(fnn.clip_by_global_norm), {"max_norm": 1.5}),
    "clip_by_value": Row(before(fnn.clip_by_value), {"limit": 1.5}),
    "l2": Row(before(fnn.l2), {"strength": 0.1}),
    "add_weight_decay": Row(around(fnn.add_weight_decay, fnn.sgd), {"weight_decay": 0.1}),
    "accumulate": Row(around(fnn.accumulate, k=2)),
    "average": Row(after(fnn.average)),
    "average, decay": Row(after(fnn.average), {"decay": 0.9}),
    "average, debias": Row(after(option(fnn.average, debias=True)), {"decay": 0.9}),
    "lookahead": Row(around(fnn.lookahead, fnn.momentum, k=2), {"slow_rate": 0.4}),
    "with_loss_scale": Row(around(fnn.with_loss_scale), {"initial": 64.0}),
    "with_master_weights": Row(around(fnn.with_master_weights)),
    "flat": Row(around(fnn.flat)),
    "freeze": Row(around(fnn.freeze, mask=is_b)),
    "partition": Row(by_part),
}
ROWS = ALONE | SECOND_ORDER | AROUND


def value(params: Any) -> Any:
    """A loss for those that ask for one: another curvature for every leaf and entry."""
    leaves = jax.tree.leaves(params)
    bends = [1 + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) for x in leaves]
    terms = [(b * x * x).sum() for b, x in zip(bends, leaves, strict=True)]
    return sum((t.astype(float) for t in terms), jnp.zeros(()))


def step(optimizer: Any, grads: Any, state: Any, params: Any) -> Any:
    """One update of any of them, as `fnn.make_step` calls it."""
    return optimizer.update(grads, state, params, value_fn=value)


def walk(optimizer: Any, params: Any, factors: Any) -> Any:
    """The updates, stacked, along gradients that are multiples of the params, which stay.

    Few steps: unrolled, so that XLA computes what is constant instead of compiling it.
    """

    def body(state: Any, factor: Any) -> Any:
        grads = jax.tree.map(lambda x: factor.astype(x.dtype) * x, params)
        updates, state = step(optimizer, grads, state, params)
        return state, updates

    factors = jnp.asarray(factors, float)
    return lax.scan(body, optimizer.init(params), factors, unroll=True)[1]


def small(dtype: Any = jnp.float32) -> Any:
    """Params that every row has something to do with."""
    rows = jnp.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], dtype)
    return {"w": rows, "b": rows[0]}
