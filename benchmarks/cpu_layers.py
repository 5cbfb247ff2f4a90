"""Layers on the CPU: the generated C++ kernels against `torch.nn`, and against the reference's loop for cells that torch lacks.

    python -m benchmarks.cpu_layers                       everything, in a few minutes
    python -m benchmarks.cpu_layers --cells gru --modes train --seconds 5

The competitors take turns in one process, so that a drift of the machine meets both. A turn is as many calls as take a twentieth
of the seconds; what is told is the median over turns of the ratio of neighbouring times, with its 20th and 80th percentile. A
training step is forward and backward, with the gradient of the input; inference is under `torch.no_grad`. Run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import seqnets
from seqnets.kernels.cpp.compiler import compiler_version, cpu_name
from seqnets.kernels.planning.timing import time_on_cpu
from seqnets.table import print_table

SHAPES = [
    (200, 32, 128, 64), (28, 32, 28, 128), (28, 128, 28, 128), (25, 30, 64, 70), (128, 64, 256, 256), (64, 32, 512, 512),
    (512, 1, 64, 64),
]  # fmt: skip


@seqnets.cell(gates=4, states=("h", "c"), params={"gain": 1.0})
def layernorm_lstm(x, r, state, params):
    """Of what layer-normalised LSTMs have, the norm of the cell state (Ba, Kiros and Hinton, arXiv:1607.06450)."""
    i, f, g, o = (a + b for a, b in zip(x, r, strict=True))
    c = f.sigmoid() * state.c + i.sigmoid() * g.tanh()
    centred = c - c.mean(-1, keepdim=True)
    normed = centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    return o.sigmoid() * (params.gain * normed).tanh(), c


@seqnets.cell(gates=("f", "c"), states=("h",))
def light(x, r, state):
    """The cell of the README."""
    forget = (x.f + r.f).sigmoid()
    return forget * state.h + (1 - forget) * (x.c + r.c).tanh()


CELLS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "lstm": ("torch.nn.LSTM", nn.LSTM),
    "gru": ("torch.nn.GRU", nn.GRU),
    "layernorm_lstm": ("reference", lambda I, H: seqnets.Recurrent(layernorm_lstm, I, H, backend="reference")),
    "light": ("reference", lambda I, H: seqnets.Recurrent(light, I, H, backend="reference")),
}
OWN: dict[str, seqnets.cells.Cell | str] = {
    "lstm": "lstm",
    "gru": "gru",
    "layernorm_lstm": layernorm_lstm,
    "light": light,
}


def compare(cell: str, mode: str, shape: tuple[int, int, int, int], seconds: float) -> dict[str, Any]:
    """Times of both and their ratio, over turns that take that long together."""
    T, B, I, H = shape
    torch.manual_seed(0)
    theirs = CELLS[cell][1](I, H)
    ours = seqnets.Recurrent(OWN[cell], I, H, backend="cpp")
    ours.load_state_dict(theirs.state_dict())
    x, d_y = torch.randn(T, B, I, requires_grad=mode == "train"), torch.randn(T, B, H)

    def run(layer: nn.Module) -> None:
        if mode == "train":
            torch.autograd.grad(layer(x)[0], [x, *layer.parameters()], d_y)
        else:
            with torch.no_grad():
                layer(x)

    times = time_on_cpu({"theirs": partial(run, theirs), "ours": partial(run, ours)}, seconds)
    ratios = [a / b for a, b in zip(times["theirs"], times["ours"], strict=True)]
    low, *_, high = statistics.quantiles(ratios, n=5)
    return {
        "cell": cell,
        "mode": mode,
        "shape": shape,
        "against": CELLS[cell][0],
        "their_milliseconds": statistics.median(times["theirs"]),
        "our_milliseconds": statistics.median(times["ours"]),
        "ratio": statistics.median(ratios),
        "ratio_p20": low,
        "ratio_p80": high,
        "turns": len(ratios),
    }


def environment() -> dict[str, Any]:
    return {
        "seqnets": seqnets.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "compiler": compiler_version(),
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cpu_layers", description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--modes", nargs="+", choices=("train", "infer"), default=["train", "infer"])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row (default: 2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    torch.set_num_threads(options.threads)
    rows = []
    cases = [(c, m, s) for c in options.cells for m in options.modes for s in SHAPES]
    for number, case in enumerate(cases, 1):
        print(f"\r{number}/{len(cases)} {case[0]} {case[1]} {case[2]}\033[K", end="", file=sys.stderr, flush=True)
        rows.append(compare(*case, options.seconds))
    print("\r\033[K", end="", file=sys.stderr)
    header = ["cell", "mode", "T, B, I, H", "against", "theirs ms", "ours ms", "ratio", "p20 - p80", "turns"]
    print_table(
        header,
        [
            [
                r["cell"], r["mode"], ", ".join(map(str, r["shape"])), r["against"], f"{r['their_milliseconds']:.2f}",
                f"{r['our_milliseconds']:.2f}", f"{r['ratio']:.2f}", f"{r['ratio_p20']:.2f} - {r['ratio_p80']:.2f}", str(r["turns"]),
            ]
            for r in rows
        ],
    )  # fmt: skip
    means = {}
    for cell in options.cells:
        for mode in options.modes:
            ratios = [r["ratio"] for r in rows if (r["cell"], r["mode"]) == (cell, mode)]
            means[f"{cell} {mode}"] = math.exp(statistics.mean(map(math.log, ratios)))
    print("\ngeometric means: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()))
    if options.output:
        options.output.write_text(json.dumps({"environment": environment(), "means": means, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
