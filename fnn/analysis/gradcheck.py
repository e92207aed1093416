"""Gradients against finite differences, entry by entry.

For one entry x of params, with all others fixed, the loss is a function of one number. Its
derivative is ``(L(x + h) - L(x - h)) / 2h`` but for h^2 times a third derivative, or, one-sided,
``(L(x + h) - L(x)) / h`` but for h times a second derivative, and in both but for the rounding of
L, divided by h. Each entry costs two passes of the loss, where reverse mode gives all entries for
the cost of a few: so differences check gradients and do not replace them.

At a kink, as of a ReLU at 0, the slopes to both sides differ however small h is, and the gradient
may be either of them or between: that is a property of the loss, reported as a kink and no error.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from fnn.analysis.curvature import scalar_loss
from fnn.analysis.program import Known, split
from fnn.checks import (
    POSITIVE,
    Range,
    check_flags,
    check_int,
    check_key,
    check_known,
    check_number,
    check_scalar,
    describe,
    wrong,
)
from fnn.dtypes import is_floating
from fnn.placement import replicated
from fnn.static import frozen
from fnn.trees import FloatTree, or_fields, paths

EPS = float(np.finfo(np.float64).eps)
STEPS = {True: EPS ** (1 / 3), False: EPS ** (1 / 2)}  # which balance both errors
H = Range(8 * EPS, high_closed=False)  # so that an eighth of it still changes every x
TOLERANCE = 1e-5
ROUNDINGS = 32  # that values of the loss may be off by, in units of their eps


class Leaf(NamedTuple):
    """What the check found in one leaf of params.

    Attributes:
        path: of the leaf.
        place: index of the entry where the relative error is worst.
        gradient, difference: by `jax.grad` and by finite differences, there.
        absolute: the worst |gradient - difference| of the leaf.
        relative: the worst ``|gradient - difference| / max(|gradient|, |difference|)``; both count
            as at least 1e5 times the rounding of the loss and, two-sided, 1/100 of how far the
            slopes to both sides are apart.
        checked: entries compared.
        kinks: entries where the loss has a kink, left out of the above.
        kink: the index of the first of them, or None.
    """

    path: str
    place: tuple[int, ...]
    gradient: float
    difference: float
    absolute: float
    relative: float
    checked: int
    kinks: int
    kink: tuple[int, ...] | None


class GradientCheck(NamedTuple):
    """Gradients against finite differences; ``print`` shows the table.

    Attributes:
        leaves: a `Leaf` for every leaf of params with an entry, the worst relative error first.
        h: the step, relative to ``max(1, |x|)`` for every entry x.
        two_sided: whether the differences reach to both sides.
    """

    leaves: tuple[Leaf, ...]
    h: float
    two_sided: bool

    @or_fields
    def __str__(self) -> str:
        """Return the table, a line per leaf."""
        how = "(L(x+h) - L(x-h)) / 2h" if self.two_sided else "(L(x+h) - L(x)) / h"
        head = ("leaf", "index", "gradient", "difference", "absolute", "relative", "checked")
        rows = [head, *(_row(leaf) for leaf in self.leaves)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        notes = [
            f"{leaf.path}: {leaf.kinks} at a kink of the loss, the first at {list(leaf.kink)}"
            for leaf in self.leaves
            if leaf.kink is not None
        ]
        title = f"jax.grad against {how} in float64, h = {self.h:.2g} max(1, |x|)"
        return "\n".join([title, *lines, *notes])


def _row(leaf: Leaf) -> tuple[str, ...]:
    numbers = (f"{x:.5g}" for x in (leaf.gradient, leaf.difference))
    errors = (f"{x:.1e}" if leaf.checked else "kink" for x in (leaf.absolute, leaf.relative))
    return leaf.path, str(list(leaf.place)), *numbers, *errors, f"{leaf.checked:,}"


def check_gradients(
    loss: Callable[..., Any],
    params: FloatTree,
    *args: Any,
    h: float | None = None,
    two_sided: bool = True,
    entries: int | None = None,
    key: PRNGKeyArray | None = None,
) -> GradientCheck:
    """Compare the gradient of a loss with finite differences, in float64.

    ``(L(x + h) - L(x - h)) / 2h`` with ``h = eps^(1/3) max(1, |x|)`` for every entry x of params,
    or ``(L(x + h) - L(x)) / h`` with ``h = eps^(1/2) max(1, |x|)``: the steps that balance the
    error of the formula and the rounding of L, whose relative precision is eps = 2.2e-16.

    Floating-point params and args are read as float64, whatever the caller's setting. Pass data as
    args: an array inside of loss keeps its own dtype.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        args: passed to loss; what loss holds itself stays in memory.
        h: another step, relative to ``max(1, |x|)``, at least 8 eps, as a smaller one is lost in x.
        two_sided: whether to use both sides.
        entries: None to check all entries; or how many of a leaf at most, drawn at random.
        key: draws the entries.

    Returns:
        A `GradientCheck`: the worst error and its index for every leaf, the worst leaf first.

    Raises:
        ValueError: loss is no scalar; h out of its range; entries < 1, or given without key.
        TypeError: a leaf of params that is no floating-point array; two_sided is no bool; traced
            values.

    Source: CSC413 notes (2020), checking gradients; P. Gill, W. Murray, M. Wright, Practical
    optimization, section 8.6, for the step.

    >>> def loss(params, x):
    ...     return (fnn.tanh(fnn.dense(x, **params)) ** 2).sum()
    >>> params = fnn.init_dense(jax.random.key(0), 3, 2)
    >>> check = fnn.analysis.check_gradients(loss, params, jnp.ones((4, 3)))
    >>> [leaf.relative < 1e-8 for leaf in check.leaves], check.leaves[0].checked in (2, 6)
    ([True, True], True)
    """
    return _check("check_gradients", loss, params, args, h, two_sided, entries, key)


def assert_gradients(
    loss: Callable[..., Any],
    params: FloatTree,
    *args: Any,
    tolerance: float = TOLERANCE,
    h: float | None = None,
    two_sided: bool = True,
    entries: int | None = None,
    key: PRNGKeyArray | None = None,
) -> None:
    """Raise unless the gradient of a loss agrees with finite differences.

    Args:
        loss, params, args: as in `check_gradients`.
        tolerance: the relative error that is allowed in every entry.
        h, two_sided, entries, key: as in `check_gradients`.

    Returns:
        None.

    Raises:
        AssertionError: an entry's relative error is larger; says the path, the index and both
            numbers of the worst, and shows the whole table.
        ValueError, TypeError: as `check_gradients`.

    Source: as `check_gradients`.

    >>> fnn.analysis.assert_gradients(lambda x: (x**3).sum(), jnp.array([1.0, -2.0]))
    """
    check_number("analysis.assert_gradients", "tolerance", tolerance, POSITIVE)
    check = _check("assert_gradients", loss, params, args, h, two_sided, entries, key)
    wrongs = [leaf for leaf in check.leaves if not leaf.relative <= tolerance]
    if wrongs:
        worst = wrongs[0]
        raise AssertionError(
            f"the gradient of {worst.path}{list(worst.place)} is {worst.gradient:.6g}, by finite "
            f"differences {worst.difference:.6g}: a relative error of {worst.relative:.1e}, over "
            f"{tolerance:g}\n{check}"
        )


def _check(
    name: str,
    loss: Callable[..., Any],
    params: Any,
    args: tuple[Any, ...],
    h: float | None,
    two_sided: bool,
    entries: int | None,
    key: Any,
) -> GradientCheck:
    function = f"analysis.{name}"
    scalar_loss(function, loss, params, *args)
    check_known(function, params=params, args=args, h=h)
    check_flags(function, two_sided=two_sided)
    step = STEPS[two_sided] if h is None else h
    check_number(function, "h", step, H)
    if entries is not None:
        check_int(function, "entries", entries, 1)
        if key is None:
            raise wrong(function, "key", None, "a random key, as entries draws some at random")
        check_key(function, "key", key)
    with jax.enable_x64(True):
        wide, wide_args = jax.tree.map(_double, (params, args))
        samples = _draw(wide, entries, key)
        if not samples:
            raise wrong(function, "params", "no number", "at least one")
        known, arrays = split(wide_args, {})

        def run(h: float) -> Slopes:
            static = function, frozen(loss), known, two_sided
            at = np.concatenate([s.start + s.at for s in samples])
            return Slopes(*map(np.asarray, _slopes(*static, wide, arrays, at, h)))

        slopes = run(step)
        kinks = _kinks(slopes, run, step)
    leaves, start = [], 0
    for sample in samples:
        part = slice(start, start + len(sample.at))
        leaves.append(_leaf(sample, Slopes(*(x[part] for x in slopes)), kinks[part]))
        start = part.stop
    leaves.sort(key=lambda leaf: -leaf.relative)
    return GradientCheck(tuple(leaves), step, two_sided)


def _double(x: Any) -> Any:
    return jnp.asarray(x, jnp.float64) if is_floating(getattr(x, "dtype", None)) else x


class Sample(NamedTuple):
    """The entries of one leaf that are checked.

    Attributes:
        path, shape: of the leaf.
        start: where it starts in the vector of all params.
        at: positions in the leaf as a vector.
    """

    path: str
    shape: tuple[int, ...]
    start: int
    at: Any


def _draw(params: Any, entries: int | None, key: Any) -> list[Sample]:
    """Choose the entries: all of a leaf, or so many at random."""
    samples, start = [], 0
    for i, (path, x) in enumerate(zip(*map(jax.tree.leaves, (paths(params), params)), strict=True)):
        at = np.arange(x.size)
        if entries is not None and entries < x.size:
            draw = jax.random.choice(jax.random.fold_in(key, i), x.size, (entries,), replace=False)
            at = np.sort(draw)
        samples.append(Sample(path or "params", x.shape, start, at))
        start += x.size
    return [sample for sample in samples if len(sample.at)]


class Slopes(NamedTuple):
    """The slopes at every entry that is checked.

    Attributes:
        gradient: by `jax.grad`.
        difference: the finite difference that it is compared with.
        ahead, behind: the differences to either side alone.
        noise: how far rounding of the loss, and of what it makes of x, may put them off.
    """

    gradient: Any
    difference: Any
    ahead: Any
    behind: Any
    noise: Any

    @property
    def error(self) -> Any:
        """The absolute error."""
        return np.abs(self.gradient - self.difference)

    @property
    def relative(self) -> Any:
        """The relative error, as `Leaf` defines it; infinite where a number is not finite."""
        sizes = np.abs(self.gradient), np.abs(self.difference), self.noise / TOLERANCE
        size = np.maximum(functools.reduce(np.maximum, sizes), np.finfo(np.float64).tiny)
        return np.nan_to_num(self.error / size, nan=np.inf)

    @property
    def gap(self) -> Any:
        """How far the slopes to both sides are apart: about h times L'' where L is smooth."""
        return np.abs(self.ahead - self.behind)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _slopes(
    function: str,
    loss: Callable[..., Any],
    known: Known,
    two_sided: bool,
    params: Any,
    arrays: list[Array],
    at: Array,
    h: Array,
) -> tuple[Array, ...]:
    """Compute `Slopes` at these positions in the vector of all params."""
    flat, unravel = ravel_pytree(jax.tree.map(replicated, params))

    def value(flat: Array) -> Array:
        scalar: Array = check_scalar(
            function, known.call(functools.partial(loss, unravel(flat)), arrays)
        )
        if scalar.dtype != jnp.float64:
            needed = "float64 for float64 arguments: differences of fewer digits check nothing"
            raise wrong(function, "loss", describe(scalar), needed, TypeError)
        return scalar

    def around(i: Array) -> tuple[Array, ...]:
        x = flat[i]
        step = h * jnp.maximum(1, jnp.abs(x))
        left, right = x - step, x + step
        return left, x, right, value(flat.at[i].set(left)), value(flat.at[i].set(right))

    here = value(flat)
    left, x, right, low, high = lax.map(around, at)
    ahead, behind = (high - here) / (right - x), (here - low) / (x - left)
    difference = (high - low) / (right - left) if two_sided else ahead
    values = (low, high, here) if two_sided else (high, here)  # low may have no value
    largest = functools.reduce(jnp.maximum, map(jnp.abs, values))
    noise = ROUNDINGS * EPS * largest / (right - x)
    if two_sided:  # the gap is about h L'', of which rounding of what L makes of x is a small part
        noise += TOLERANCE / 100 * jnp.abs(ahead - behind)
    return jax.grad(value)(flat)[at], difference, ahead, behind, noise


def _kinks(slopes: Slopes, run: Callable[[float], Slopes], step: float) -> Any:
    """Tell which disagreements are kinks of the loss: there the gradient is between both sides.

    Where the loss is smooth, an eighth of the step leaves an eighth of the gap between the sides. A
    kink at x leaves it as it is, and one beside x, within the step, takes the error with it.
    """
    suspect = (slopes.relative > TOLERANCE) & (slopes.gap > 4 * slopes.noise)
    if not suspect.any():
        return suspect
    finer = run(step / 8)
    # Both sides at h = 0: curvature moves the slopes by a part that falls as h, and it is no kink.
    sides = [(8 * near - far) / 7 for near, far in zip(finer[2:4], slopes[2:4], strict=True)]
    noise = (8 * finer.noise + slopes.noise) / 7
    below, above = np.minimum(*sides) - noise, np.maximum(*sides) + noise
    suspect &= (slopes.gradient > below) & (slopes.gradient < above)
    at_it = finer.gap > slopes.gap / 4
    beside_it = finer.error <= np.maximum(slopes.error / 256, finer.noise)
    return suspect & (at_it | beside_it)


def _leaf(sample: Sample, slopes: Slopes, kinks: Any) -> Leaf:
    """Take the worst entry of a leaf, kinks apart."""

    def index(i: Any) -> tuple[int, ...]:
        return tuple(map(int, np.unravel_index(sample.at[i], sample.shape)))

    relative, absolute = (np.where(kinks, 0, x) for x in (slopes.relative, slopes.error))
    worst = relative.argmax()
    return Leaf(
        sample.path,
        index(worst),
        float(slopes.gradient[worst]),
        float(slopes.difference[worst]),
        float(absolute.max()),
        float(relative[worst]),
        len(kinks) - int(kinks.sum()),
        int(kinks.sum()),
        index(kinks.argmax()) if kinks.any() else None,
    )
