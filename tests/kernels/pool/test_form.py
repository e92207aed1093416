"""What the poolings know of their windows before anything is compiled."""

import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.pool import form
from fnn.windows import Windows


def test_taps_are_counted_as_one_by_one() -> None:
    grid = itertools.product(
        range(6), (1, 2, 3, 5), (1, 2, 4), (1, 2, 3), (0, 1, 4), (0, 3), (0, 1, 5), (0, 2)
    )
    met = 0
    for i, k, s, d, lo, hi, before, after in grid:
        windows = Windows((k,), (s,), ((lo, hi),), (d,))
        (a,) = windows.axes((i,))
        places = np.arange(a.o)[:, None] * s + np.arange(k) * d - lo
        want = ((places >= -before) & (places < i + after)).sum(1)
        (got,) = form.inside(windows, (i,), ((before, after),))
        np.testing.assert_array_equal(got, want, err_msg=str((windows, i, before, after)))
        met += int(0 < want.sum() < want.size * k)
    assert met > 500


def test_counting_taps_takes_no_memory_for_each() -> None:
    """A matrix of stops and taps would take 80 MB here; 3 GB for 2,000 taps at 200,000 stops."""
    windows = Windows((500,), (1,), ((0, 0),), (1,))
    tracemalloc.start()
    form.inside(windows, (20_000,), ((0, 0),))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


@pytest.mark.parametrize(
    ("name", "config"),
    [("max_pool", {"padding": 1}), ("avg_pool", {"padding": "SAME", "count_include_pad": False})],
)
def test_a_program_stores_no_large_plane(name: str, config: dict[str, object]) -> None:
    """Neither of the taps' numbers nor of their counts, and computes with the same."""

    def gradient(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: getattr(fnn, name)(x, 3, stride=1, **config).sum())(x)

    x = jax.ShapeDtypeStruct((1, 1100, 1000, 1), jnp.float32)
    text = jax.jit(gradient).lower(x).compile().as_text()
    assert "1100,1000" in text
    constants = [line for line in text.splitlines() if " constant(" in line]
    assert not [line for line in constants if "1000" in line and "1100" in line]


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_large_planes_are_pooled_as_small_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    config = {} if name == "max_pool" else {"count_include_pad": False}

    def both() -> tuple[jax.Array, jax.Array]:
        jax.clear_caches()
        pool = lambda x: getattr(fnn, name)(x, 3, stride=2, padding=1, **config)
        y, pull = jax.vjp(pool, x)
        return y, *pull(jnp.sin(y))

    want = both()
    monkeypatch.setattr(form, "STORED", 0)
    got = both()
    jax.clear_caches()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)
