"""Proves the kernels on a GPU within minutes: ``python -m benchmarks prove``.

`command` runs the `items` in `workers`. `record` keeps each result as it comes, and `tables` shows them. `stub_gpu`
takes the place of the GPU in a rehearsal on a machine without one. The package needs only torch and Triton.
"""
