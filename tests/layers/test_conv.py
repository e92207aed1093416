"""Convolution: the laws that every algorithm keeps, its derivatives, its transpose.

`test_conv_systems.py` has the numbers of the courses, and `test_conv_fuzz.py` compares every
algorithm with the oracle over random forms.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import check, close
from tests.oracles import conv as oracle
from tests.recorded.record_torch_conv import CASES, FILE, arrays

OTHERS = ("conv_matrix", "conv_transpose")
ALGORITHMS = [
    getattr(fnn, name)
    for name in fnn.__all__
    if name == "conv" or (name.startswith("conv_") and name not in OTHERS)
]
every = pytest.mark.parametrize("fn", ALGORITHMS, ids=lambda fn: fn.__name__)
# A form that every algorithm takes.
X, W = (2, 6, 7, 3), (3, 3, 3, 4)


def normal(*shapes: tuple[int, ...], seed: int = 0, dtype: Any = np.float32) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(s).astype(dtype) for s in shapes]


def against_the_oracle(fn: Any, x: Any, w: Any, length: int, **config: Any) -> None:
    """Assert that value and gradients of a convolution are the oracle's."""
    y, pull = jax.vjp(lambda x, w: fn(x, w, **config), x, w)
    (g,) = normal(y.shape, seed=1, dtype=y.dtype)
    wide = [np.asarray(t, np.float64) for t in (x, w, g)]
    wants = [oracle.conv(*wide[:2], **config), *oracle.conv_gradients(*wide, **config)]
    for got, want in zip([y, *pull(g)], wants, strict=True):
        close(got, want, length=length)


# Laws, for every algorithm.


@every
def test_A8_B16_D6_equivariance(fn: Any) -> None:
    """The shift of the input shifts the output: on a torus, and with zeros off the border."""
    x, w = normal((1, 8, 9, 3), W)
    y = fn(x, w, padding_mode="circular")
    shifted = fn(np.roll(x, (2, -3), (1, 2)), w, padding_mode="circular")
    close(shifted, np.roll(y, (2, -3), (1, 2)), length=27)
    inner = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
    moved = fn(np.roll(inner, (1, -2), (1, 2)), w)
    close(moved, np.roll(fn(inner, w), (1, -2), (1, 2)), length=27)


@every
def test_linearity(fn: Any) -> None:
    x, y, w, v = normal(X, X, W, W)
    of = lambda x, w: np.asarray(fn(x, w))
    close(of(2 * x - y, w), 2 * of(x, w) - of(y, w), length=108)
    close(of(x, 2 * w - v), 2 * of(x, w) - of(x, v), length=108)


@functools.partial(jax.jit, static_argnums=0)
def first(fn: Any, x: Any, w: Any, b: Any, g: Any) -> list[Any]:
    y, pull = jax.vjp(fn, x, w, b)
    return [y, *pull(g)]


def another(fn: Any) -> Any:
    """An algorithm to compare with, that is not the same."""
    return fnn.conv_taps if fn is fnn.conv_lax else fnn.conv_lax


@every
def test_agreement(fn: Any) -> None:
    """Value and gradients are those of another algorithm."""
    arrays = normal(X, W, (4,), (2, 6, 7, 4))
    for got, want in zip(first(fn, *arrays), first(another(fn), *arrays), strict=True):
        close(got, want, length=84)


@functools.partial(jax.jit, static_argnums=0)
def second(fn: Any, *arrays: Any) -> Any:
    x, w, u, v = arrays

    def slope(x: Any, w: Any) -> Any:
        return jax.grad(lambda x, w: jnp.sin(fn(x, w)).sum(), (0, 1))(x, w)

    def along(x: Any, w: Any) -> Any:
        return sum(map(jnp.vdot, slope(x, w), (u, v)))

    return jax.grad(along, (0, 1))(x, w), jax.jvp(slope, (x, w), (u, v))[1]


@every
def test_second_derivatives(fn: Any) -> None:
    """Reverse and forward over reverse are another kernel's.

    The library's is checked against finite differences in test_table.py.
    """
    with jax.enable_x64(True):
        arrays = normal(*((1, 4, 5, 2), (3, 3, 2, 2)) * 2, dtype=np.float64)
        got, want = (second(f, *arrays) for f in (fn, another(fn)))
        for reverse, forward, value in zip(*got, want[0], strict=True):
            close(reverse, value, length=400)
            close(forward, value, length=400)


BATCHED: list[tuple[int | None, int | None]] = [(0, None), (None, 3), (1, 0), (2, 2)]


@functools.partial(jax.jit, static_argnums=0)
def pulled(fn: Any, x: Any, w: Any) -> Any:
    """The value, and the gradients for a cotangent that depends on it and for one that does not."""
    y, pull = jax.vjp(fn, x, w)
    (fixed,) = normal(y.shape, seed=1)
    return y, pull(jnp.sin(y)), pull(jnp.asarray(fixed))


def assert_vmap_is_a_loop(fn: Any, shapes: Any, count: int, length: int) -> None:
    """Value and both gradients, whichever of the arrays has the new axis."""
    run = functools.partial(pulled, fn)
    vmapped = [jax.vmap(run, axes) for axes in BATCHED]
    pairs = [
        normal(*(s if d is None else (count, *s) for s, d in zip(shapes, axes, strict=True)))
        for axes in BATCHED
    ]
    moved = [
        [a if d is None else np.moveaxis(a, 0, d) for a, d in zip(pair, axes, strict=True)]
        for pair, axes in zip(pairs, BATCHED, strict=True)
    ]
    results = jax.jit(lambda all: [f(*pair) for f, pair in zip(vmapped, all, strict=True)])(moved)
    for axes, pair, got in zip(BATCHED, pairs, jax.tree.map(np.asarray, results), strict=True):
        for i in range(count):
            want = run(*(a if d is None else a[i] for a, d in zip(pair, axes, strict=True)))
            jax.tree.map(lambda g, v, i=i: close(g[i], v, length=length), got, want)


@every
def test_vmap_is_a_loop(fn: Any) -> None:
    assert_vmap_is_a_loop(fn, (X, W), count=3, length=84)


def in_groups(x: Any, w: Any) -> Any:
    return fnn.conv(x, w, groups=3)


def test_vmap_with_groups() -> None:
    """The new axis goes inside each group, or makes groups of its own."""
    assert_vmap_is_a_loop(in_groups, ((2, 4, 6), (3, 2, 9)), count=2, length=24)


@every
@pytest.mark.parametrize(("dtype", "c"), [("bfloat16", 9), ("float16", 1)])
def test_half_precision_accumulates_in_float32(fn: Any, dtype: Any, c: int) -> None:
    """Ones beside 2 / eps: a sum in half precision would lose them, whichever comes first."""
    big = 2 / float(jnp.finfo(dtype).eps)
    x, w, g = (np.ones(shape, dtype) for shape in ((1, 5, 5, c), (3, 3, c, 1), (1, 3, 3, 1)))

    @jax.jit
    def run(wide_w: Any, g: Any) -> Any:
        valid = functools.partial(fn, padding="VALID")
        return valid(jnp.asarray(x), wide_w), *jax.vjp(valid, jnp.asarray(x), jnp.asarray(w))[1](g)

    for corner in (0, -1):
        wide_w, wide_g = w.copy(), g.copy()
        wide_w[corner, corner, corner] = wide_g[0, corner, corner] = big
        results = run(wide_w, wide_g)
        assert all(a.dtype == dtype for a in results)
        y, to_x, to_w = (np.asarray(a, np.float64) for a in results)
        assert (y == big + 9 * c - 1).all()
        assert (to_x[0, 2, 2] == big + 8).all()
        assert (to_w == big + 8).all()


@every
def test_inside_scan(fn: Any) -> None:
    @jax.jit
    def both(x: Any, w: Any) -> Any:
        return jax.lax.scan(lambda x, w: (fn(x, w), None), x, w)[0], fn(fn(x, w[0]), w[1])

    got, want = both(*normal(X, (2, 3, 3, 3, 3)))
    close(got, want, length=54)


@every
def test_inside_shard_map(fn: Any) -> None:
    """A window that all devices share gets the sum of their gradients."""
    spec, axis = jax.sharding.PartitionSpec, (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((1,), ("data",), axis_types=axis)

    def gradients(w: Any, x: Any) -> Any:
        return jax.grad(lambda w, x: jax.lax.psum((fn(x, w) ** 2).sum(), "data"), (0, 1))(w, x)

    specs = (spec(), spec("data"))
    x, w = normal(X, W)
    sharded = jax.shard_map(gradients, mesh=mesh, in_specs=specs, out_specs=specs)
    plain = jax.grad(lambda w, x: (fn(x, w) ** 2).sum(), (0, 1))
    got, want = jax.jit(lambda *arrays: (sharded(*arrays), plain(*arrays)))(w, x)
    jax.tree.map(lambda g, v: close(g, v, length=84), got, want)


@every
def test_integers_exactly_or_not_at_all(fn: Any) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, s, np.int32) for s in (X, W))
    if fn in (fnn.conv_winograd, fnn.conv_winograd2, fnn.conv_fft):
        with pytest.raises(ValueError, match="floating"):
            fn(x, w)
    else:
        y = fn(x, w)
        assert y.dtype == jnp.int32
        np.testing.assert_array_equal(y, oracle.conv(x, w))


@pytest.mark.parametrize(
    "config", [{"dilation": 2}, {"groups": 2, "stride": 2, "dilation": (1, 2)}]
)
def test_convolve_flips_the_window(config: dict[str, Any]) -> None:
    x, w = normal((2, 6, 7, 4), (3, 2, 4 // config.get("groups", 1), 6))
    want = oracle.conv(x.astype(float), np.flip(w, (0, 1)).astype(float), **config)
    close(fnn.convolve(x, w, **config), want, length=24)


# The transposed convolution.

ADJOINT: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 8, 6, 4), (3, 4, 2, 6), {"stride": (2, 3), "groups": 2}),
    ((2, 7, 6, 2), (3, 2, 2, 3), {"padding": ((2, 1), (0, 1)), "dilation": (2, 1), "stride": 2}),
    ((1, 9, 3), (2, 3, 2), {"stride": 4, "padding": "VALID"}),
    ((1, 9, 3), (2, 3, 2), {"stride": 3, "padding": "SAME"}),
    ((1, 3, 4, 3, 2), (2, 3, 2, 2, 2), {"padding": 1, "stride": (1, 2, 2)}),
    ((2, 6, 6, 2), (3, 5, 2, 3), {"padding_mode": "circular", "stride": 2}),
    ((2, 6, 5, 2), (3, 4, 2, 3), {"padding_mode": "reflect"}),
    ((2, 4, 5, 2), (3, 4, 2, 3), {"padding_mode": "replicate", "padding": 6}),
]


@pytest.mark.parametrize(("x", "w", "config"), ADJOINT)
def test_adjointness(x: tuple[int, ...], w: tuple[int, ...], config: dict[str, Any]) -> None:
    """<conv(x, w), y> = <x, conv_transpose(y, w)>, with the bias of its own channels."""
    with jax.enable_x64(True):
        a, v = normal(x, w, dtype=np.float64)
        shape = jax.eval_shape(functools.partial(fnn.conv, **config), a, v).shape
        (cotangent,) = normal(shape, seed=1, dtype=np.float64)
        transpose = functools.partial(fnn.conv_transpose, **config)
        back = jax.eval_shape(transpose, cotangent, v).shape
        extra = tuple(i - o for i, o in zip(x[1:-1], back[1:-1], strict=True))
        if any(extra) and config.get("padding") != "SAME":
            transpose = functools.partial(transpose, output_padding=extra)
        biases = normal(x[-1:], x[1:], dtype=np.float64)  # tied, untied

        @jax.jit
        def both(a: Any, cotangent: Any, v: Any, biases: Any) -> Any:
            results = [transpose(cotangent, v), *(transpose(cotangent, v, b) for b in biases)]
            return fnn.conv(a, v, **config), results

        y, (plain, *biased) = both(a, cotangent, v, biases)
    assert plain.shape == x
    inner = float(np.vdot(y, cotangent))
    assert abs(inner - float(np.vdot(a, plain))) < 1e-12 * y.size
    want = oracle.conv_transpose(cotangent, v, **config | transpose.keywords)
    close(plain, want, length=v[..., 0, :].size)
    for got, bias in zip(biased, biases, strict=True):
        close(got, np.asarray(plain) + bias, length=8)


@pytest.mark.parametrize("name", CASES)
def test_same_as_torch(name: str) -> None:
    fn = fnn.conv_transpose if name.startswith("transpose") else fnn.conv
    *_, config = CASES[name]
    x, w, *b = arrays(name)
    y = fn(x, w, *b, **{"padding": 0} | config)
    close(y, np.load(FILE)[name], length=w[..., 0, :].size)


# Forms in full: value, jit, vmap, both derivatives, against the oracle.

FORMS: list[tuple[tuple[int, ...], ...] | Any] = [
    ((2, 9, 3), (4, 3, 2), (2,), {"stride": 2}),
    ((2, 5, 4, 2), (3, 4, 1, 4), (5, 4, 4), {"groups": 2}),
    ((1, 3, 4, 3, 2), (2, 3, 2, 2, 2), (2,), {"padding": ((1, 0), (0, 2), (1, 1))}),
    ((2, 4, 5, 2), (3, 2, 2, 2), (2,), {"padding_mode": "circular", "padding": 2, "stride": 3}),
]


@pytest.mark.parametrize(("x", "w", "b", "config"), FORMS)
def test_forms(x: Any, w: Any, b: Any, config: dict[str, Any]) -> None:
    arguments = normal(x, w, b)
    check(fnn.conv, oracle.conv, *arguments, length=arguments[1].size * 4, **config)


def test_padding_of_half_precision_sums_in_float32() -> None:
    """The gradient of an element at the border is the sum over its copies."""
    w, x, g = (np.ones((1, size, 1), jnp.bfloat16) for size in (1, 2, 1200))
    padded = lambda x: fnn.conv(x, jnp.asarray(w), padding=599, padding_mode="replicate")
    (to_x,) = jax.jit(lambda x, g: jax.vjp(padded, x)[1](g))(x, g)
    close(to_x, np.full((1, 2, 1), 600.0))


@pytest.mark.parametrize("shape", [(0, 5, 6, 3), (2, 0, 6, 3), (2, 5, 6, 0)], ids=str)
def test_empty(shape: tuple[int, ...]) -> None:
    sizes = (shape, (3, 3, shape[-1], 4), (4,))
    x, w, b = np.zeros(sizes[0], "f"), np.ones(sizes[1], "f"), np.ones(sizes[2], "f")

    @jax.jit
    def results(x: Any, w: Any, b: Any) -> Any:
        gradients = jax.grad(lambda *a: fnn.conv(*a).sum(), (0, 1, 2))(x, w, b)
        batches = jax.vmap(fnn.conv, (0, None))(x[None], w), jax.vmap(fnn.conv)(x[None], w[None])
        return gradients, batches

    y = fnn.conv(x, w, b)
    assert y.shape == (*shape[:3], 4)
    assert (np.asarray(y) == 1).all()
    gradients, batches = results(x, w, b)
    assert tuple(g.shape for g in gradients) == sizes
    assert [y.shape for y in batches] == [(1, *y.shape)] * 2
