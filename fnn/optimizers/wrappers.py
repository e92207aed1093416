"""What goes around an optimizer: accumulation, averages, lookahead, and half precision's needs."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from fnn.checks import LAST, Range, check_flags, check_int, check_number, wrong
from fnn.dtypes import Number, computed_wide, narrowed, number_like, widen
from fnn.optimizers.base import (
    Optimizer,
    Transform,
    check_state,
    check_transform,
    in_dtype,
    need_params,
    next_step,
    only_part,
    read_numbers,
    run_update,
    total_weight,
)
from fnn.optimizers.last import Master, Slow, Watcher, kind_around, refuse_last
from fnn.placement import placed_as, varying
from fnn.trees import all_finite, check_like, check_params, exported


def _map(formula: Any, *trees: Any) -> Any:
    return jax.tree.map(functools.partial(computed_wide, formula), *trees)


def _widened(tree: Any) -> Any:
    return jax.tree.map(widen, tree)


def _typed_as(old: Any, new: Any) -> Any:
    """Return a new state in the dtypes of the old and, on manual axes, varying as that does.

    optax's moments of half precision take the dtype of the gradients, which may be float32.
    """

    def leaf(x: Any, like: Any) -> Any:
        dtype = jnp.result_type(like)
        same = jnp.result_type(x) == dtype  # as that of a random key, which has no other
        return varying(x if same else x.astype(dtype), like)[0]

    return jax.tree.map(leaf, new, old)


LARGEST_SCALE = 2.0**100  # of a loss: far above need, far below infinity


@exported
class Accumulated(NamedTuple):
    """State of `accumulate`.

    Attributes:
        inner: the state of the optimizer.
        step: int32[], gradients in the mean so far.
        mean: a pytree like the gradients, at least float32.
    """

    inner: Any
    step: Int[Array, ""]
    mean: Any


def accumulate(optimizer: Transform, k: int) -> Optimizer:
    """Step once with the mean of every k gradients; the updates between are zero.

    ``m <- m (n - 1) / n + g / n`` at the n-th call; at the k-th the optimizer sees ``m``, and ``n``
    starts again at 1. A gradient that is not finite spoils its mean, and the parameters show it at
    the k-th call. Of the extra arguments of `fnn.make_step`, ``grad`` is the mean as well, and
    ``value`` the loss of the k-th batch alone.

    Args:
        optimizer: the optimizer to run at every k-th call; a schedule counts its steps. Weight
            decay belongs inside it: around `accumulate` it would act at every call.
        k: how many gradients make a step, each a mean over as many examples. A run may go on with
            another k; a mean that holds as many already is done with the next gradient.

    Returns:
        An `Optimizer` with one buffer of the gradients' size.

    Raises:
        ValueError: k < 1; gradients shaped otherwise than the params; with k > 1, an optimizer that
            calls ``value_fn``, such as `fnn.newton` or a line search: there is no loss of all k
            batches to give it.
        TypeError: no optimizer.

    >>> opt = fnn.accumulate(fnn.sgd(0.5), 2)
    >>> first, state = opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))
    >>> second, state = opt.update(jnp.array([3.0]), state)
    >>> first.tolist(), second.tolist()
    ([0.0], [-1.0])
    """
    check_transform("accumulate", "optimizer", optimizer)
    check_int("accumulate", "k", k, 1)

    def init(params: Any) -> Accumulated:
        check_params("accumulate", params)
        mean = jax.tree.map(jnp.zeros_like, _widened(params))
        return Accumulated(optimizer.init(params), jnp.zeros((), jnp.int32), mean)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state("accumulate", state, Accumulated)
        check_like("accumulate", "grads", grads, state.mean)

        def mixed(m: Any, g: Any) -> Any:
            n = state.step.astype(m.dtype) + 1
            return m * ((n - 1) / n) + g / n

        mean = _map(mixed, state.mean, grads)

        def step(mean: Any, inner: Any) -> Any:
            whole = jax.tree.map(lambda m, g: m.astype(g.dtype), mean, grads)
            updates, new = run_update(optimizer, whole, inner, params, _of_all(extra, whole, k))
            return updates, _typed_as(inner, new), jax.tree.map(jnp.zeros_like, mean)

        def wait(mean: Any, inner: Any) -> Any:
            updates = jax.eval_shape(step, mean, inner)[0]
            # Of the means, as the updates are sharded and vary as these do.
            none = jax.tree.map(lambda m, u: jnp.zeros_like(m, u.dtype), mean, updates)
            return none, inner, mean

        # Counted in an int32, and more than k where the run began with a larger one.
        ready = state.step >= min(k - 1, LAST)
        updates, inner, mean = lax.cond(ready, step, wait, mean, state.inner)
        return updates, Accumulated(inner, jnp.where(ready, 0, state.step + 1), mean)

    return kind_around(optimizer)(init, update)


def _of_all(extra: dict[str, Any], mean: Any, k: int) -> dict[str, Any]:
    """Return the extra arguments of `fnn.make_step` for the mean gradient of k batches."""

    def refuse(params: Any) -> Any:
        del params
        got = "one that calls value_fn, the loss of the last batch alone"
        needed = f"one that does not, or k = 1 and batches {k} times as large"
        raise wrong("accumulate", "optimizer", got, needed)

    whole = dict(extra)
    if "grad" in extra:
        whole["grad"] = mean
    if "value_fn" in extra and k > 1:
        whole["value_fn"] = refuse
    return whole


@exported
class Averaged(NamedTuple):
    """State of `average`.

    Attributes:
        step: int32[], iterates seen.
        average: the averaged parameters, to evaluate with.
    """

    step: Int[Array, ""]
    average: Any


def average(decay: Number | None = None, *, debias: bool = False) -> Optimizer:
    """Average the iterates on the side: last in a `chain`, outside all that changes updates.

    Polyak (the default): ``a <- a + (x - a) / t``, the mean of the iterates ``x`` after the steps
    1 to t. Exponential: ``a <- decay a + (1 - decay) x``, from the initial parameters on or, with
    debias, from zero and divided by ``1 - decay^t``, so that the initial parameters count for
    nothing. The updates pass unchanged, and an iterate is the params and these, so that nothing may
    change them behind it: `add_weight_decay` and `lookahead` refuse it inside, as do `freeze` and
    `flat`, which would show it other leaves. `averaged` finds the averaged parameters in a state.

    Args:
        decay: None for the mean of all iterates, or the share of the old average that a step keeps.
        debias: whether an exponential average forgets the initial parameters.

    Returns:
        An `Optimizer` for the end of a `chain`; its update needs params.

    Raises:
        ValueError: decay not in [0, 1), debias without decay; update without params.

    Source: B. Polyak, A. Juditsky, Acceleration of stochastic approximation by averaging (1992).

    >>> opt, x = fnn.chain(fnn.sgd(1.0), fnn.average()), jnp.array([3.0])
    >>> state = opt.init(x)
    >>> for _ in range(3):
    ...     updates, state = opt.update(jnp.array([1.0]), state, x)
    ...     x = x + updates                                       # 2, 1, 0
    >>> fnn.averaged(state).tolist()
    [1.0]
    """
    check_flags("average", debias=debias)
    if decay is not None:
        decay = read_numbers("average", decay=decay)["decay"]
    elif debias:
        raise wrong("average", "debias", debias, "a decay with it: the mean of all has no bias")

    def init(params: Any) -> Averaged:
        check_params("average", params)
        return Averaged(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, _widened(params)))

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del extra
        check_state("average", state, Averaged)
        need_params("average", grads, params)
        check_like("average", "state.average", state.average, params)
        step = next_step(state.step)

        def share(dtype: Any) -> Any:
            """What a new iterate weighs."""
            if decay is None:
                return 1 / step.astype(dtype)
            kept = in_dtype(dtype, {"decay": decay})["decay"]
            return (1 - kept) / (total_weight(kept, step.astype(dtype)) if debias else 1)

        def mix(a: Any, x: Any, u: Any) -> Any:
            return a + (x + u - a) * share(a.dtype)

        return grads, Averaged(step, _map(mix, state.average, params, grads))

    return Watcher(init, update)


def averaged(state: PyTree[Any]) -> PyTree[Float[Array, "..."]]:
    """Return the averaged parameters, to evaluate with.

    Args:
        state: of an optimizer with one `average`, however deep within chains and wrappers, fnn's or
            optax's, but outside `flat`, `freeze` and `partition`, which give their optimizer other
            leaves: ``fnn.chain(fnn.flat(optimizer), fnn.average())``.

    Returns:
        A pytree like the params, at least float32: the state's leaf ``average``.

    Raises:
        ValueError: the state holds no average, or several.

    >>> opt = fnn.chain(fnn.sgd(0.5), fnn.average())
    >>> fnn.averaged(opt.init(jnp.ones(3))).tolist()
    [1.0, 1.0, 1.0]
    """
    return only_part("averaged", state, Averaged, "average").average


@exported
class Ahead(NamedTuple):
    """State of `lookahead`.

    Attributes:
        inner: the state of the fast optimizer.
        step: int32[], fast steps since the slow parameters moved.
        slow: the slow parameters, to evaluate with between the synchronisations, at least float32.
    """

    inner: Any
    step: Int[Array, ""]
    slow: Any


def lookahead(optimizer: Transform, k: int = 5, *, slow_rate: Number = 0.5) -> Optimizer:
    """Let k steps of an optimizer explore, then go a part of the way: k forward, one back.

    At every k-th step ``s <- s + slow_rate (x - s)`` and ``x <- s``, with the fast parameters x,
    which are the params, and the slow ones s. Where that is a longer way than the dtype of x holds,
    x goes as far as one update takes it.

    Args:
        optimizer: the fast optimizer; its state goes on across synchronisations. `average` belongs
            behind `lookahead`, and `with_master_weights` around it.
        k: fast steps between them.
        slow_rate: the part of the way, in (0, 1].

    Returns:
        An `Optimizer`; its update needs params, and nothing may change its updates: in a `chain`
            only `average` may stand behind it.

    Raises:
        ValueError: an optimizer that ends with `average`, `lookahead` or `with_master_weights`;
            k < 1, slow_rate not in (0, 1]; update without params.
        TypeError: no optimizer.

    Source: M. Zhang et al., Lookahead optimizer: k steps forward, 1 step back (2019).

    >>> opt, x = fnn.lookahead(fnn.sgd(1.0), 2, slow_rate=0.5), jnp.array([8.0])
    >>> state = opt.init(x)
    >>> for _ in range(2):
    ...     updates, state = opt.update(jnp.array([2.0]), state, x)
    ...     x = x + updates                                       # 6, then half way back from 4
    >>> x.tolist()
    [6.0]
    """
    check_transform("lookahead", "optimizer", optimizer)
    refuse_last("lookahead", optimizer)
    check_int("lookahead", "k", k, 1)
    check_number("lookahead", "slow_rate", slow_rate, Range(0, 1, low_closed=False))

    def init(params: Any) -> Ahead:
        check_params("lookahead", params)
        slow = jax.tree.map(jnp.copy, _widened(params))
        return Ahead(optimizer.init(params), jnp.zeros((), jnp.int32), slow)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state("lookahead", state, Ahead)
        need_params("lookahead", grads, params)
        updates, inner = run_update(optimizer, grads, state.inner, params, extra)
        ready = state.step >= min(k - 1, LAST)  # more: the run began with a larger k

        def advance(s: Any, x: Any, u: Any) -> Any:
            return jnp.where(ready, s + number_like(slow_rate, s) * (x + u - s), s)

        def back(u: Any, x: Any, s: Any) -> Any:
            return jnp.where(ready, narrowed(s - x.astype(s.dtype), u.dtype), u)

        slow = _map(advance, state.slow, params, updates)
        updates = jax.tree.map(back, updates, params, slow)
        return updates, Ahead(inner, jnp.where(ready, 0, state.step + 1), slow)

    return Slow(init, update)


@exported
class Mastered(NamedTuple):
    """State of `with_master_weights`.

    Attributes:
        inner: the state of the optimizer, in float32.
        master: the parameters in float32.
    """

    inner: Any
    master: Any


def with_master_weights(optimizer: Transform) -> Optimizer:
    """Keep half-precision parameters, and the optimizer's state, in float32.

    The optimizer steps on the float32 master copy, ``m <- m + u``; the update returned is
    ``m - x`` rounded to the dtype of x, which takes the params to the rounded master or next to it.
    What is rounded away is in the next update again: steps too small for the params add up in the
    master. Where the master is beyond the range of x, x goes to the end of the range.

    Args:
        optimizer: any; leaves that are wider than half precision stay as they are.

    Returns:
        An `Optimizer`; its update needs params, and nothing may change its updates: in a `chain`
            only `average` may stand behind it. Weight decay and `lookahead` belong inside it.

    Raises:
        ValueError: update without params.
        TypeError: no optimizer.

    Source: P. Micikevicius et al., Mixed precision training (2018).

    >>> opt, x = fnn.with_master_weights(fnn.sgd(2.0**-10)), jnp.ones(1, jnp.bfloat16)
    >>> state = opt.init(x)
    >>> for _ in range(8):                         # each step is below half a unit of bfloat16
    ...     updates, state = opt.update(jnp.ones(1, jnp.bfloat16), state, x)
    ...     x = x + updates
    >>> x.tolist(), state.master.tolist()
    ([0.9921875], [0.9921875])
    """
    check_transform("with_master_weights", "optimizer", optimizer)

    def init(params: Any) -> Mastered:
        check_params("with_master_weights", params)
        master = jax.tree.map(jnp.copy, _widened(params))
        return Mastered(optimizer.init(master), master)

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        check_state("with_master_weights", state, Mastered)
        need_params("with_master_weights", grads, params)
        if "grad" in extra:
            extra["grad"] = _widened(extra["grad"])
        updates, inner = run_update(optimizer, _widened(grads), state.inner, state.master, extra)
        master = _map(lambda m, u: m + u, state.master, updates)

        def move(x: Any, m: Any) -> Any:
            rounded = narrowed(m, x.dtype).astype(m.dtype)
            return narrowed(rounded - x.astype(m.dtype), x.dtype)

        moved = jax.tree.map(move, params, master)
        return moved, Mastered(inner, master)

    return kind_around(optimizer, own=Master)(init, update)


@exported
class Scaled(NamedTuple):
    """State of `with_loss_scale`.

    Attributes:
        inner: the state of the optimizer.
        scale: float32[], what the next step multiplies the loss by.
        good: int32[], finite gradients since the scale changed.
    """

    inner: Any
    scale: Float[Array, ""]
    good: Int[Array, ""]


def with_loss_scale(
    optimizer: Transform, *, initial: Number = 2.0**15, grow_after: int = 2000
) -> Optimizer:
    """Multiply the loss before it is differentiated, so that no gradient is too small for float16.

    ``g = grad(scale loss) / scale``, divided in float32. If any number of g is not finite, the
    parameters and the optimizer's state stay as they are, and the scale is halved; after every
    grow_after finite gradients it is doubled. At scale 1 no step is left out: what is not finite
    then comes from the loss, and `fnn.train` tells where.

    The update differentiates ``value_fn`` itself, which `fnn.make_step` and `fnn.train` hand to it.
    In their programs the loss is still computed once, and the gradient without the scale not at
    all, unless ``observe`` reads it.

    Args:
        optimizer: any. Clipping, accumulation, weight decay, master weights and `flat` belong
            inside it: the gradients that it is given are not read, and what is around it acts on
            the steps that it leaves out too.
        initial: the first scale, from 1 to 2^100; dividing by a power of two rounds nothing.
        grow_after: finite gradients after which the scale is doubled.

    Returns:
        An `Optimizer`; its update needs params and value_fn. In an optax chain it stands as
        ``optax.GradientTransformationExtraArgs(*fnn.with_loss_scale(...))``.

    Raises:
        ValueError: initial not in [1, 2^100], grow_after < 1; from update, params or value_fn
            missing.
        TypeError: no optimizer.

    Source: P. Micikevicius et al., Mixed precision training (2018).

    >>> def loss(w, batch):                            # the gradient, 2^-26, is zero in float16
    ...     return (w.astype(jnp.float16) * 2.0**-13).astype(jnp.float32) * 2.0**-13
    >>> optimizer, w = fnn.with_loss_scale(fnn.sgd(2.0**26)), jnp.array(3.0)
    >>> w, state, _ = fnn.make_step(loss, optimizer)(w, optimizer.init(w), None)
    >>> float(w), float(state.scale)
    (2.0, 32768.0)
    """
    check_transform("with_loss_scale", "optimizer", optimizer)
    check_number("with_loss_scale", "initial", initial, Range(1, LARGEST_SCALE))
    check_int("with_loss_scale", "grow_after", grow_after, 1)
    grow_after = min(grow_after, LAST)

    def init(params: Any) -> Scaled:
        scale = jnp.array(initial, jnp.float32)
        state = Scaled(optimizer.init(params), scale, jnp.zeros((), jnp.int32))
        # It must vary as params do: an update joins the old state and the new.
        of = jax.tree.leaves(params)
        made: Scaled = jax.tree.map(lambda s: varying(s, *of)[0], state)
        return made

    def update(
        grads: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        check_state("with_loss_scale", state, Scaled)
        need_params("with_loss_scale", grads, params)
        if value_fn is None:
            needed = "update(grads, state, params, value_fn=<the loss of params>)"
            raise wrong("with_loss_scale", "value_fn", "None", needed)
        grads = _scaled_gradient(value_fn, params, state.scale)
        extra |= {"value_fn": value_fn, "grad": grads}
        updates, inner = run_update(optimizer, grads, state.inner, params, extra)
        finite = all_finite(grads)
        used = finite | (state.scale <= 1)

        inner = _typed_as(state.inner, inner)
        inner = jax.tree.map(lambda new, old: jnp.where(used, new, old), inner, state.inner)
        updates = jax.tree.map(lambda u: jnp.where(used, u, 0), updates)
        return updates, _rescaled(state._replace(inner=inner), finite, grow_after)

    return kind_around(optimizer)(init, update)


def _scaled_gradient(value_fn: Any, params: Any, scale: Array) -> Any:
    value, pull = jax.vjp(value_fn, params)
    used = scale.astype(value.dtype)  # rounded, so that is what there is to divide by
    (grads,) = pull(placed_as(used, value))
    return jax.tree.map(lambda g: g / used.astype(g.dtype), _widened(grads))


def _rescaled(state: Scaled, finite: Array, grow_after: int) -> Scaled:
    """Return the state with the scale of the next step."""
    good = jnp.where(finite, state.good + 1, 0)
    grown = jnp.where(good < grow_after, state.scale, 2 * state.scale)
    scale = jnp.where(finite, jnp.minimum(grown, LARGEST_SCALE), jnp.maximum(state.scale / 2, 1))
    return state._replace(scale=scale, good=jnp.where(good < grow_after, good, 0))
