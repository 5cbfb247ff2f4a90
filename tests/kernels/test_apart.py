"""Work in a thread of its own, in a new process:
what torch keeps for the process is set by the first thread that traces.
"""

import subprocess
import sys


def test_several_cells_are_traced_in_one_process():
    """In CUDA builds of torch 2.11, on a machine without a GPU, the second one ended it with a segmentation fault."""
    code = """
from seqnets.cells import gru, lstm
from seqnets.kernels.triton.module import generate
for cell in (lstm, gru):
    generate(cell)
    print(cell.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["lstm", "gru"]), done.stderr
