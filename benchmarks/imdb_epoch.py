"""Time of one training epoch of `imdb_bilstm`, against the same work elsewhere.

    python -m benchmarks.imdb_epoch                      full epochs, three rounds
    python -m benchmarks.imdb_epoch --steps 100          a hundred steps of it, to try
    python -m benchmarks.imdb_epoch --keras-python PATH  Keras 3 from another environment

Contenders:

- seqnets: `train(cfg)` as a user runs it, with its loggers, metrics and progress bar drawn.
- bare: a plain PyTorch loop around `torch.nn.LSTM` (benchmarks/bare.py).
- keras: Keras 3 on JAX, `model.fit` with the same model, data, batch size and optimiser.

Two measurements. First seqnets and bare take turns of 20 steps in one process, for an epoch: the ratio of each turn to
the one after it is what the overhead is read from, as a drift of the machine meets both. Then each contender has a
process of its own, one after the other within a round: seconds per epoch, and peak memory, the largest resident set.
An epoch is timed from its first step to its last; imports, data preparation and, for Keras, compilation are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 32  # of the experiment, and of benchmarks/bare.py


def train_seqnets(arrays: Path, steps: int | None, *overrides: str) -> dict[str, Any]:
    import rich
    from hydra import compose, initialize_config_dir

    from seqnets.training import train

    rich.reconfigure(force_terminal=True, file=io.StringIO())  # the bar is drawn, to nowhere
    options = [
        "+experiment=imdb_bilstm",
        "trainer.max_epochs=1",
        f"trainer.limit_train_batches={steps or 1.0}",
        "trainer.limit_test_batches=1",
        f"run_dir={arrays.parent / f'run-{os.getpid()}'}",
        *overrides,
    ]
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base=None):
        cfg = compose("train", options)
    return train(cfg)[1]


def run_seqnets(arrays: Path, steps: int | None) -> float:
    return train_seqnets(arrays, steps)["result"]["seconds_per_epoch"][0]


def run_bare(arrays: Path, steps: int | None) -> float:
    from benchmarks.bare import BareLoop

    loop = BareLoop(arrays)
    loop.seconds(1)  # warm-up
    return loop.seconds(steps or len(loop.batches))


def take_turns(arrays: Path, steps: int | None) -> dict[str, list[float]]:
    """Seconds of each turn of 20 steps."""
    target = "+callbacks.turns._target_=benchmarks.bare.TakeTurns"
    turns = train_seqnets(arrays, steps, target, f"+callbacks.turns.arrays={arrays}")["callbacks"]["turns"]
    return {"seqnets": turns.ours, "bare": turns.bare}


def run_keras(arrays: Path, steps: int | None) -> float:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras
    import numpy as np

    with np.load(arrays) as loaded:
        tokens, labels = loaded["tokens"], loaded["labels"]
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((tokens.shape[1],), dtype="int32"),
            layers.Embedding(20_000, 128),
            layers.Bidirectional(layers.LSTM(64, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(64)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    rows = len(tokens) if steps is None else steps * BATCH
    ends = len(tokens) % BATCH if steps is None else 0
    # compiles for both shapes of batch that the epoch has
    model.fit(tokens[: BATCH + ends], labels[: BATCH + ends], batch_size=BATCH, verbose=0)
    start = time.perf_counter()
    model.fit(tokens[:rows], labels[:rows], batch_size=BATCH, verbose=0)
    took = time.perf_counter() - start
    assert np.isfinite(model.history.history["loss"]).all()
    return took


CONTENDERS = {"seqnets": run_seqnets, "bare": run_bare, "keras": run_keras}


def prepare(arrays: Path) -> dict[str, Any]:
    """Write the encoded training reviews as plain arrays, which all contenders but seqnets read."""
    import numpy as np

    from seqnets.data import IMDB

    data = IMDB(batch_size=25_000)
    data.prepare_data()
    data.setup("fit")
    tokens, labels = next(iter(data.train_dataloader()))
    np.savez(arrays, tokens=tokens.numpy(), labels=labels.numpy())
    return data.provenance()


def in_own_process(task: str, python: str, arrays: Path, steps: int | None) -> dict[str, Any]:
    """What `task` prints. The parent stays small: a child's peak memory begins at its parent's size."""
    command = [python, "-m", "benchmarks.imdb_epoch", "--run", task, "--arrays", str(arrays)]
    command += ["--steps", str(steps)] if steps else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    except OSError as error:
        return {"failed": str(error)}
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no message"]
        return {"failed": reason[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def work(task: str, arrays: Path, steps: int | None) -> dict[str, Any]:
    if task == "prepare":
        return prepare(arrays)
    if task == "turns":
        return take_turns(arrays, steps)
    seconds = CONTENDERS[task](arrays, steps)
    per_unit = 1 if platform.system() == "Darwin" else 1024  # bytes there, KiB elsewhere
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * per_unit / 1e6
    return {"seconds": seconds, "peak_mb": peak_mb}


def overhead(turns: dict[str, Any]) -> str:
    """What taking turns says."""
    if "failed" in turns:
        return f"taking turns failed: {turns['failed']}"
    ratios = [ours / bare for ours, bare in zip(turns["seqnets"], turns["bare"], strict=True)]
    if len(ratios) < 2:
        return "too few steps to take turns"
    fifths = statistics.quantiles(ratios, n=5)
    return (
        f"seqnets / bare in turns of 20 steps: {statistics.median(ratios):.3f} "
        f"(p20 {fifths[0]:.3f}, p80 {fifths[3]:.3f}; {len(ratios)} turns)"
    )


def summarise(samples: list[dict[str, dict[str, Any]]], steps: int) -> list[list[str]]:
    """A row per contender: seconds (median, least and most), milliseconds per step, peak memory, ratio to bare."""
    rows = []
    for name in CONTENDERS:
        good = [r[name] for r in samples if "seconds" in r.get(name, {})]
        if not good:
            rows.append([name, next((r[name]["failed"] for r in samples if name in r), "not run"), "", "", ""])
            continue
        seconds = sorted(g["seconds"] for g in good)
        ratios = sorted(
            r[name]["seconds"] / r["bare"]["seconds"]
            for r in samples
            if "seconds" in r.get(name, {}) and "seconds" in r.get("bare", {})
        )
        rows.append(
            [
                name,
                f"{statistics.median(seconds):.1f} ({seconds[0]:.1f}-{seconds[-1]:.1f})",
                f"{1000 * statistics.median(seconds) / steps:.1f}",
                f"{max(g['peak_mb'] for g in good):.0f}",
                f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})" if ratios else "",
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="training steps per epoch; default: all")
    parser.add_argument("--keras-python", default=sys.executable, help="an interpreter that has keras and jax")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/imdb_epoch.json"))
    parser.add_argument("--run", choices=["prepare", "turns", *CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--arrays", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print("\n" + json.dumps(work(options.run, options.arrays, options.steps)))
        return

    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "train.npz"
        provenance = in_own_process("prepare", sys.executable, arrays, None)
        if "failed" in provenance:
            raise SystemExit(f"the data could not be prepared: {provenance['failed']}")
        with Console().status("taking turns"):
            in_turns = in_own_process("turns", sys.executable, arrays, options.steps)
        print(overhead(in_turns))
        samples: list[dict[str, dict[str, Any]]] = []
        rounds = [(r, name) for r in range(options.rounds) for name in CONTENDERS]
        for number, name in track(rounds, "measuring"):
            if number == len(samples):
                samples.append({})
            python = options.keras_python if name == "keras" else sys.executable
            samples[number][name] = in_own_process(name, python, arrays, options.steps)
    columns = ["contender", "seconds per epoch", "ms per step", "peak MB", "ratio to bare"]
    steps = options.steps or -(-provenance["rows"]["train"] // BATCH)
    rows = summarise(samples, steps)
    table = Table(*columns, title="One training epoch of imdb_bilstm: median (least-most)")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    import torch

    from seqnets.training.environment import environment

    record = {
        "environment": environment(torch.device("cpu"), seed=0) | {"command": "python -m benchmarks.imdb_epoch"},
        "data": {k: v for k, v in provenance.items() if k != "location"},  # of no use on another machine
        "rounds": options.rounds,
        "steps": steps,
        "overhead": overhead(in_turns),
        "turns": in_turns,
        "samples": samples,
        "table": [dict(zip(columns, row, strict=True)) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1, default=str) + "\n")
    print(f"every sample is in {options.output}")


if __name__ == "__main__":
    main()
