"""Where the tests for GPUs run: on one, or with ``SEQNETS_STUB_GPU`` on the stub of `benchmarks.prove.stub_gpu`, to rehearse them."""

import os

STUB = os.environ.get("SEQNETS_STUB_GPU", "")  # "1": all tests; "sample": the first case of each
DEVICE = "cpu" if STUB else "cuda"
