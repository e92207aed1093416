"""The table of public functions crossed with the properties that all of them have."""

import doctest
import inspect
import zlib
from typing import Any

import beartype
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.test_util import check_grads

import fnn
from tests.check import close
from tests.table import EXEMPT, ROWS, Row


def over(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


every = over(ROWS)
HALVES = [jnp.bfloat16, jnp.float16]


def arguments(row: Row, dtype: Any = None) -> list[Any]:
    args = row.args(np.random.default_rng(zlib.crc32(row.name.encode())))
    return [jnp.asarray(a, dtype) if dtype and is_float(a) else jnp.asarray(a) for a in args]


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating))


def leaves(row: Row, args: list[Any]) -> list[Any]:
    return jax.tree.leaves(row.fn(*args, **row.config))


def test_coverage() -> None:
    public = {
        n for n in fnn.__all__ if callable(getattr(fnn, n)) and not inspect.isclass(getattr(fnn, n))
    }
    named = {row.name for row in ROWS} | set(EXEMPT)
    assert not public - named, f"without a row or a reason: {sorted(public - named)}"
    assert not set(EXEMPT) - set(fnn.__all__), "a reason for a name that is not public"
    assert not set(EXEMPT) & {row.name for row in ROWS}, "both a row and a reason"


@every
def test_jit_traces_once_and_agrees(row: Row) -> None:
    traces = []

    @jax.jit
    def call(*args: Any) -> Any:
        traces.append(1)
        return row.fn(*args, **row.config)

    args = arguments(row)
    want = leaves(row, args)
    for got, expected in zip(jax.tree.leaves(call(*args)), want, strict=True):
        close(got, expected, length=8)
    call(*[a + 0 if is_float(a) else a for a in args])
    assert len(traces) == 1


@every
def test_vmap_is_a_loop(row: Row) -> None:
    args = arguments(row)
    pairs = [jnp.stack([a, a[::-1] if a.ndim and is_float(a) else a]) for a in args]
    both = jax.tree.leaves(jax.vmap(lambda *a: row.fn(*a, **row.config))(*pairs))
    for place in range(2):
        single = leaves(row, [p[place] for p in pairs])
        for got, want in zip(both, single, strict=True):
            close(got[place], want, length=64)


@over([row for row in ROWS if row.smooth])
def test_derivatives(row: Row) -> None:
    with jax.enable_x64(True):
        args = arguments(row, jnp.float64)
        places = [i for i, a in enumerate(args) if is_float(a)]

        def vary(*parts: Any) -> Any:
            full = list(args)
            for i, part in zip(places, parts, strict=True):
                full[i] = part
            return [y for y in jax.tree.leaves(row.fn(*full, **row.config)) if is_float(y)]

        check_grads(vary, [args[i] for i in places], order=row.smooth, modes=["fwd", "rev"])


@over([row for row in ROWS if row.half])
@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.__name__)
def test_half_precision(row: Row, dtype: Any) -> None:
    args = arguments(row, dtype)
    wide = [a.astype(jnp.float32) if is_float(a) else a for a in args]
    for got, want in zip(leaves(row, args), leaves(row, wide), strict=True):
        assert got.dtype == (dtype if is_float(want) else want.dtype)
        close(got, want, length=4)


@every
def test_x64_keeps_dtypes(row: Row) -> None:
    with jax.enable_x64(True):
        single, double = (
            leaves(row, arguments(row, jnp.float32)),
            leaves(row, arguments(row, jnp.float64)),
        )
        for s, d in zip(single, double, strict=True):
            if is_float(d):
                assert (s.dtype, d.dtype) == (jnp.float32, jnp.float64)
                close(s, np.asarray(d), length=64)


@every
def test_annotations_tell_the_truth(row: Row) -> None:
    plain = inspect.unwrap(row.fn)
    jaxtyping.jaxtyped(typechecker=beartype.beartype)(plain)(*arguments(row), **row.config)


@pytest.mark.parametrize("name", fnn.__all__)
def test_documented(name: str) -> None:
    thing = getattr(fnn, name)
    if getattr(thing, "__module__", "").startswith("jax."):
        return  # re-exported: documented there
    text = inspect.getdoc(thing) or ""
    assert text.split("\n")[0].endswith("."), f"{name}: first line is no sentence"
    if callable(thing) and not inspect.isclass(thing):
        assert doctest.DocTestParser().get_examples(text), f"{name}: no doctest"
        assert "Returns" in text or "Return" in text.split("\n")[0], (
            f"{name}: says not what it returns"
        )
