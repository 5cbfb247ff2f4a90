"""Tests whose kernels run in Triton's interpreter, on the CPU. `conftest.py` says how."""
