"""Losses: one number per example or entry, unreduced; penalties on parameters; metrics.

Reading order: `targets`, `regression`, `classification`, `penalties`, `metrics`. Imports the ground
and the layers.

Losses take logits and stay finite, with finite gradients, at extreme inputs. A loss over classes
reduces its last axis, ``(*n, classes)`` to ``(*n)``; a loss by entry keeps the shape. The caller
takes the mean: ``loss.mean()``.

``where=`` keeps entries of the first argument: a bool array of its shape, or of size 1 along some
axes, so that ``mask[:, None]`` keeps whole examples. The loss is that of the kept entries alone,
whatever the others hold, NaN included, and 0 with gradient 0 where none is kept; the mean over the
kept is ``loss.sum() / mask.sum()``.

Shapes are never broadcast: (n,) against (n, 1) raises. A label that no class has cannot raise
inside a compiled function: its loss is NaN. NumPy integers of 64 bits that do not fit 32 raise
without x64, as JAX would wrap them. Everything is computed in float32 or wider and rounded
once.
"""
