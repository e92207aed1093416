"""Losses: one number per example, from logits; penalties on parameters; metrics.

Reading order: `regression`, `classification`, `penalties`, `metrics`. Imports the ground and the
layers.
"""
