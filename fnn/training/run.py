"""Training: one compiled step, or a whole run of them compiled into one program.

A step is ``params' = params + updates``, with ``(updates, state') = update(grads, state, params)``
and ``grads`` those of ``loss(params, batch)``. `make_step` compiles one of them for a loop of the
user's own. `train` compiles the loop as well: data and shuffled order stay on the device, the
program gathers each batch and steps, and Python runs once per report. A last batch that is smaller
is a smaller step of the same program: no example is dropped, repeated or padded.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from fnn.checks import check_scalar, describe, wrong
from fnn.optimizers.descent import Optimizer
from fnn.trees import check_like, check_params

Loss = Callable[..., Any]


class Report(NamedTuple):
    """Where a run stands: what `train` yields after every chunk of steps.

    Attributes:
        epoch: the epoch that the chunk belongs to, from 1.
        step: optimizer steps since the start of the run.
        loss: mean over the chunk's examples, each as its own step saw it; NaN and infinity stay.
        examples_per_second: speed of the chunk; compilation is not counted.
        params: the parameters after the chunk; they stay valid as the run goes on.
        state: the optimizer's state after the chunk; pass both to `train` to continue.
    """

    epoch: int
    step: int
    loss: float
    examples_per_second: float
    params: Any
    state: Any

    def __str__(self) -> str:
        """Return the report on one line, without the arrays."""
        return (
            f"epoch {self.epoch:3d}  step {self.step:6d}  loss {self.loss:<9.4g}"
            f"  {self.examples_per_second:,.0f} examples/s"
        )


def make_step(
    loss: Loss, optimizer: Optimizer, *, has_aux: bool = False
) -> Callable[..., tuple[Any, Any, Any]]:
    """Compile one optimizer step.

    ``params' = params + updates`` with ``(updates, state') = update(grads, state, params)``.

    Args:
        loss: ``loss(params, batch)``, a scalar; one with a parameter named ``key``, such as a loss
            with dropout, is called with ``key=`` as well.
        optimizer: any (init, update) pair, of fnn or of optax. An update that takes optax's extra
            arguments receives ``value``, ``grad`` and ``value_fn``, a function of params.
        has_aux: whether loss returns ``(scalar, aux)``.

    Returns:
        The compiled ``step(params, state, batch) -> (params, state, value)``, or
        ``step(params, state, batch, key)`` where loss takes a key; value is loss before the step,
        ``(value, aux)`` with has_aux. It donates params and state: use what it returns.

    Raises:
        ValueError: loss is no scalar; a key too many or too few; updates not shaped as params.
        TypeError: a leaf of params that is no floating-point array.

    Source: H. Robbins, S. Monro, A stochastic approximation method (1951).

    >>> import fnn, jax.numpy as jnp
    >>> optimizer, params = fnn.sgd(0.25), jnp.array([4.0, 2.0])
    >>> step = make_step(lambda params, batch: ((params - batch) ** 2).sum(), optimizer)
    >>> params, state, value = step(params, optimizer.init(params), jnp.array([0.0, 2.0]))
    >>> params.tolist(), float(value)
    ([2.0, 2.0], 16.0)
    """
    keyed = _takes_key("make_step", loss)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def donating(params: Any, state: Any, batch: Any, key: Any) -> tuple[Any, Any, Any]:
        if keyed != (key is not None):
            needed = "a key, as loss takes one" if keyed else "no key, as loss takes none"
            raise wrong("make_step", "key", "None" if key is None else describe(key), needed)
        params, state, value, aux = _step(
            "make_step", loss, optimizer, has_aux, params, state, batch, key
        )
        return params, state, (value, aux) if has_aux else value

    def step(params: Any, state: Any, batch: Any, key: Array | None = None) -> tuple[Any, Any, Any]:
        params, state, value = donating(*_unshared((params, state)), batch, key)
        return params, state, value

    return step


def train(
    loss: Loss,
    params: PyTree[Array],
    optimizer: Optimizer,
    data: PyTree[Array],
    *,
    batch_size: int,
    epochs: int,
    key: Array,
    state: PyTree[Array] | None = None,
    report_every: int | None = None,
) -> Iterator[Report]:
    """Train in one compiled program, reporting after every epoch.

    Each epoch visits every example once, in a fresh order drawn from ``fold_in(key, epoch)``, in
    batches of batch_size and a last one of the rest. The same arguments give the same numbers.

    Args:
        loss: ``loss(params, batch)``, a scalar mean over the batch, as `make_step` takes it; a
            parameter named ``key`` receives another key at every step.
        params: any pytree of floating-point arrays; not donated.
        optimizer: any (init, update) pair, as `make_step` takes it.
        data: any pytree of arrays with one common leading axis, the examples; a batch has the same
            structure. It is moved to the device once.
        batch_size: examples in a step, at most all of them.
        epochs: passes over data.
        key: the source of all randomness.
        state: the optimizer's state to continue from; by default ``optimizer.init(params)``.
        report_every: steps between two reports; by default one report an epoch. The last chunk of
            an epoch may be shorter.

    Returns:
        An iterator of `Report`; stopping early loses nothing that was yielded.

    Raises:
        ValueError: at the call, a size that does not fit, or data of unequal lengths; at the first
            report, as `make_step`.
        TypeError: a leaf of params that is no floating-point array, or a key that is none.

    Source: L. Bottou, Curiously fast convergence of some stochastic gradient descent algorithms
    (2009), on shuffled passes.

    >>> import fnn, jax, jax.numpy as jnp
    >>> data = jnp.array([1.0, 2.0, 6.0])
    >>> def loss(w, batch):
    ...     return ((w - batch) ** 2).mean()
    >>> for report in train(loss, jnp.zeros(()), fnn.sgd(0.1), data,
    ...                     batch_size=3, epochs=20, key=jax.random.key(0)):
    ...     pass
    >>> round(float(report.params), 1), report.step
    (3.0, 20)
    """
    _check_sizes(data, batch_size, epochs, report_every)
    _check_key(key)
    check_params("train", params)
    params, data = jax.tree.map(jnp.asarray, (params, data))
    state = optimizer.init(params) if state is None else state
    plan = _Plan(loss, _takes_key("train", loss), optimizer, batch_size)
    return _reports(plan, params, state, data, key, epochs, report_every)


class _Plan(NamedTuple):
    """What stays fixed through a run, as the static argument of its program."""

    loss: Loss
    keyed: bool
    optimizer: Optimizer
    batch_size: int


def _reports(
    plan: _Plan,
    params: Any,
    state: Any,
    data: Any,
    key: Array,
    epochs: int,
    report_every: int | None,
) -> Iterator[Report]:
    n = jax.tree.leaves(data)[0].shape[0]
    steps = -(-n // plan.batch_size)  # an epoch
    stride = report_every or steps
    order, noise = _order(key, 0, n=n)
    program = _chunk.lower(plan, params, state, data, order, noise, 0, 0).compile()
    for epoch in range(epochs):
        for start in range(0, steps, stride):
            stop = min(start + stride, steps)
            clock = time.perf_counter()
            if start == 0:
                order, noise = _order(key, epoch, n=n)
            total, params, state = program(params, state, data, order, noise, start, stop)
            examples = min(stop * plan.batch_size, n) - start * plan.batch_size
            mean = float(total) / examples  # waits for the device
            speed = examples / (time.perf_counter() - clock)
            yield Report(epoch + 1, epoch * steps + stop, mean, speed, params, state)


@functools.partial(jax.jit, static_argnames="n")
def _order(key: Array, epoch: Array, *, n: int) -> tuple[Array, Array]:
    """Order of the n examples in this epoch, and the key of its steps' randomness.

    Sorts repeatedly by random bits, as `jax.random.permutation` does, but packs bits and position
    into one word: on a CPU one array sorts several times faster than keys that carry values.
    """
    shuffle, noise = jax.random.split(jax.random.fold_in(key, epoch))
    width = max(1, (n - 1).bit_length())  # of a position; the rest of the word is random
    rounds = -(-3 * width // (32 - width))  # so 3 width random bits in all: ties have odds 1 / n
    position = jnp.arange(n, dtype=jnp.uint32)

    def deal(i: Array, order: Array) -> Array:
        bits = jax.random.bits(jax.random.fold_in(shuffle, i), (n,), jnp.uint32)
        packed = lax.sort((bits >> width << width) | position)
        return order[packed & (2**width - 1)]

    return lax.fori_loop(0, rounds, deal, position), noise


@functools.partial(jax.jit, static_argnums=0)
def _chunk(
    plan: _Plan,
    params: Any,
    state: Any,
    data: Any,
    order: Array,
    noise: Array,
    start: Array,
    stop: Array,
) -> tuple[Array, Any, Any]:
    """Steps start to stop of an epoch: the sum of the loss over their examples, params, state."""
    whole, rest = divmod(order.shape[0], plan.batch_size)

    def step(first: Any, size: int, carry: Any) -> Any:
        total, params, state = carry
        rows = lax.dynamic_slice(order, (first,), (size,))
        batch = jax.tree.map(lambda x: x.at[rows].get(mode="promise_in_bounds"), data)
        key = jax.random.fold_in(noise, first) if plan.keyed else None
        params, state, value, _ = _step(
            "train", plan.loss, plan.optimizer, False, params, state, batch, key
        )
        return total + size * value.astype(total.dtype), params, state

    def body(i: Array, carry: Any) -> Any:
        return step(i * plan.batch_size, plan.batch_size, carry)

    carry = lax.fori_loop(start, jnp.minimum(stop, whole), body, (jnp.zeros(()), params, state))
    if rest:  # the last batch of the epoch has a shape of its own
        last = functools.partial(step, whole * plan.batch_size, rest)
        carry = lax.cond(stop > whole, last, lambda same: same, carry)
    total, params, state = carry
    return total, params, state


def _step(
    name: str,
    loss: Loss,
    optimizer: Any,
    has_aux: bool,
    params: Any,
    state: Any,
    batch: Any,
    key: Any,
) -> Any:
    check_params(name, params)

    def objective(params: Any) -> Any:
        out = loss(params, batch) if key is None else loss(params, batch, key=key)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise wrong(name, "loss", describe(out), "a pair (value, aux), as has_aux says")
        value, aux = out if has_aux else (out, None)
        return check_scalar(name, value), aux

    (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(params)
    extra = _extra(optimizer.update, value=value, grad=grads, value_fn=lambda p: objective(p)[0])
    updates, state = optimizer.update(grads, state, params, **extra)
    check_like(name, "updates", updates, params)
    return jax.tree.map(_add, params, updates), state, value, aux


def _unshared(tree: Any) -> Any:
    """Copy leaves that are one array in two places, as some ``init`` makes them: donated once."""
    leaves, structure = jax.tree.flatten(tree)
    if len(set(map(id, leaves))) == len(leaves):
        return tree
    return jax.tree.unflatten(structure, map(jnp.copy, leaves))


def _extra(update: Any, **offered: Any) -> dict[str, Any]:
    takes = inspect.signature(update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return offered
    return {name: value for name, value in offered.items() if name in takes}


def _add(p: Array, u: Array) -> Array:
    wide = max(p.dtype, u.dtype, key=lambda dtype: dtype.itemsize)  # so that only the sum rounds
    return (p.astype(wide) + u.astype(wide)).astype(p.dtype)


def _takes_key(name: str, loss: Loss) -> bool:
    if not callable(loss):
        raise wrong(name, "loss", describe(loss), "a function loss(params, batch)", TypeError)
    return "key" in inspect.signature(loss).parameters


def _check_key(key: Any) -> None:
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, jax.Array) and key.dtype == jnp.uint32 and key.shape == (2,)
    if not raw and not (typed and key.shape == ()):
        raise wrong("train", "key", describe(key), "one key, such as jax.random.key(0)", TypeError)


def _check_sizes(data: Any, batch_size: int, epochs: int, report_every: int | None) -> None:
    sizes = {
        "data" + jax.tree_util.keystr(path): jnp.shape(leaf)[0] if jnp.ndim(leaf) else None
        for path, leaf in jax.tree.leaves_with_path(data)
    }
    n = next(iter(sizes.values()), None)
    if not n or len(set(sizes.values())) > 1:
        got = ", ".join(f"{size or 'no'} examples in {path}" for path, size in sizes.items())
        needed = "arrays with one common leading axis, the examples, at least one"
        raise wrong("train", "data", got or "no array", needed)
    for name, value, least, most in [
        ("batch_size", batch_size, 1, n),
        ("epochs", epochs, 0, None),
        ("report_every", 1 if report_every is None else report_every, 1, None),
    ]:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least or (most is not None and value > most):
            needed = f"an int >= {least}" + (f" and at most the {most} examples" if most else "")
            raise wrong("train", name, repr(value), needed)
