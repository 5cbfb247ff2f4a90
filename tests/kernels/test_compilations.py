"""That a process finds in Triton's cache what another has compiled, and that compilations are seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = """
import json, torch
from triton.backends.compiler import GPUTarget
from seqnets.cells import lstm
from seqnets.kernels.triton import launch
from seqnets.kernels.triton.ahead_of_time import compile_ahead
from seqnets.kernels.report.compilations import watch_compilations
from seqnets.kernels.triton.module import generate
from seqnets.kernels.triton.planning.plan import Plan

U, meta = 16, lambda *shape: torch.empty(shape, dtype=torch.float16, device="meta")
inputs = launch.Inputs(meta(2, 3, 1, 1, 4 * U), (meta(1, 3, 1, U),) * 2, meta(1, 1, U, 4 * U), None, (), (), None)
outputs = launch.allocate_outputs(inputs, keep_states=True, keep_r=True)
plan = Plan("resident", 16, U, 0, 4, 1, "ieee")
seen = []
with watch_compilations(seen):
    compile_ahead(next(launch.forward(generate(lstm), inputs, outputs, plan)), GPUTarget("cuda", 90, 32))
print(json.dumps([compilation._asdict() for compilation in seen]))
"""


def compile_in_a_process(cache):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_process_reuses_what_the_first_compiled(tmp_path):
    (first,) = compile_in_a_process(tmp_path)
    (second,) = compile_in_a_process(tmp_path)
    assert first["kernel"] == second["kernel"] == "forward"
    assert [first["cached"], second["cached"]] == [False, True]
    assert first["seconds"] > 0
