"""Chooses where the tests of this folder run: on the GPU, or on a stub of one, which computes nothing.

``SEQNETS_STUB_GPU=1`` rehearses every case, ``SEQNETS_STUB_GPU=sample`` one of each test function.
"""

import os

REHEARSED = os.environ.get("SEQNETS_STUB_GPU", "")
STUB = REHEARSED in ("1", "sample")
DEVICE = "cpu" if STUB else "cuda"
