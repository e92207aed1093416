"""Convolution kernels: one file per algorithm, all behind the contract of `fnn.kernels.form`."""
