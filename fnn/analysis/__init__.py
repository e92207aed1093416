"""Analysis: what a network does. The names of this room are used as ``fnn.analysis.<name>``.

What is analysed is compiled, once for equal functions of equal shapes. What a loss or model
reads in a dict, an array or an object that changes is fixed at the first call. Pass what may
change, such as a batch, as an argument: a function that holds an array, also by
`functools.partial`, compiles anew, and both stay in memory.

Imports the ground, the kernels, the layers and the losses; optimizers and training may import it.
Read curvature first, with spectrum and noise; program, what a traced function is, before watching,
and before ledger, arithmetic and reach, of which sizes makes its table; then the others.
"""

from fnn.analysis.gradcheck import GradientCheck as GradientCheck
from fnn.analysis.gradcheck import Leaf as Leaf
from fnn.analysis.gradcheck import assert_gradients as assert_gradients
from fnn.analysis.gradcheck import check_gradients as check_gradients
from fnn.analysis.measures import Activity as Activity
from fnn.analysis.measures import Norms as Norms
from fnn.analysis.measures import activity as activity
from fnn.analysis.measures import first_nonfinite as first_nonfinite
from fnn.analysis.measures import norms as norms
from fnn.analysis.noise import NoiseScale as NoiseScale
from fnn.analysis.noise import gradient_noise_scale as gradient_noise_scale
from fnn.analysis.rates import RateRange as RateRange
from fnn.analysis.rates import rate_range as rate_range
from fnn.analysis.sizes import Layer as Layer
from fnn.analysis.sizes import Summary as Summary
from fnn.analysis.sizes import summary as summary
from fnn.analysis.spectrum import Density as Density
from fnn.analysis.spectrum import spectral_density as spectral_density
from fnn.analysis.time import gradient_by_time as gradient_by_time
from fnn.analysis.watching import gradients_at as gradients_at
from fnn.analysis.watching import watch as watch
from fnn.analysis.watching import watched as watched
