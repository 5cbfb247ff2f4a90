"""The generic kernels: time and tiles are theirs, what a step computes is the cell's."""
