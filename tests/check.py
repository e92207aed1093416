"""The one comparison helper: a function against its float64 NumPy oracle.

`check` compares value, shape and dtype, under `jax.jit`, under `jax.vmap` and as called, and
compares reverse and forward derivatives with central differences of the oracle along random
directions: a wrong gradient passes with probability zero.

Tolerance is derived, never tuned: a sum of ``length`` terms rounded to the unit roundoff ``eps`` of
a dtype errs by a small multiple of ``eps * sqrt(length)`` of its largest possible size; the
multiple, 8, is the same in every test. Half precision is computed in float32 and rounded, by half
of its own ``eps``: once, where no test says why more often.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

FACTOR = 8.0
HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
STEP = 1e-5  # of the central differences of the oracle
SLACK = 1e-8  # their relative error in float64: STEP**2 of curvature, 1e-16 / STEP of rounding


def precision(dtype: Any) -> float:
    """The unit roundoff of what a dtype is computed in."""
    return float(jnp.finfo(jnp.float32 if np.dtype(dtype) in HALF else dtype).eps)


def tolerance(dtype: Any, length: int = 1, roundings: int = 1) -> float:
    """Relative to the largest entry compared: the bound stated above."""
    stored = float(jnp.finfo(dtype).eps) / 2 if np.dtype(dtype) in HALF else 0.0
    return roundings * stored + FACTOR * precision(dtype) * float(np.sqrt(length))


def close(
    got: Any,
    want: Any,
    *,
    length: int = 1,
    scale: float | None = None,
    slack: float = 0.0,
    roundings: int = 1,
) -> None:
    """Assert that arrays agree within `tolerance` of ``scale`` (by default the largest |want|).

    ``slack`` is the error of ``want`` itself, where it comes from finite differences; ``roundings``
    is how often in a row half precision is rounded.
    """
    got, want64 = np.asarray(got), np.asarray(want, np.float64)
    assert got.shape == want64.shape, f"shape {got.shape}, oracle {want64.shape}"
    if not jnp.issubdtype(got.dtype, jnp.floating):
        np.testing.assert_array_equal(got, want64)
        return
    got64 = got.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(got64), np.isnan(want64), "NaN in other places")
    infinite = np.isinf(want64)
    np.testing.assert_array_equal(got64[infinite], want64[infinite], "other infinities")
    finite = np.isfinite(want64)
    if not finite.any():
        return
    size = max(np.abs(want64[finite]).max(), float(jnp.finfo(got.dtype).tiny))
    bound = tolerance(got.dtype, length, roundings) * (size if scale is None else scale) + slack
    error = np.abs(got64[finite] - want64[finite])
    assert error.max() <= bound, (
        f"error {error.max():.3g} > {bound:.3g} ({got.dtype}, length {length}); "
        f"got {got64[finite].flat[error.argmax()]:.6g}, "
        f"oracle {want64[finite].flat[error.argmax()]:.6g}"
    )


def vjp(fn: Callable[..., Any], *args: Any) -> tuple[Any, Callable[..., Any]]:
    """`jax.vjp` as two programs: called as it is, it compiles every operation by itself."""
    value, pull = jax.jit(lambda *xs: jax.vjp(fn, *xs))(*args)
    return value, jax.jit(pull)


def check(
    fn: Callable[..., Any],
    oracle: Callable[..., Any],
    *args: Any,
    length: int = 1,
    wrt: tuple[int, ...] | None = None,
    batch: bool = True,
    seed: int = 0,
    **config: Any,
) -> None:
    """Assert that ``fn(*args, **config)`` is ``oracle(*args, **config)`` with all its derivatives.

    Args:
        fn: the function under test, of arrays, returning one array.
        oracle: the same in plain float64 NumPy.
        args: NumPy arrays of the dtype under test.
        length: terms in the longest sum behind one output entry or one gradient entry.
        wrt: positions of the arguments to differentiate; default: all floating ones; () for none.
        batch: whether to check `jax.vmap` over all arguments.
        config: keyword arguments for both.
    """

    def call(*xs: Any) -> Any:
        return fn(*xs, **config)

    def real(*xs: Any) -> Any:
        return np.asarray(oracle(*xs, **config))

    placed = jax.device_put(args)
    args = tuple(map(np.asarray, placed))
    floating = [i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]
    wide = [np.asarray(a, np.float64) if i in floating else a for i, a in enumerate(args)]
    got, want = call(*placed), real(*wide)
    if floating and jnp.issubdtype(got.dtype, jnp.floating):
        assert got.dtype == args[floating[0]].dtype, f"dtype {got.dtype} from {args[0].dtype}"
    close(got, want, length=length)
    places = floating if wrt is None else list(wrt)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(got.shape).astype(got.dtype)
    directions = [rng.standard_normal(args[i].shape).astype(args[i].dtype) for i in places]

    @jax.jit
    def transformed(xs: Any, pairs: Any, weights: Any, directions: Any) -> Any:
        both = jax.vmap(call)(*pairs) if batch else None
        if not directions or not want.size:
            return call(*xs), both, [], []

        def vary(*parts: Any) -> Any:
            full = dict(enumerate(xs)) | dict(zip(places, parts, strict=True))
            return call(*full.values())

        points = tuple(xs[i] for i in places)
        value, pullback = jax.vjp(vary, *points)
        tangents = jax.vmap(lambda *d: jax.jvp(vary, points, d)[1])(*directions)
        return value, both, pullback(weights), tangents

    pairs = [np.stack([a, np.flip(a, 0) if a.ndim else a]) for a in args]
    rows = range(len(places))
    alone = [
        np.stack([d if i == j else np.zeros_like(d) for j in rows])
        for i, d in enumerate(directions)
    ]
    value, both, gradients, tangents = transformed(args, pairs, weights, alone)
    close(value, want, length=length)
    if batch:
        same, flipped = np.asarray(both)
        close(same, want, length=length)
        close(flipped, real(*[np.flip(a, 0) if a.ndim else a for a in wide]), length=length)
    for i, gradient, tangent, direction in zip(
        places, gradients, np.asarray(tangents), directions, strict=False
    ):
        assert gradient.dtype == args[i].dtype, f"gradient {gradient.dtype} of {args[i].dtype}"
        assert gradient.shape == args[i].shape
        _check_slope(real, wide, i, direction, weights, gradient, tangent, length)


def _check_slope(
    oracle: Callable[..., Any],
    wide: list[Any],
    place: int,
    direction: Any,
    weights: Any,
    gradient: Any,
    tangent: Any,
    length: int,
) -> None:
    """Compare both modes with the oracle's central difference along one argument's direction."""
    direction, weights = direction.astype(np.float64), weights.astype(np.float64)

    def at(step: float) -> Any:
        return oracle(*wide[:place], wide[place] + step * direction, *wide[place + 1 :])

    slope = (at(STEP) - at(-STEP)) / (2 * STEP)
    size = np.abs(slope).max() + 1e-3
    close(tangent, slope, length=length, scale=size, slack=SLACK * size)
    parts = np.asarray(gradient, np.float64) * direction
    bound = tolerance(tangent.dtype, length) * (np.abs(parts).sum() + 1e-3)
    bound += SLACK * size * np.abs(weights).sum()
    assert abs(parts.sum() - (slope * weights).sum()) <= bound, (
        f"gradient of argument {place} along a random direction: {parts.sum():.8g}, "
        f"oracle {(slope * weights).sum():.8g}, bound {bound:.3g}"
    )
