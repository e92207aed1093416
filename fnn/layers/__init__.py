"""Layers: what stands inside a model.

Every layer is one function: data, then parameter arrays, then configuration by keyword. Reading
order: `linear`, `activations`, `softmax`, `conv`, `pooling`, `regions`, `statistics`,
`normalization`, `dropout`, `initializers`. Imports the ground and the kernels.
"""
