"""Data: real images, and batches of arrays. The names of this room are used as ``fnn.data.<name>``.

Imports the ground only. Read images, shuffle.
"""

from fnn.data.images import Dataset as Dataset
from fnn.data.images import cifar10 as cifar10
from fnn.data.images import digits as digits
from fnn.data.images import idx as idx
from fnn.data.images import mnist as mnist
from fnn.data.shuffle import batches as batches
