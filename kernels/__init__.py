"""Holds the fused kernels, which are generated from cells; imported as `seqnets.kernels`. Exports no names itself.

seqnets/kernels is a symbolic link to this folder, because the top-level import name `kernels` belongs to another
project.
"""
