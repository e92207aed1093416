"""The one comparison helper: a function against its float64 NumPy oracle.

`check` compares value, shape and dtype, under `jax.jit`, under `jax.vmap` and as called, and
compares reverse and forward derivatives with central differences of the oracle along random
directions: a wrong gradient passes with probability zero.

Tolerance is derived, never tuned: a sum of ``length`` terms rounded to the unit roundoff ``eps`` of
a dtype errs by a small multiple of ``eps * sqrt(length)`` of its largest possible size; the
multiple, 8, is the same in every test. Half-precision sums accumulate in float32, so only their
storage rounds: ``length`` counts once there.
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


def tolerance(dtype: Any, length: int = 1) -> float:
    """Relative to the largest entry compared: the bound stated above."""
    terms = 1 if np.dtype(dtype) in HALF else length
    return FACTOR * float(jnp.finfo(dtype).eps) * float(np.sqrt(terms))


def close(
    got: Any, want: Any, *, length: int = 1, scale: float | None = None, slack: float = 0.0
) -> None:
    """Assert that arrays agree within `tolerance` of ``scale`` (by default the largest |want|).

    ``slack`` is the error of ``want`` itself, where it comes from finite differences.
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
    bound = tolerance(got.dtype, length) * (size if scale is None else scale) + slack
    error = np.abs(got64[finite] - want64[finite])
    assert error.max() <= bound, (
        f"error {error.max():.3g} > {bound:.3g} ({got.dtype}, length {length}); "
        f"got {got64[finite].flat[error.argmax()]:.6g}, "
        f"oracle {want64[finite].flat[error.argmax()]:.6g}"
    )


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

    floating = [i for i, a in enumerate(args) if jnp.issubdtype(np.asarray(a).dtype, jnp.floating)]
    wide = [np.asarray(a, np.float64) if i in floating else a for i, a in enumerate(args)]
    xs = [jnp.asarray(a) for a in args]
    want = np.asarray(oracle(*wide, **config))
    got = call(*xs)
    if floating and jnp.issubdtype(got.dtype, jnp.floating):
        assert got.dtype == xs[floating[0]].dtype, f"dtype {got.dtype} from {xs[floating[0]].dtype}"
    close(got, want, length=length)
    close(jax.jit(call)(*xs), want, length=length)
    if batch:
        pairs = [jnp.stack([x, jnp.flip(x, 0) if x.ndim else x]) for x in xs]
        flipped = [np.flip(a, 0) if np.ndim(a) else a for a in wide]
        both = jax.jit(jax.vmap(call))(*pairs)
        close(both[0], want, length=length)
        close(both[1], oracle(*flipped, **config), length=length)
    wrt = tuple(floating) if wrt is None else wrt
    if wrt and want.size:
        _check_gradients(
            call, lambda *a: np.asarray(oracle(*a, **config)), xs, wide, wrt, length, seed
        )


def _check_gradients(
    call: Callable[..., Any],
    oracle: Callable[..., Any],
    xs: list[Any],
    wide: list[Any],
    wrt: tuple[int, ...],
    length: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)

    def vary(*parts: Any) -> Any:
        full = list(xs)
        for i, part in zip(wrt, parts, strict=True):
            full[i] = part
        return call(*full)

    points = [xs[i] for i in wrt]
    out, pullback = jax.vjp(vary, *points)
    weights = rng.standard_normal(out.shape)
    gradients = jax.jit(pullback)(jnp.asarray(weights, out.dtype))
    weights = np.asarray(jnp.asarray(weights, out.dtype), np.float64)
    for position, (i, gradient) in enumerate(zip(wrt, gradients, strict=True)):
        assert gradient.dtype == xs[i].dtype, f"gradient {gradient.dtype} of {xs[i].dtype}"
        assert gradient.shape == xs[i].shape
        direction = np.asarray(jnp.asarray(rng.standard_normal(xs[i].shape), xs[i].dtype))
        step = [np.copy(a) if isinstance(a, np.ndarray) else a for a in wide]
        back = list(step)
        step[i] = wide[i] + STEP * direction.astype(np.float64)
        back[i] = wide[i] - STEP * direction.astype(np.float64)
        slope = (oracle(*step) - oracle(*back)) / (2 * STEP)
        size = np.abs(slope).max() + 1e-3
        zeros = [jnp.zeros_like(p) for p in points]
        zeros[position] = jnp.asarray(direction)
        _, tangent = jax.jvp(vary, tuple(points), tuple(zeros))
        close(tangent, slope, length=length, scale=size, slack=SLACK * size)
        wide_gradient = np.asarray(gradient, np.float64)
        along = float((wide_gradient * direction.astype(np.float64)).sum())
        total = np.abs(wide_gradient * direction.astype(np.float64)).sum() + 1e-3
        bound = tolerance(out.dtype, length) * total + SLACK * size * np.abs(weights).sum()
        assert abs(along - float((slope * weights).sum())) <= bound, (
            f"gradient of argument {i} along a random direction: {along:.8g}, "
            f"oracle {(slope * weights).sum():.8g}, bound {bound:.3g}"
        )
