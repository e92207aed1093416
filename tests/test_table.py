"""The table of public functions crossed with the properties that all of them have.

Each property compiles one program per row: all of its calls are parts of it.
"""

import doctest
import functools
import inspect
import re
import types
import typing
import zlib
from pathlib import Path
from typing import Any

import beartype
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax.dtypes import float0

import fnn
from fnn.functions import KEYS
from tests import docs
from tests.check import close, tolerance
from tests.table import CONV, EXEMPT, KEYED, POOLING, RECURRENT, ROWS, Row


def over(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


every = over(ROWS)
HALVES = [jnp.bfloat16, jnp.float16]
MANY = 1024  # examples for each in the table: sums in half precision end at 256 or 2048 ones


def arguments(row: Row, dtype: Any = None) -> list[Any]:
    args = row.args(np.random.default_rng(zlib.crc32(row.name.encode())))
    return [jax.device_put(np.asarray(a, dtype) if dtype and is_float(a) else a) for a in args]


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.floating))


def call(row: Row, args: Any, **config: Any) -> list[Any]:
    """The arrays that a call returns."""
    return jax.tree.leaves(row.fn(*args, **{**row.config, **config}))


def equal(got: list[Any], want: list[Any]) -> None:
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


def parameters(row: Row) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(row.fn).parameters)


def kinds(parameter: inspect.Parameter) -> set[Any]:
    """The types of an annotation, None aside."""
    annotation = parameter.annotation
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return {annotation}
    return set(typing.get_args(annotation)) - {type(None)}


def is_real(parameter: inspect.Parameter) -> bool:
    """Whether only floats are asked for."""
    arrays = [k.dtypes for k in kinds(parameter) if hasattr(k, "array_type")]
    return bool(arrays) and all(isinstance(d, tuple) and "int32" not in d for d in arrays)


def numbers(row: Row) -> dict[str, float]:
    """The numbers among the arguments that may be traced, as the row or the default has them."""
    free = [p for p in parameters(row).values() if p.name not in getattr(row.fn, "static", ())]
    named = {p.name: p for p in free if kinds(p) <= {int, float}}
    values = {name: row.config.get(name, p.default) for name, p in named.items()}
    return {name: v for name, v in values.items() if float in kinds(named[name]) and v is not None}


PUBLIC = {  # but for what JAX documents
    name: thing for name, thing in docs.public() if thing.__module__.startswith("fnn.")
}
GROUPS = [name for name in fnn.__all__ if inspect.ismodule(getattr(fnn, name))]
NUMBERED = [row for row in ROWS if numbers(row)]


def test_coverage() -> None:
    public = {name for name, thing in PUBLIC.items() if inspect.isfunction(thing)}
    named = {row.name for row in ROWS} | set(EXEMPT)
    assert not public - named, f"without a row or a reason: {sorted(public - named)}"
    assert not set(EXEMPT) - public, "a reason for a name that is not public"
    assert not set(EXEMPT) & {row.name for row in ROWS}, "both a row and a reason"
    for reason in set(EXEMPT.values()):
        assert Path(__file__).parent.joinpath(reason.rsplit(": ")[-1]).exists(), reason


# Transformations.


@every
def test_it_compiles_once_and_vmap_is_a_loop(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(row)
    flipped = [jax.device_put(np.asarray(a)[::-1]) if a.ndim and is_float(a) else a for a in args]
    pairs = [np.stack(pair) for pair in zip(args, flipped, strict=True)]
    # In a setting of its own, for which no test before has compiled the function.
    with jax.default_matmul_precision("highest"), jax.log_compiles():
        wanted = [call(row, alone) for alone in (args, flipped)]
    program = "_total" if "penalty" in row.name else row.name  # whose leaves are chosen in Python
    assert re.findall(r"Compiling (?:jit\()?(\w+)", caplog.text) == [program]

    @jax.jit
    def inside(args: Any, pairs: Any) -> Any:
        return call(row, args), jax.vmap(lambda *a: call(row, a))(*pairs)

    one, both = inside(args, pairs)
    for got, want in zip(one, wanted[0], strict=True):
        close(got, want, length=8)
    for place, alone in enumerate(wanted):
        for got, want in zip(both, alone, strict=True):
            close(np.asarray(got)[place], want, length=64)


@over([row for row in ROWS if row.smooth])
def test_a_gradient_without_jit_compiles_once(row: Row, caplog: pytest.LogCaptureFixture) -> None:
    args = arguments(row)
    places = tuple(i for i, a in enumerate(args) if is_float(a))
    slopes = jax.grad(lambda *a: sum(y.sum() for y in call(row, a) if is_float(y)), places)
    slopes(*args)
    with jax.log_compiles():
        slopes(*args)
    assert "Compiling" not in caplog.text


@over([row for row in ROWS if row.smooth])
def test_derivatives(row: Row) -> None:
    """Forward, reverse and second derivatives against differences along random directions.

    The last one also where `jax.checkpoint` computes the layer again.
    """
    with jax.enable_x64(True):
        args, rng = arguments(row, jnp.float64), np.random.default_rng(0)
        places = [i for i, a in enumerate(args) if is_float(a)]
        point = [args[i] for i in places]
        direction = [jax.device_put(rng.standard_normal(a.shape)) for a in point]

        def outputs(point: Any) -> Any:
            full = list(args)
            for i, part in zip(places, point, strict=True):
                full[i] = part
            return [y for y in call(row, full) if is_float(y)]

        weights = [
            jax.device_put(rng.standard_normal(y.shape)) for y in jax.eval_shape(outputs, point)
        ]

        def dot(xs: Any, ys: Any) -> Any:
            return sum((x * y).sum() for x, y in zip(xs, ys, strict=True))

        def total(point: Any) -> Any:
            return dot(weights, outputs(point))

        @jax.jit
        def everything(point: Any, steps: Any) -> Any:
            along = lambda t: [x + t * u for x, u in zip(point, direction, strict=True)]
            values, slopes = jax.vmap(lambda t: jax.value_and_grad(total)(along(t)))(steps)
            _, forward = jax.jvp(total, (point,), (direction,))
            if row.smooth == 1:
                return values, slopes, forward, [], [], []
            _, twice = jax.jvp(jax.grad(total), (point,), (direction,))
            reverse, again = (
                jax.grad(lambda x, f=f: dot(jax.grad(f)(x), direction))(point)
                for f in (total, jax.checkpoint(total))
            )
            return values, slopes, forward, twice, reverse, again

        step = 1e-4
        results = everything(point, np.array([-step, 0, step]))
        values, slopes, forward, twice, reverse, again = jax.tree.map(np.asarray, results)
        direction = list(map(np.asarray, direction))
        size = sum(np.abs(s[1] * u).sum() for s, u in zip(slopes, direction, strict=True))
        near = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6 * (1 + size))
        near((values[2] - values[0]) / (2 * step), forward)
        near(dot([s[1] for s in slopes], direction), forward, atol=1e-12 * (1 + size))
        both = row.smooth == 2
        for slope, mixed, *backs in zip(slopes, twice, reverse, again, strict=both):
            top = 1 + np.abs(mixed).max()
            near((slope[2] - slope[0]) / (2 * step), mixed, atol=1e-5 * top)
            near(backs, [mixed, mixed], atol=1e-12 * top)


# Precision.


@over([row for row in ROWS if row.half])
def test_half_precision(row: Row) -> None:
    """Values of the input's dtype, from float32; gradients of parameters that are float32 sums."""

    def of(args: Any, weights: Any = None) -> Any:
        """Values, the outputs that are positive unless they are given, slopes of their sum."""

        def total(parameters: Any, data: Any) -> Any:
            values = call(row, [*data, *parameters])
            chosen = weights or [(y > 0).astype(y.dtype) for y in values]
            terms = [jnp.sum(w * y.astype(w.dtype)) for w, y in zip(chosen, values, strict=True)]
            return sum(terms), (values, chosen)

        slope = jax.grad(total, has_aux=True, allow_int=True)
        slopes, (values, chosen) = slope(args[row.data :], args[: row.data])
        return values, chosen, slopes

    @jax.jit
    def results(single: Any, *halves: Any) -> Any:
        wide, positive, wanted = of(single)
        return wide, wanted, [of(half, positive)[::2] for half in halves]

    args = list(map(np.asarray, arguments(row, jnp.bfloat16)))  # numbers that float16 has as well
    shared = len(args) > row.data
    many = [tile(a) if shared and i < row.data else a for i, a in enumerate(args)]
    # A convolution adds its bias to the sum as rounded. A recurrence rounds its state at every
    # step, and the next ones amplify that.
    roundings = 2 if row in CONV else 16 if row in RECURRENT else 1
    wide, wanted, halves = results(*[cast(many, dtype) for dtype in (jnp.float32, *HALVES)])
    for dtype, (values, slopes) in zip(HALVES, halves, strict=True):
        for got, want in zip(values, wide, strict=True):
            assert got.dtype == (dtype if is_float(want) else want.dtype)
            close(got, want, length=4, roundings=roundings)
            if roundings == 1 and is_float(got):  # that holds for every entry
                atol = tolerance(np.float32, 4) * np.abs(want).max() + float(jnp.finfo(dtype).tiny)
                np.testing.assert_allclose(*np.float64((got, want)), tolerance(dtype), atol)
        for got, want in zip(slopes, wanted, strict=True):
            assert got.dtype == dtype
            close(got, want, length=4, roundings=roundings)


def tile(x: Any) -> Any:
    return np.tile(x, (MANY, *[1] * (x.ndim - 1)))


def cast(args: Any, dtype: Any) -> list[Any]:
    return [a.astype(dtype) if is_float(a) else a for a in args]


@every
def test_x64_keeps_dtypes(row: Row) -> None:
    with jax.enable_x64(True):
        both = [arguments(row, dtype) for dtype in (jnp.float32, jnp.float64)]
        singles, doubles = jax.jit(lambda both: [call(row, args) for args in both])(both)
        for single, double in zip(singles, doubles, strict=True):
            if is_float(double):
                assert (single.dtype, double.dtype) == (jnp.float32, jnp.float64)
                close(single, np.asarray(double), length=64)


@every
def test_no_result_is_weakly_typed(row: Row) -> None:
    weak = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=True) if is_float(a) else a
        for a in arguments(row)
    ]
    found = jax.eval_shape(lambda args: call(row, args), weak)
    assert not any(x.weak_type for x in jax.tree.leaves(found))


@over([row for row in ROWS if any(map(is_real, parameters(row).values()))])
def test_integers_and_bools_are_read_in_the_default_float_dtype(row: Row) -> None:
    args, named = arguments(row), list(parameters(row).values())
    real = [is_float(a) and is_real(p) for a, p in zip(args, named, strict=False)]
    assert any(real)

    def of(dtype: Any, args: Any) -> list[Any]:
        return [np.asarray(a, dtype) if r else a for a, r in zip(args, real, strict=True)]

    for kind in (np.int32, np.bool_):
        whole = of(kind, [np.round(2 * a) if is_float(a) else a for a in map(np.asarray, args)])
        equal(call(row, whole), call(row, of(np.float32, whole)))
        with jax.enable_x64(True):
            wide = [np.asarray(a, float) if is_float(a) else a for a in whole]
            shapes = [jax.eval_shape(lambda a=a: call(row, a)) for a in (wide, of(float, wide))]
            assert shapes[0] == shapes[1]


# Arguments.


@over(NUMBERED)
def test_a_numpy_number_is_a_number(row: Row) -> None:
    args = arguments(row)
    for name, value in numbers(row).items():
        for kind in (np.float64, np.float32, np.float16, np.array):
            number = kind(value)
            equal(call(row, args, **{name: number}), call(row, args, **{name: float(number)}))


@over(NUMBERED)
def test_a_number_may_be_traced_and_never_changes_a_dtype(row: Row) -> None:
    args, values = arguments(row), numbers(row)
    with jax.enable_x64(True):  # where numbers may be the widest
        half = arguments(row, jnp.bfloat16 if row.half else jnp.float32)
        strong = {name: jnp.float64(value) for name, value in values.items()}
        plain = jax.eval_shape(lambda: call(row, half, **values))
        assert jax.eval_shape(lambda numbers: call(row, half, **numbers), strong) == plain
    other = {name: value / 2 if value else 0.25 for name, value in values.items()}
    ranges = getattr(row.fn, "ranges", None) or {}
    least = {name: 0.0 if 0 in ranges.get(name, ()) else v for name, v in values.items()}
    each = values, other, least
    stacked = {name: np.array([some[name] for some in each], np.float32) for name in values}
    found = jax.jit(jax.vmap(lambda numbers: call(row, args, **numbers)))(stacked)
    for place, known in enumerate(each):
        for got, want in zip(found, call(row, args, **known), strict=True):
            close(np.asarray(got)[place], want, length=8)


@over([row for row in ROWS if any(isinstance(v, tuple) for v in row.config.values())])
def test_a_list_does_where_a_tuple_does(row: Row) -> None:
    lists = {k: listed(v) for k, v in row.config.items()}
    args = arguments(row)
    equal(call(row, args, **lists), call(row, args))


def listed(value: Any) -> Any:
    return [listed(v) for v in value] if isinstance(value, tuple) else value


@every
def test_a_list_is_no_array(row: Row) -> None:
    names, args = list(parameters(row)), arguments(row)
    for place, name in zip(range(len(args)), names, strict=False):
        wrong = [a.tolist() if i == place else a for i, a in enumerate(args)]
        with pytest.raises(TypeError, match=rf"^fnn\.{row.name}: {name}.*: got (list|float|int) "):
            row.fn(*wrong, **row.config)


@every
def test_complex_numbers_are_refused(row: Row) -> None:
    x, *rest = arguments(row)
    if row.name != "flatten":  # which only reshapes
        with pytest.raises(TypeError, match=rf"^fnn\.{row.name}: \w+.*: got complex64"):
            row.fn(jax.device_put(np.zeros(x.shape, np.complex64)), *rest, **row.config)


@every
def test_axes_of_size_zero(row: Row) -> None:
    """Nothing turns to NaN; a window, and the channels of a convolution, may be refused."""
    args = arguments(row)
    windowed = row in (*CONV, *POOLING)
    emptied = [e for e in emptyings(row, args) if not (windowed and refused(row, e))]
    first = axes(next(iter(parameters(row).values())), args[0])[0]
    assert first in row.needs or any(e[0].shape[0] == 0 for e in emptied), f"refused: {first} = 0"
    none = [np.zeros((0, *a.shape), a.dtype) for a in args]
    outputs = jax.eval_shape(lambda: call(row, args))
    smooth = any(jnp.issubdtype(y.dtype, jnp.floating) for y in outputs)

    def total(args: Any) -> Any:
        values = call(row, args)
        return sum(jnp.sum(y) for y in values if is_float(y)), values

    slope = jax.grad(total, has_aux=True, allow_int=True) if smooth else lambda e: ((), total(e)[1])

    @jax.jit
    def results(emptied: Any, none: Any) -> Any:
        return [slope(e) for e in emptied], jax.vmap(lambda *a: call(row, a))(*none)

    found, mapped = results(emptied, none)
    slopes, values = [s for s, _ in found], [v for _, v in found]
    assert not any(np.isnan(a).any() for a in jax.tree.leaves([values, mapped]) if is_float(a))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(slopes) if a.dtype != float0)
    for got, want in zip(mapped, outputs, strict=True):
        assert (got.shape, got.dtype) == ((0, *want.shape), want.dtype)


def test_no_feature_at_all() -> None:
    """Where a parameter has the axis of size 0 too, which no annotation says."""
    for fn, *shapes in (
        (fnn.dense, (2, 3), (3, 0), (0,)),
        (functools.partial(fnn.embed, jnp.zeros((2, 2), int)), (3, 0)),
        (fnn.layer_norm, (2, 0), (0,), (0,)),
        (fnn.rms_norm, (2, 0), (0,)),
        (fnn.prelu, (2, 0), (0,)),
    ):
        args = list(map(jnp.ones, shapes))
        assert fn(*args).shape[-1] == 0
        slopes = jax.grad(lambda *a, fn=fn: fn(*a).sum(), tuple(range(len(args))))(*args)
        assert [s.shape for s in slopes] == shapes
        assert not any(map(np.any, slopes))


def emptyings(row: Row, args: list[Any]) -> list[list[Any]]:
    """The arguments with one axis of the first of size 0, and the axes of the same name."""
    names = [axes(p, a) for p, a in zip(parameters(row).values(), args, strict=False)]
    return [
        [
            np.zeros([0 if n == name else m for n, m in zip(own, a.shape, strict=True)], a.dtype)
            for own, a in zip(names, args, strict=True)
        ]
        for name in names[0]
        if name not in row.needs
    ]


def axes(parameter: inspect.Parameter, x: Any) -> list[str]:
    """A name for each axis of an argument, from its annotation."""
    texts = [k.dim_str for k in kinds(parameter) if hasattr(k, "dim_str") and isinstance(x, k)]
    for words in (t.split() for t in texts):
        many = [i for i, w in enumerate(words) if w.startswith("*") or w == "..."]
        spare = x.ndim - len(words) + len(many)
        if many:
            place = many[0]
            words[place : place + 1] = [f"{words[place]}{i}" for i in range(spare)]
        if len(words) == x.ndim:
            return words
    return [f"{parameter.name}{i}" for i in range(x.ndim)]


def refused(row: Row, args: list[Any]) -> bool:
    message = ""
    try:
        jax.eval_shape(lambda: call(row, args))
    except ValueError as error:
        message = str(error)
    assert not message or re.match(rf"fnn\.{row.name}: \w+: got", message), message
    return bool(message)


# Modes of JAX.


@every
def test_without_jit_and_with_nans_raising(row: Row) -> None:
    """Every operation runs by itself, and none makes a NaN on the way."""
    args = arguments(row)
    want = call(row, args)
    with jax.disable_jit(), jax.debug_nans(True):
        got = call(row, args)
        of_numpy = call(row, list(map(np.asarray, args)))
    for a, b, c in zip(got, want, of_numpy, strict=True):
        close(a, b, length=8)
        np.testing.assert_array_equal(c, a)


@pytest.mark.parametrize("name", KEYED)
def test_keys_of_another_generator(name: str) -> None:
    draw = functools.partial(PUBLIC[name], **KEYED[name])
    keys = [jax.random.key(seed, impl="rbg") for seed in (0, 0, 1)]
    first, again, other = (list(map(np.asarray, jax.tree.leaves(draw(key=key)))) for key in keys)
    equal(first, again)
    if name not in EXEMPT or "sizes" in EXEMPT[name]:
        assert any((a != b).any() for a, b in zip(first, other, strict=True))
    with pytest.raises(TypeError, match=rf"^fnn\.{name}: key: got int 0; needed one random key"):
        draw(key=0)


def test_all_that_take_a_key_are_tested_with_another() -> None:
    keyed = {
        name
        for name, thing in PUBLIC.items()
        if inspect.isfunction(thing)
        and any(kinds(p) & KEYS for p in inspect.signature(thing).parameters.values())
    }
    assert keyed == set(KEYED)


# Documentation.


@every
def test_annotations_tell_the_truth(row: Row) -> None:
    checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)(inspect.unwrap(row.fn))
    jax.eval_shape(lambda *args: checked(*args, **row.config), *arguments(row))


def explained(thing: Any) -> set[str]:
    """The arguments that a docstring lists."""
    found = re.search(r"^Args:\n((?: .*\n|\n)*)", inspect.getdoc(thing) or "", re.M)
    listed = re.findall(r"^    ([\w, ]+):", found[1] if found else "", re.M)
    return {name for names in listed for name in names.split(", ")}


SILENT = {"paths", "data.digits", "keep_memory", "sharding.gather"}  # they refuse nothing


@pytest.mark.parametrize("name", [*PUBLIC, *GROUPS])
def test_documented(name: str) -> None:
    thing = PUBLIC.get(name) or getattr(fnn, name)
    text = inspect.getdoc(thing) or ""
    assert text.split("\n")[0].endswith("."), f"{name}: first line is no sentence"
    if inspect.isfunction(thing):
        assert doctest.DocTestParser().get_examples(text), f"{name}: no doctest"
        assert re.search(r"^Returns:$", text, re.M) or "Return" in text.split("\n")[0], (
            f"{name}: says not what it returns"
        )
        assert name in SILENT or re.search(r"\bRaises:|\berrors\b", text), (
            f"{name}: says not what it raises"
        )
        headings = re.findall(r"^( *)(Args|Returns|Raises|Source|>>>)", text, re.M)
        assert not any(indent for indent, _ in headings), f"{name}: a heading is indented"
        arguments = set(inspect.signature(thing).parameters)
        whose = [thing, *(PUBLIC[n] for n in re.findall(r"`(?:fnn\.)?(\w+)`", text) if n in PUBLIC)]
        assert any(arguments <= explained(one) for one in whose), f"{name}: an argument is missing"
