"""`jax.extend.core`, JAX's programs and primitives, loaded when one of its names is first used.

Pallas comes with it, which would be a third of what importing fnn costs: ``lazily.Primitive``.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    import jax.extend.core

    return getattr(jax.extend.core, name)
