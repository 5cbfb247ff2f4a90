"""Counts what compiled kernels cost from their disassembly, without a GPU, and feeds a roofline model."""
