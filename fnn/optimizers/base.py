"""The contract of an optimizer, and what all optimizers share.

``state = init(params)``, then ``updates, state = update(grads, state, params)``, as in optax; the
updates are added to the params. An optimizer of fnn is one rule, the formula for one leaf, and
`leafwise` carries it over a pytree. What holds for all of them:

Learning rate. A number, a scalar array, or a schedule: a function of the number of steps taken, 0
at the first. The state's leaf ``learning_rate`` is the rate of the next step; `learning_rate` reads
it and `with_learning_rate` replaces it, which recompiles nothing. The newer of two rates counts:
that in the state, or the array that the optimizer is made with, as `optax.inject_hyperparams` makes
it anew at every step.

Numbers. Every ``float`` argument may also be a traced array, so that `jax.vmap` runs a sweep.

Precision. Half-precision leaves are computed in float32 and their moments kept in float32; the
updates have the dtype of the params. ``half_moments=True`` keeps moments in the dtype of the
params, as optax does. It halves the memory, but in float16 a mean square below 6e-8 is zero, and in
bfloat16 changes of less than 1/256 are lost.

Range. Where gradients are squared, those beyond 1e18 (1e152 in float64) count as 1e18, so that no
square overflows. A sum of squares, and any moment kept in half precision, ends at the largest
number of its dtype; infinities and NaN stay what they are.

Derivatives. Updates can be differentiated, also where the gradient is zero.
"""

import functools
import math
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from fnn.checks import (
    ANY,
    BELOW_ONE,
    LAST,
    NOT_NEGATIVE,
    Range,
    attribute,
    check_flags,
    check_number,
    check_takes,
    describe,
    is_number,
    wrong,
)
from fnn.dtypes import Number, accumulator, is_real, narrowed
from fnn.functions import taken
from fnn.trees import check_like, check_params, exported

Schedule = Callable[[Any], Float[Array, ""] | Number]  # of the number of steps taken
Rate = Number | Float[Array, ""] | Schedule
Numbers = dict[str, Any]
Part = TypeVar("Part")  # of a state

# Which numbers an argument of a rule may be, by its name, which means the same in every optimizer.
RANGES = {
    **dict.fromkeys(("b1", "b2", "decay", "momentum"), BELOW_ONE),
    **dict.fromkeys(("eps", "eps_root", "damping", "momentum_decay", "rest_rate"), NOT_NEGATIVE),
    "threshold": Range(4),
}
NO_RATE = float(jnp.finfo(jnp.float32).max)  # finite: not NaN, which JAX can be told to look for


class Transform(Protocol):
    """What every function here needs of an optimizer or transform, fnn's, optax's or your own."""

    # Of any arguments: to pyright the functions that a NamedTuple holds are its methods.
    @property
    def init(self) -> Callable[..., Any]:
        """``init(params) -> state``."""
        ...

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """``update(grads, state, params=None) -> (updates, state)``, with any extra arguments."""
        ...


if TYPE_CHECKING:  # for checkers an optax transform too: optax asks for its own class by name
    from optax import GradientTransformationExtraArgs  # type: ignore[import-untyped]  # optax ships no types

    class _Pair(GradientTransformationExtraArgs):
        def __new__(cls, init: Callable[..., Any], update: Callable[..., Any]) -> Self: ...
        @property  # optax's own say arrays and containers of them, which have no attributes
        def init(self) -> Callable[[Any], Any]: ...
        @property
        def update(self) -> Callable[..., tuple[Any, Any]]: ...

else:

    class _Pair(NamedTuple):
        init: Callable[[Any], Any]
        update: Callable[..., tuple[Any, Any]]


class Optimizer(_Pair):
    """A pair of pure functions, which any optax chain accepts.

    Attributes:
        init: ``init(params) -> state``.
        update: ``update(grads, state, params=None, **extra) -> (updates, state)``; the updates
            are to be added to the params.

    One by hand, whose steps have the length 0.5:

    >>> def update(grads, state, params=None):
    ...     norm = fnn.trees.global_norm(grads)
    ...     return jax.tree.map(lambda g: -0.5 * g / norm, grads), state
    >>> optimizer = fnn.Optimizer(lambda params: (), update)
    >>> fnn.trajectory(lambda x: 5 * x, jnp.array(1.0), optimizer, 2).params.tolist()
    [1.0, 0.5, 0.0]
    """

    __slots__ = ()


@exported
class State(NamedTuple):
    """State of an optimizer that `leafwise` makes.

    Attributes:
        step: int32[], steps taken.
        learning_rate: float32[], the rate of the next step; float64[] if a parameter is.
        moments: pytrees like the params, by their names in optax: ``mu``, ``nu``.
        given: of the same dtype, the array that the optimizer of the last step was made with as its
            rate; if that was a number or a schedule, the largest float32.
    """

    step: Int[Array, ""]
    learning_rate: Float[Array, ""]
    moments: dict[str, Any]
    given: Float[Array, ""]


class Now(SimpleNamespace):
    """What a rule knows besides its leaf, so that it changes no array of the leaf's dtype.

    Attributes:
        rate: the learning rate.
        t: the step number, from 1.
        others: the optimizer's numbers, by their names. Those that are known stay Python's:
            ``1 - b2`` is then exact to double precision.
    """


def leafwise(
    name: str,
    rule: Callable[..., tuple[Any, ...]],
    learning_rate: Rate,
    numbers: Numbers,
    *,
    half_moments: bool = False,
    **initial: Number | Callable[[Any], Any],
) -> Optimizer:
    """Carry ``rule(now, g, *moments) -> (update, *moments)`` over a pytree.

    ``numbers`` are what else the rule needs to know. ``initial`` names the moments; each starts
    from a number everywhere or, where it has a shape of its own, from a function of zeros like the
    leaf.
    """
    check_rate(name, learning_rate)
    check_flags(name, half_moments=half_moments)
    numbers = read_numbers(name, **numbers)

    def init(params: Any) -> State:
        check_params(name, params)

        def start(x0: Any, x: Any) -> Any:
            dtype = jnp.result_type(x)  # which x64 decides for NumPy arrays
            dtype = dtype if half_moments else accumulator(dtype)
            return x0(jnp.zeros_like(x, dtype)) if callable(x0) else jnp.full_like(x, x0, dtype)

        moments = {
            key: jax.tree.map(functools.partial(start, x0), params) for key, x0 in initial.items()
        }
        return first_state(name, learning_rate, params, moments)

    def update(grads: Any, state: State, params: Any = None, **extra: Any) -> tuple[Any, State]:
        del extra
        _check_leafwise(name, state, initial, grads, params)
        rate = rate_of_step(learning_rate, state)
        known = {"rate": rate, "t": next_step(state.step)} | numbers
        moments = [state.moments[key] for key in initial]  # a jit returns the dict sorted
        leaves, structure = jax.tree.flatten(grads)
        like = leaves if params is None else jax.tree.leaves(params)
        columns: list[list[Any]] = [[] for _ in range(1 + len(initial))]
        for x, *leaf in zip(like, leaves, *map(jax.tree.leaves, moments), strict=True):
            dtype = accumulator(jnp.result_type(x))  # as in init
            now = Now(**in_dtype(dtype, known))
            new = rule(now, *[jnp.asarray(y, dtype) for y in leaf])
            columns[0].append(new[0].astype(jnp.result_type(x)))
            for column, value, old in zip(columns[1:], new[1:], leaf[1:], strict=True):
                column.append(narrowed(value, jnp.result_type(old)))
        updates, *trees = [jax.tree.unflatten(structure, column) for column in columns]
        named = dict(zip(initial, trees, strict=True))
        return updates, next_state(name, learning_rate, rate, state, named)

    return Optimizer(init, update)


def _check_leafwise(name: str, state: Any, initial: Numbers, grads: Any, params: Any) -> None:
    check_state(name, state, State, initial)
    full = [key for key, x0 in initial.items() if not callable(x0)]
    if params is None:
        params = state.moments[full[0]] if full else grads
    check_like(name, "grads", grads, params)
    for key in full:
        check_like(name, f"state.moments[{key!r}]", state.moments[key], grads)


def check_state(name: str, state: Any, kind: type, moments: Iterable[str] = ()) -> None:
    """Raise unless this is a state of the kind that the optimizer's init returns."""
    if not isinstance(state, kind):
        raise wrong(name, "state", f"a {type(state).__name__}", f"the {kind.__name__} of its init")
    if isinstance(state, State) and set(state.moments) != set(moments):
        got = f"a State with moments {sorted(state.moments)}"
        raise wrong(name, "state", got, f"that of its init, with moments {sorted(moments)}")


def check_transform(name: str, argument: str, value: Any) -> None:
    """Raise unless this is an optimizer or transform; a function that makes one is none."""
    if not hasattr(value, "init") or not hasattr(value, "update"):
        needed = (
            "an object with init and update, such as fnn.adam(1e-3) or fnn.Optimizer(init, update)"
        )
        raise wrong(name, argument, describe(value), needed, TypeError)


def check_rate(name: str, rate: Rate) -> None:
    """Raise unless this is a number, a scalar array or a schedule."""
    if callable(rate):
        check_takes(name, "learning_rate", rate, "step")
    else:
        check_number(name, "learning_rate", rate)


def read_numbers(name: str, **numbers: Any) -> Numbers:
    """Check numbers against their ranges; bring those that are known into Python's form."""
    for argument, value in numbers.items():
        check_number(name, argument, value, RANGES.get(argument, ANY))
    return {k: v if isinstance(v, jax.Array) else float(v) for k, v in numbers.items()}


def in_dtype(dtype: Any, numbers: Numbers) -> Numbers:
    """Return the numbers so that they change no array of this dtype."""
    return {k: v.astype(dtype) if isinstance(v, jax.Array) else v for k, v in numbers.items()}


def is_zero(number: Any) -> bool:
    """Whether a number is known to be zero; a traced one is not."""
    return not isinstance(number, jax.Array) and number == 0


def first_state(name: str, rate: Rate, params: Any, moments: dict[str, Any]) -> State:
    """Return the state before the first step, its rate in float32 unless a parameter is float64.

    So x64 alone changes no dtype of a state, and a run goes on where it is set otherwise.
    """
    start = jnp.zeros((), jnp.int32)
    wide = any(jnp.result_type(x) == jnp.float64 for x in jax.tree.leaves(params))
    dtype = jnp.float64 if wide else jnp.float32
    return State(start, _rate_at(name, rate, start, dtype), moments, _given(rate, dtype))


def rate_of_step(rate: Rate, state: State) -> Array:
    """Return the rate of the next step: that of the state, or a newer array."""
    if not isinstance(rate, jax.Array):
        return state.learning_rate
    own = rate.astype(state.learning_rate.dtype)
    replaced = (state.learning_rate != state.given) & (own == state.given)
    return jnp.where(replaced, state.learning_rate, own)


def next_step(step: Array) -> Array:
    """Return the step counted, which stays at the largest int32."""
    return jnp.minimum(step, LAST - 1) + 1


def next_state(name: str, rate: Rate, used: Array, state: State, moments: dict[str, Any]) -> State:
    """Return the state after a step with the rate ``used``."""
    step = next_step(state.step)
    following = _rate_at(name, rate, step, jnp.result_type(used)) if callable(rate) else used
    return State(step, following, moments, _given(rate, state.given.dtype))


def _given(rate: Rate, dtype: DTypeLike) -> Array:
    """Return the array that a rate is, or `NO_RATE`, in an array of its own."""
    return jnp.array(rate if isinstance(rate, jax.Array) else NO_RATE, dtype)


def _rate_at(name: str, rate: Rate, step: Any, dtype: DTypeLike) -> Array:
    """Return the rate, or the schedule's value, in an array of its own, which may be donated."""
    value = rate(step) if callable(rate) else rate
    if callable(rate) and not is_number(value):
        got = f"a schedule that returns {describe(value)}"
        raise wrong(name, "learning_rate", got, "one that returns a number", TypeError)
    return jnp.array(value, dtype)


def rate_used(name: str, before: Any, after: Any) -> Array:
    """Return the rate of the step between two states that hold one learning rate each."""
    old, new = _rate_state(name, before), _rate_state(name, after)
    return jnp.where(new.given == NO_RATE, old.learning_rate, new.learning_rate)


def moving_mean(mean: Any, x: Any, decay: Any) -> Any:
    """Return the exponential moving mean with one more value."""
    return decay * mean + (1 - decay) * x


def total_weight(decay: Any, t: Any) -> Any:
    """Return ``1 - decay^t``, what the weights of t values in a moving mean add up to.

    As ``-expm1(t log decay)``: in float32, 1 - 0.999999 is 1 % off.
    """
    if not isinstance(decay, jax.Array):
        return -jnp.expm1(t * (math.log(decay) if decay else -math.inf))
    high = decay > 0.5
    logarithm = jnp.log1p(jnp.where(high, decay, 1) - 1)
    return jnp.where(high, -jnp.expm1(t * logarithm), 1 - jnp.where(high, 0, decay) ** t)


def mean_hat(m: Any, g: Any, t: Any, decay: Any, *, nesterov: bool = False) -> Any:
    """Return a moving mean without its bias to the zero it starts from.

    With ``nesterov``, what it will be after one more step with the same gradient.
    """
    if nesterov:
        ahead = decay * m / total_weight(decay, t + 1)
        return ahead + (1 - decay) * g / total_weight(decay, t)
    return m / total_weight(decay, t)


def bounded(g: Array) -> Array:
    """Return the gradient with numbers whose squares would overflow brought to the largest kept."""
    limit = 2.0 ** (jnp.finfo(g.dtype).maxexp // 2 - 4)
    return jnp.where(jnp.abs(g) < jnp.inf, jnp.clip(g, -limit, limit), g)


def root(x: Array) -> Array:
    """Return the square root, with a finite slope at 0, where it is 1e-19 (1e-154 in float64)."""
    return jnp.sqrt(x + jnp.finfo(x.dtype).tiny)


def run_update(
    transform: Transform, grads: Any, state: Any, params: Any, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """Call any transform's update with those of the extra arguments that it takes."""
    return transform.update(grads, state, params, **taken(transform.update, extra))


def need_params(name: str, grads: Any, params: Any) -> None:
    """Raise the error of a transform that was called without params, or with others."""
    if params is None:
        raise wrong(name, "params", "None", "the parameters: update(grads, state, params)")
    check_like(name, "grads", grads, params)


def _is_state(x: Any) -> bool:
    return isinstance(x, State)


def only_part(name: str, state: Any, kind: type[Part], leaf: str) -> Part:
    """Return the one part of this kind in a state, of which function ``name`` reads a leaf."""

    def is_kind(x: Any) -> bool:
        return isinstance(x, kind)

    found: list[Part] = [*filter(is_kind, jax.tree.leaves(state, is_leaf=is_kind))]
    if len(found) != 1:
        needed = f"exactly one; read the leaf `{leaf}` of the part that you mean"
        raise wrong(name, "state", f"{len(found)} leaves `{leaf}`", needed)
    return found[0]


def _rate_state(name: str, state: Any) -> State:
    return only_part(name, state, State, "learning_rate")


def learning_rate(state: PyTree[Any]) -> Float[Array, ""]:
    """Return the learning rate of the next step.

    Args:
        state: of an fnn optimizer, however deep within chains and wrappers, fnn's or optax's.

    Returns:
        float[], the state's leaf ``learning_rate``.

    Raises:
        ValueError: the state holds no learning rate, or several that may differ.

    >>> float(fnn.learning_rate(fnn.sgd(0.5).init(jnp.zeros(3))))
    0.5
    """
    return _rate_state("learning_rate", state).learning_rate


def _check_new_rate(rate: Any, shape: tuple[int, ...]) -> None:
    """Raise unless this is one number or, of a batch of states, as many as there are."""
    if not shape or attribute(rate, "shape") in (None, ()):
        check_number("with_learning_rate", "rate", rate)
        return
    needed = f"a number, or real numbers of shape {shape}"
    if rate.shape != shape or not is_real(rate.dtype):
        raise wrong("with_learning_rate", "rate", describe(rate), needed)
    if not isinstance(rate, jax.core.Tracer) and np.isnan(rate).any():
        raise wrong("with_learning_rate", "rate", f"{describe(rate)} with a NaN", needed)


def with_learning_rate(state: PyTree[Any], rate: Number | Float[Array, "..."]) -> PyTree[Any]:
    """Return the state with another learning rate for the next step and, without a schedule, all.

    The leaf keeps its dtype, so that a compiled step takes the new state as it took the old one.

    Args:
        state: as `learning_rate` takes it.
        rate: a number or a scalar array; for a batch of states, as `jax.vmap` returns it, also an
            array of one rate for each.

    Returns:
        The new state.

    Raises:
        ValueError: as `learning_rate`; a rate that is NaN; rates of another shape.
        TypeError: rate is no number.

    >>> opt = fnn.sgd(0.5)
    >>> state = fnn.with_learning_rate(opt.init(jnp.zeros(1)), 0.25)
    >>> opt.update(jnp.ones(1), state)[0].tolist()
    [-0.25]
    """
    old = _rate_state("with_learning_rate", state).learning_rate
    _check_new_rate(rate, old.shape)
    new = jnp.broadcast_to(jnp.array(rate, old.dtype), old.shape)
    return jax.tree.map(
        lambda x: x._replace(learning_rate=new) if _is_state(x) else x, state, is_leaf=_is_state
    )
