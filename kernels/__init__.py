"""The fused kernels, generated from cells; imported as `seqnets.kernels`. Nothing is here yet.

The folder is linked from seqnets/kernels, because a top-level import name `kernels` belongs to another project.
"""
