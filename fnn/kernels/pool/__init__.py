"""Kernels of pooling.

Read `form` first: the three reductions that a kernel supplies and the five poolings made of them.
Then `norm`, what both algorithms share of the p-norm; the algorithms, `library` and `slices`, the
second with its `blocks`; and the `rule` that picks one, from ``rules.json``.
Imports the ground only.
"""
