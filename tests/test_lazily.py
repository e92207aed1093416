"""JAX's program classes, loaded when they are first used."""

import jax
import jax.extend.core
import pytest

from fnn import lazily


def test_while_another_thread_imports_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its import ends, `jax` has no attribute `extend`, though its modules are loaded."""
    core = jax.extend.core
    monkeypatch.delattr(jax, "extend")
    assert lazily.Literal is core.Literal
