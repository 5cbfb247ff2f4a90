"""Commands whose output nobody reads."""

import os
import subprocess
import sys


def run_into_a_closed_pipe(*arguments):
    """Run Python with these arguments, its output buffered as outside of tests; return its status and errors."""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.run(
        [sys.executable, *arguments], stdout=writer, stderr=subprocess.PIPE, timeout=120, env=buffered
    )
    os.close(writer)
    return process.returncode, process.stderr
