"""Contains the generic kernels, which handle time and tiles. The cell defines what a step computes."""
