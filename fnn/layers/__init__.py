"""Layers: what stands inside a model.

Every layer is one function: data, then parameter arrays, then configuration by keyword. Reading
order: `linear`, `activations`, `softmax`, `conv`, `pooling`, `regions`, `recurrent_checks`,
`recurrent`, `linear_recurrence`, `statistics`, `normalization`, `dropout`, `initializers`,
`recurrent_init`. Imports the ground and the kernels.
"""
