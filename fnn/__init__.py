"""fnn: functional neural networks on JAX."""

from fnn.conv import conv as conv
from fnn.windows import output_size as output_size
from fnn.windows import receptive_field as receptive_field

__all__ = [
    "conv",
    "output_size",
    "receptive_field",
]
