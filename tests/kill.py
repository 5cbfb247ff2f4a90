"""\
Ends training runs at random moments, resumes them, and compares their weights with those of runs that were not ended.

python -m tests.kill --runs 40    # some minutes; exit status 1 where a run does not end with the same bits
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from seqnets.progress import Progress
from seqnets.training.run_folder import finished
from tests.data.synthetic import parquet_folder
from tests.training.helpers import assert_same, command

SIGNALS = {number.name: number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
ENDED = (-signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, 129, 130, 143)
# large enough that `auto` times both backends
OPTIONS = [
    "trainer.max_epochs=3", "callbacks.last_checkpoint.every_n_train_steps=4", "data.max_tokens=24",
    "data.validation_fraction=0.2", "model.net.recurrent.hidden_size=48", "model.net.embedding.embedding_dim=32",
    "data.batch_size=8",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the moments and signals")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="seqnets-kill-") as folder:
        os.environ["SEQNETS_CACHE"] = str(Path(folder, "cache"))
        os.environ.pop("SEQNETS_MEASURE", None)
        reviews = parquet_folder(Path(folder, "reviews"), train=160)
        seconds = 0.0
        for backend in ("aten", "cpp"):
            started = time.monotonic()
            start(reviews, Path(folder, backend), f"model.backend={backend}").communicate()
            seconds = time.monotonic() - started
        wrong = 0
        with Progress(arguments.runs) as progress:
            for number in range(arguments.runs):
                told = one_run(reviews, Path(folder, f"run{number}"), Path(folder), seconds, draw)
                wrong += told.startswith("WRONG")
                progress.advance(told)
    print(f"{arguments.runs - wrong} of {arguments.runs} runs ended with the same bits as one that was not ended")
    return int(bool(wrong))


def one_run(reviews: Path, folder: Path, wholes: Path, seconds: float, draw: random.Random) -> str:
    """Start a run, end it up to three times, resume it until it has finished, and say what became of it."""
    last, ends = None, []
    for attempt in range(20):
        part = folder / str(attempt)
        process = start(reviews, part, *([f"ckpt_path={last}"] if last else []))
        if len(ends) < 3:
            moment, name = draw.uniform(0.0, seconds), draw.choice(list(SIGNALS))
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[name])
                ends.append(f"{name} after {moment:.1f} s")
        _, errors = process.communicate()
        if finished(part):  # it may have been ended in the last moments of its process
            backend = json.loads((part / "result.json").read_text())["backend"]
            story = f"{', '.join(ends) or 'never ended'}; {backend}"
            trained = part
            if backend == "none ran":  # all was trained by then, and only the test was left
                assert last is not None
                trained, backend = last.parents[1], backend_of(last)
            try:
                assert_same(wholes / backend, trained)
            except AssertionError:
                return f"WRONG: other weights than a whole run's ({story})"
            return f"the same bits ({story})"
        importing = not part.exists() and errors.rstrip().endswith("KeyboardInterrupt")  # nothing of ours ran yet
        if process.returncode not in ENDED and not importing:
            return f"WRONG: exit status {process.returncode} ({', '.join(ends)}): {errors.strip().splitlines()[-1:]}"
        if (part / "checkpoints" / "last.ckpt").exists():
            last = part / "checkpoints" / "last.ckpt"
    return f"WRONG: it never finished ({', '.join(ends)})"


def backend_of(checkpoint: Path) -> str:
    reports = torch.load(checkpoint, weights_only=True)["callbacks"]["BackendReport"]["backends"]
    return next(iter(reports.values()))


def start(reviews: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    started = command(reviews, folder, *OPTIONS, *options)
    return subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
