"""Kernels of convolution.

Read `form` first: convolution as one trilinear form, three maps and what a kernel is. Then the
algorithms: `library`, `taps` with `taps_planes` and `taps_window`, `im2col` with `im2col_blocks`,
`winograd` with `tiling` and `transforms`, and `fft`, with `views` for what the taps of a window
see, `examples` and `stretches` for blocks of examples and of the rows of large ones, `loops` over
them, `axes` for those that a window does not span, and `adjoint` and `col2im` for the input
gradient. `rule` picks one by its `cells`, from measurements in ``rules.json``; `tuning` measures on
the user's machine.
Imports the ground only.
"""
