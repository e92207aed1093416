"""Layers: what stands inside a model."""
