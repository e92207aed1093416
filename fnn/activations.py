"""Activation functions: what `jax.nn` does well is re-exported, what it lacks or fails is ours."""

from jax.nn import relu as relu

__all__ = ["relu"]
