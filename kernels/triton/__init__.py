"""The fused kernels for GPUs: Triton source from a cell's graph, the schedules around it, and what launches them."""
