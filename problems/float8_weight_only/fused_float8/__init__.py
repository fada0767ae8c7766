"""A linear layer that multiplies by float8 weights where they lie: 1 byte per weight moves.

`linear.quantize_` replaces torchao's weight-only path; `cpu_*` are the C++ kernels, built at first
use by `build`; `triton_kernels` is the same for GPUs.
"""
