"""Layers on the CPU: the generated C++ kernels against `torch.nn`, and against the reference's loop for cells that torch lacks.

    python -m benchmarks.cpu_layers                       everything, in a few minutes
    python -m benchmarks.cpu_layers --cells gru --modes train --seconds 5
    python -m benchmarks.cpu_layers --memory              the peak memory of training instead, on Linux

The competitors take turns in one process, so that a drift of the machine meets both. A turn is as many calls as take a twentieth
of the seconds; what is told is the median over turns of the ratio of neighbouring times, with its 20th and 80th percentile. A
training step is forward and backward, with the gradient of the input; inference is under `torch.no_grad`. GFLOP/s are those of the
products that a layer cannot do without, 2 T B G H (I + H) forward and twice as many backward. Run it on an idle machine.

Memory is by how much the resident set of a process rises, at its peak, from before the first of five training steps: what the
step keeps and works with, and what allocators hold on to. Each layer has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

import seqnets
from seqnets.kernels.cpp.compiler import compiler_version, cpu_name
from seqnets.kernels.planning.timing import time_on_cpu
from seqnets.table import print_table

Case = TypeVar("Case")

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
    theirs, ours = (make(cell, own, I, H) for own in (False, True))
    ours.load_state_dict(theirs.state_dict())
    x, d_y = torch.randn(T, B, I, requires_grad=mode == "train"), torch.randn(T, B, H)

    def run(layer: nn.Module) -> None:
        if mode == "train":
            train(layer, x, d_y)
        else:
            with torch.no_grad():
                layer(x)

    times = time_on_cpu({"theirs": partial(run, theirs), "ours": partial(run, ours)}, seconds)
    products = 2e-6 * T * B * ours.cell.gates * H * (I + H) * (3 if mode == "train" else 1)
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
        "our_gflops": products / statistics.median(times["ours"]),
    }


def make(cell: str, own: bool, I: int, H: int) -> Any:
    """Our layer, or the one that it is compared with."""
    torch.manual_seed(0)
    return seqnets.Recurrent(OWN[cell], I, H, backend="cpp") if own else CELLS[cell][1](I, H)


def train(layer: nn.Module, x: torch.Tensor, d_y: torch.Tensor) -> None:
    torch.autograd.grad(layer(x)[0], [x, *layer.parameters()], d_y)


def gflops_of_torch(size: int = 2048) -> float:
    """Of its product of square matrices, to compare with."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2e-6 * size**3 / statistics.median(time_on_cpu({"mm": lambda: a @ b}, 1.0)["mm"])


def rise(cell: str, own: bool, shape: tuple[int, int, int, int]) -> float:
    """MB, in this process. Linux tells the peak, and forgets the last one when told to."""
    T, B, I, H = shape
    layer = make(cell, own, I, H)
    train(layer, torch.randn(2, 1, I, requires_grad=True), torch.randn(2, 1, H))  # compiles, imports and the like
    x, d_y = torch.randn(T, B, I, requires_grad=True), torch.randn(T, B, H)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(5):
        train(layer, x, d_y)
    return resident("VmHWM") - before


def resident(which: str) -> float:
    """MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024 / 1e6


def in_own_process(cell: str, own: bool, shape: tuple[int, int, int, int]) -> float:
    """`rise`."""
    command = [sys.executable, "-m", "benchmarks.cpu_layers", "--rise", cell, str(int(own)), *map(str, shape)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return float(done.stdout)


def tell(cases: Iterable[Case]) -> Iterator[Case]:
    """Each, and on standard error which one it is."""
    every = list(cases)
    for number, case in enumerate(every, 1):
        print(f"\r{number}/{len(every)} {case}\033[K", end="", file=sys.stderr, flush=True)
        yield case
    print("\r\033[K", end="", file=sys.stderr)


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
    parser.add_argument("--memory", action="store_true", help="measure memory rather than times")
    parser.add_argument("--rise", nargs=6, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    torch.set_num_threads(options.threads)
    if options.rise:
        cell, own, *shape = options.rise
        print(rise(cell, own == "1", tuple(map(int, shape))))  # type: ignore[arg-type]
        return 0
    found = (
        measure_memory(options.cells)
        if options.memory
        else measure_times(options.cells, options.modes, options.seconds)
    )
    if options.output:
        options.output.write_text(json.dumps({"environment": environment(), **found}, indent=1) + "\n")
    return 0


def measure_times(cells: Sequence[str], modes: Sequence[str], seconds: float) -> dict[str, Any]:
    """And print them."""
    rows = [compare(*case, seconds) for case in tell((c, m, s) for c in cells for m in modes for s in SHAPES)]
    print_table(
        ["cell", "mode", "T, B, I, H", "against", "theirs ms", "ours ms", "ratio", "p20 - p80", "turns", "GFLOP/s"],
        [
            [
                r["cell"], r["mode"], ", ".join(map(str, r["shape"])), r["against"], f"{r['their_milliseconds']:.2f}",
                f"{r['our_milliseconds']:.2f}", f"{r['ratio']:.2f}", f"{r['ratio_p20']:.2f} - {r['ratio_p80']:.2f}", str(r["turns"]),
                f"{r['our_gflops']:.0f}",
            ]
            for r in rows
        ],
    )  # fmt: skip
    means = {}
    for cell, mode in product(cells, modes):
        ratios = [r["ratio"] for r in rows if (r["cell"], r["mode"]) == (cell, mode)]
        means[f"{cell} {mode}"] = math.exp(statistics.mean(map(math.log, ratios)))
    print("\ngeometric means: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()))
    gflops = gflops_of_torch()
    print(f"torch's product of matrices of 2048 x 2048: {gflops:.0f} GFLOP/s")
    return {"means": means, "torch_mm_gflops": gflops, "rows": rows}


def measure_memory(cells: Sequence[str]) -> dict[str, Any]:
    """And print it."""
    rows: list[dict[str, Any]] = []
    for cell, shape in tell(product(cells, SHAPES)):
        their_mb, our_mb = (in_own_process(cell, own, shape) for own in (False, True))
        rows.append({"cell": cell, "shape": shape, "against": CELLS[cell][0], "their_mb": their_mb, "our_mb": our_mb})
    print_table(
        ["cell", "T, B, I, H", "against", "theirs MB", "ours MB"],
        [
            [r["cell"], ", ".join(map(str, r["shape"])), r["against"], f"{r['their_mb']:.1f}", f"{r['our_mb']:.1f}"]
            for r in rows
        ],
    )
    return {"rows": rows}


if __name__ == "__main__":
    sys.exit(main())
