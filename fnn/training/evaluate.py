"""A model over a whole data set: `predict` and `evaluate`."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, PyTree

from fnn.checks import (
    check_alive,
    check_arrays,
    check_known,
    check_outside,
    check_takes,
    describe,
    wrong,
)
from fnn.compiler import by_itself
from fnn.dtypes import is_real
from fnn.placement import on_device, replicated
from fnn.static import frozen
from fnn.training.arrays import check_examples, check_parts, read_rows, spread_of
from fnn.training.step import check_dtypes
from fnn.training.stream import check_iterable, length, read_batch
from fnn.trees import check_same

JOINED = 64  # outputs of batches in one program, which takes long to compile for thousands
Model = Callable[[Any, Any], Any]


def predict(
    model: Model,
    params: PyTree[Array],
    data: PyTree[Array] | Iterable[Any],
    *,
    batch_size: int | None = None,
) -> PyTree[Array]:
    """Return a model's outputs for all examples, computed batch by batch.

    Over arrays it is one compiled loop, in which memory holds the activations of one batch. A last
    batch that is smaller is filled with examples of the one before, whose outputs come out again:
    the model must treat each example by itself, as it does without batch statistics.

    Args:
        model: ``model(params, batch)``, a pytree of arrays with the examples first. A later call
            with the same function may run the program of this one: what model reads in a dict, an
            array or an object that changes belongs in params or data.
        params: any pytree of arrays; may hold running statistics too.
        data: as `fnn.train` takes it: arrays, of which a batch has the structure, or, without
            batch_size, an iterable of batches.
        batch_size: examples at a time.

    Returns:
        The outputs, with the examples in the order in which data gives them. `fnn.data.batches`
        shuffles: of its epochs, let the model return the labels too.

    Raises:
        ValueError: data of unequal lengths; a batch_size that the devices of the examples do not
            divide; an iterable without a batch, or a batch without examples; an output that does
            not have the batch's examples first, or is not that of another batch in structure,
            shape or dtype; an array that was donated; in params or data, integers of 64 bits that
            do not fit 32, without x64.
        TypeError: data that are no arrays, with a batch_size, or no iterable, without; a model that
            is no function; a leaf of params that is no array, or has a mask.

    >>> double = lambda params, x: params * x
    >>> fnn.predict(double, jnp.array(2.0), jnp.arange(5.0), batch_size=2).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    parts = _outputs("predict", model, params, data, batch_size)
    while len(parts) > 1:
        starts = range(0, len(parts), JOINED)
        parts = [jax.tree.map(_join, *parts[i : i + JOINED]) for i in starts]
    return parts[0]


def evaluate(
    metrics: Model,
    params: PyTree[Array],
    data: PyTree[Array] | Iterable[Any],
    *,
    batch_size: int | None = None,
) -> PyTree[float]:
    """Return the means of a model's metrics over all examples.

    ``1/n sum_i metrics(params, example i)``, each example once, whatever batch it is in.

    Args:
        metrics: ``metrics(params, batch)``, a pytree of arrays with one number per example, as the
            losses and `fnn.accuracy` return them. A later call with the same function may run the
            program of this one: what metrics reads in a dict, an array or an object that changes
            belongs in params or data.
        params: as `predict` takes it.
        data: as `predict` takes it. An epoch of `fnn.data.batches` is ``data(0)``.
        batch_size: as `predict` takes it.

    Returns:
        The same pytree of floats; of arrays where metrics has more than one number per example.

    Raises:
        ValueError, TypeError: as `predict`; a call inside a program that JAX traces.

    >>> def metrics(w, batch):
    ...     error = w * batch["x"] - batch["y"]
    ...     return {"squared": error**2, "large": abs(error) > 1}
    >>> data = {"x": jnp.array([1.0, 2.0, 3.0]), "y": jnp.array([1.0, 1.0, 1.0])}
    >>> fnn.evaluate(metrics, jnp.array(1.0), data, batch_size=2)
    {'large': 0.3333333333333333, 'squared': 1.6666666666666667}
    """
    check_known("evaluate", params=params, data=data)
    check_outside("evaluate", "inside, take the mean of what fnn.predict returns")
    parts = _outputs("evaluate", metrics, params, data, batch_size)

    def mean(path: Any, *xs: Array) -> Any:
        if not is_real(xs[0].dtype):
            place = "metrics" + jax.tree_util.keystr(path)
            raise wrong("evaluate", place, describe(xs[0]), "real numbers", TypeError)
        average = np.concatenate([np.asarray(x, np.float64) for x in xs]).mean(0)
        return average if average.ndim else float(average)

    return jax.tree.map_with_path(mean, *parts)


def _join(*parts: Array) -> Array:
    return jnp.concatenate(parts)


def _outputs(
    function: str, model: Model, params: Any, data: Any, batch_size: int | None
) -> list[Any]:
    """Return the outputs in parts: of all examples, or of each batch of an iterable."""
    argument = "metrics" if function == "evaluate" else "model"
    check_takes(function, argument, model, "params, batch")
    check_arrays(function, "params", params)
    model = frozen(model)
    if batch_size is not None:
        size = min(batch_size, check_examples(function, data, batch_size))
        check_alive(function, data=data)
        given, data = data, on_device(data)
        check_parts(function, data, size)
        spread = tuple(map(spread_of, jax.tree.leaves(data)))
        return _settled([_by_batches(function, model, size, spread, params, data)], params, given)
    check_iterable(function, data)
    if not isinstance(data, Iterable):
        needed = "arrays and a batch_size, or an iterable of batches, such as data(0), in its order"
        raise wrong(function, "data", describe(data), needed, TypeError)
    batches = map(functools.partial(read_batch, function), data)
    parts = [_of_one(function, model, params, batch) for batch in batches]
    if not parts:
        raise wrong(function, "data", "no batch", "at least one")
    first, *others = [jax.tree.map(_example, part) for part in parts]
    whose = "as in the first batch"
    for other in others:
        check_same(function, "the output for an example", other, first, whose)
        check_dtypes(function, "the output for an example", other, first, whose)
    return _settled(parts, params)


def _settled(outputs: list[Any], *given: Any) -> list[Any]:
    """Return outputs, when computed if of NumPy's arrays, which may be written into later."""
    shared = any(isinstance(x, np.ndarray) for x in jax.tree.leaves(given))
    return jax.block_until_ready(outputs) if shared else outputs


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_one(function: str, model: Model, params: Any, batch: Any) -> Any:
    size = length(batch)
    if size is None:
        got = ", ".join(map(describe, jax.tree.leaves(batch))) or "no array"
        raise wrong(function, "a batch of data", got, "an array with the examples first")
    return jax.tree.map(replicated, _checked(function, model(params, batch), size))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _by_batches(
    function: str,
    model: Model,
    size: int,
    spread: tuple[NamedSharding | None, ...],
    params: Any,
    data: Any,
) -> Any:
    leaves, structure = jax.tree.flatten(data)
    n = leaves[0].shape[0]
    steps, rest = -(-n // size), n % size or size
    slow = jax.default_backend() == "cpu"  # `fnn.compiler.as_bits` says why bfloat16 is

    @functools.partial(jax.jit, inline=True)  # which keeps the trace for the question of dtypes
    def outputs(start: Array) -> Any:
        read = [part(x, start, where) for x, where in zip(leaves, spread, strict=True)]
        batch = jax.tree.unflatten(structure, read)
        return jax.tree.map(jnp.asarray, _checked(function, model(params, batch), size))

    def part(x: Array, start: Array, where: NamedSharding | None) -> Array:
        def read(x: Array, start: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, size)

        if where:  # a slice would bring the examples of all devices together
            rows: Array = read_rows(x, start + jnp.arange(size), where)
            return rows
        return (by_itself(read) if slow and x.dtype == jnp.bfloat16 else read)(x, start)

    def stored(y: Array) -> Array:
        return y.astype(jnp.float32) if slow and y.dtype == jnp.bfloat16 else y

    def join(y: Array, dtype: Any) -> Array:
        y = replicated(y).astype(dtype)  # or sharded examples could not be merged with batches
        whole = y[:-1].reshape((steps - 1) * size, *y.shape[2:])
        return jnp.concatenate([whole, y[-1, size - rest :]])

    starts = jnp.minimum(size * jnp.arange(steps), n - size)  # the last batch begins earlier
    dtypes = jax.tree.map(lambda y: y.dtype, jax.eval_shape(outputs, starts[0]))
    return jax.tree.map(join, lax.map(lambda i: jax.tree.map(stored, outputs(i)), starts), dtypes)


def _example(y: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(y.shape[1:], y.dtype)


def _checked(function: str, outputs: Any, size: int) -> Any:
    for path, y in jax.tree.leaves_with_path(outputs):
        if jnp.shape(y)[:1] != (size,):
            place = "the output" + jax.tree_util.keystr(path)
            raise wrong(function, place, describe(y), f"the {size} examples of the batch first")
    return outputs
