"""Contains the fused kernels for GPUs: Triton source from a cell's graph, the schedules around it, and the launches."""
