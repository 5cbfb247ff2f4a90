"""Proves the kernels on a GPU, within minutes: ``python -m benchmarks prove``.

`command` runs `items` in `workers` and keeps each result by `record` as it comes; `tables` tells them. `stub_gpu` stands for the GPU
where everything but the GPU is rehearsed. All of it needs torch and Triton alone.
"""
