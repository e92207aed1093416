"""Kernels of pooling.

Read `form` first: the two reductions that a kernel supplies and the five poolings made of them.
Then the algorithms, `library` and `slices`, and the `rule` that picks one, from ``rules.json``.
Imports the ground only.
"""
