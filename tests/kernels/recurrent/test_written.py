"""The written derivative: that it is one, in every mode and to the second order; what it costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from tests.check import close

N, TIME, F, UNITS = 2, 4, 3, 5
BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}


def draw(kind: str, *sizes: int) -> tuple[Any, ...]:
    n, time, f, units = sizes or (N, TIME, F, UNITS)
    rng, columns = np.random.default_rng(0), BLOCKS[kind] * units
    shapes = ((n, time, f), (f, columns), (units, columns), (columns,))
    return tuple((rng.standard_normal(s) * s[0] ** -0.5).astype(np.float32) for s in shapes)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_second_derivatives_are_those_of_the_scan(kind: str) -> None:
    """Forward over reverse, and reverse over reverse: as it is, and with steps computed again."""
    args, every, f = draw(kind, 2, 3, 2, 3), (0, 1, 2, 3), getattr(fnn, kind)
    along = tuple(np.cos(np.arange(a.size, dtype=np.float32)).reshape(a.shape) for a in args)

    def gradient(f: Any) -> Any:
        lengths = jnp.array([3, 2])
        return jax.grad(lambda *args: (f(*args, lengths=lengths)[0] ** 2).sum(), every)

    def backward(f: Any, args: Any) -> Any:
        def slope(*args: Any) -> Any:
            return sum((g * t).sum() for g, t in zip(gradient(f)(*args), along, strict=True))

        return jax.grad(slope, every)(*args)

    @jax.jit
    def results(*args: Any) -> Any:
        forward, want = (
            jax.jvp(gradient(g), args, along)[1] for g in (f, getattr(fnn, f"{kind}_scan"))
        )
        again = functools.partial(f, remat=1), functools.partial(f, remat=2), jax.checkpoint(f)
        return [forward, *(backward(g, args) for g in (f, *again))], want

    found, want = results(*args)
    scale = max(float(np.abs(w).max()) for w in want)
    for got in found:
        jax.tree.map(lambda g, w: close(g, w, length=64, scale=scale), got, want)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_derivative_by_one_array_alone(kind: str) -> None:
    """By x, by each of the weights, and by the state: the rule leaves out what has no tangent."""
    h = np.ones((N, UNITS), np.float32)
    args, every = (*draw(kind), (h, h / 2) if kind == "lstm" else h), (0, 1, 2, 3, 4)

    @jax.jit
    def gradients(*args: Any) -> Any:
        def loss(*args: Any) -> Any:
            return getattr(fnn, kind)(*args[:-1], state=args[-1])[0].sum()

        alone = tuple(jax.grad(loss, i)(*args) for i in every)
        return alone, jax.grad(loss, every)(*args)

    jax.tree.map(lambda a, b: close(a, b, length=64), *gradients(*args))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_inside_shard_map_and_on_explicit_axes(kind: str) -> None:
    """Weights that all devices share get the sum of their gradients."""
    args, spec = draw(kind), jax.sharding.PartitionSpec
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (spec("data"), spec(), spec(), spec())

    def gradients(*args: Any, sum_: Any = lambda a: a) -> Any:
        return jax.grad(lambda *a: sum_((getattr(fnn, kind)(*a)[0] ** 2).sum()), (0, 1, 2, 3))(
            *args
        )

    def local(*args: Any) -> Any:
        return gradients(*args, sum_=lambda a: lax.psum(a, "data"))

    want = jax.jit(gradients)(*args)
    got = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=specs))(*args)
    jax.tree.map(lambda g, w: close(g, w, length=64), got, want)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(a, jax.NamedSharding(mesh, s)) for a, s in zip(args, specs, strict=True)
        ]
        got = jax.jit(gradients)(*placed)
        assert got[0].sharding.spec[0] == "data"
        jax.tree.map(lambda g, w: close(g, w, length=64), got, want)


def test_inside_scan_and_vmap_over_weights() -> None:
    """A batch of weights, as of several runs at once, inside an outer scan."""
    x, *weights = draw("lstm")
    many = [np.stack([w, -w]) for w in weights]
    each = jax.vmap(lambda *w: fnn.lstm(x, *w)[0])

    def body(total: Any, _: None) -> Any:
        return total + each(*many), None

    got, _ = jax.jit(lambda: lax.scan(body, jnp.zeros((2, N, TIME, UNITS)), None, length=2))()
    for i in range(2):
        close(np.asarray(got)[i] / 2, fnn.lstm_scan(x, *(m[i] for m in many))[0], length=F + UNITS)


def temporary(time: int, remat: int | None) -> int:
    """Bytes of temporary memory of the gradient with respect to the weights."""
    x, *weights = draw("lstm", 4, time, 4, 32)

    def loss(*weights: Any) -> Any:
        return fnn.lstm(x, *weights, remat=remat)[0].sum()

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*weights).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    return int(memory.temp_size_in_bytes)


def test_remat_bounds_the_memory() -> None:
    """The compiled program's own figure, at the root of time."""
    whole, some = temporary(1024, None), temporary(1024, 32)
    print(f"temporary bytes for 1024 steps: {whole}; for 32 at a time: {some}")
    assert some < whole / 4


def test_remat_gives_the_same_numbers() -> None:
    args = draw("gru", 2, 7, 3, 4)

    def gradients(remat: int | None) -> Any:
        def loss(*args: Any) -> Any:
            y, h = fnn.gru(*args, lengths=jnp.array([7, 3]), remat=remat, reverse=True)
            return (y**2).sum() + h.sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*args)

    want = gradients(None)
    for remat in (3, 9):
        jax.tree.map(lambda g, w: close(g, w, length=128), gradients(remat), want)


def test_cudnn_gets_the_weights_and_the_order_that_it_reads(monkeypatch: Any) -> None:
    """JAX's reference of cuDNN's call, in its place: there is no GPU here."""
    from jax.experimental import rnn

    def stand_in(
        x: Any, h: Any, c: Any, packed: Any, lengths: Any, *sizes: Any, **rest: Any
    ) -> Any:
        parts = rnn.unpack_lstm_weights(packed, *sizes, bidirectional=False)
        return rnn.lstm_ref(x, h, c, *parts, lengths, *sizes, 0.0, False)

    monkeypatch.setattr(rnn, "lstm", stand_in)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    args = (*draw("lstm", 3, 5, 2, 4), tuple(s * np.ones((3, 4), np.float32) for s in (1, -1)))
    for reverse in (False, True):
        for lengths in (None, jnp.array([5, 0, 3])):

            def results(f: Any, reverse: Any = reverse, lengths: Any = lengths) -> Any:
                def loss(*args: Any) -> Any:
                    found = f(*args[:-1], state=args[-1], lengths=lengths, reverse=reverse)
                    return sum((a**2).sum() for a in jax.tree.leaves(found)), found

                return jax.grad(loss, (0, 1, 2, 3, 4), has_aux=True)(*args)

            got, want = jax.jit(lambda: [results(f) for f in (fnn.lstm_cudnn, fnn.lstm_scan)])()
            jax.tree.map(lambda g, w: close(g, w, length=60), got, want)


def test_cudnn_takes_float32_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, wx, wh, b = draw("lstm")
    h = np.zeros((N, UNITS), np.float16)
    with jax.enable_x64(True):
        for dtype in (np.float16, jnp.bfloat16, np.float64):
            with pytest.raises(TypeError, match=r"lstm_cudnn: x: got b?float.*; needed float32;"):
                fnn.lstm_cudnn(*(a.astype(dtype) for a in (x, wx, wh, b)))
    with pytest.raises(TypeError, match=r"lstm_cudnn: wh: got float16.* the dtype of x, float32"):
        fnn.lstm_cudnn(x, wx, wh.astype(np.float16), b)
    with pytest.raises(TypeError, match=r"lstm_cudnn: state: got float16.*; needed float32 for x"):
        fnn.lstm_cudnn(x, wx, wh, b, state=(h, h))


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("kind", BLOCKS)
def test_products_in_the_loops_of_the_gradient(kind: str, n: int) -> None:
    """One in either loop; two in a GRU's where a product of all inputs would be large."""
    gradient = jax.grad(lambda *a: getattr(fnn, kind)(*a)[0].sum(), (0, 1, 2, 3))
    args = draw(kind, n, TIME, UNITS, UNITS)
    assert products(jax.make_jaxpr(gradient)(*args).jaxpr) == [1, 1]
    if kind == "gru" and n == 4:
        large = jax.ShapeDtypeStruct((n, 2**20, UNITS), jnp.float32)
        assert products(jax.make_jaxpr(gradient)(large, *args[1:]).jaxpr) == [2, 1]


def products(jaxpr: Any) -> list[int]:
    """The number of products in the body of every loop."""
    found = []
    for eqn in jaxpr.eqns:
        inner = [p.jaxpr for p in eqn.params.values() if hasattr(p, "jaxpr")]
        if eqn.primitive.name == "scan":
            found += [str(body).count("dot_general[") for body in inner]
        else:
            found += [n for body in inner for n in products(body)]
    return found
