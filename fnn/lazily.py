"""`jax.extend.core`, JAX's programs and primitives, loaded when one of its names is first used.

Pallas comes with it, which would be a third of what importing fnn costs, and with JAX 0.12 makes
every program that was compiled before compile again. `Primitive` is known without it.
"""

import importlib
from typing import Any

from jax import lax

Primitive: Any = type(lax.add_p)


def __getattr__(name: str) -> Any:
    # As `import jax.extend.core` it would be looked for in `jax`, which has it only at the end of
    # an import that another thread may be at.
    return getattr(importlib.import_module("jax.extend.core"), name)
