"""Tries the persistent prototype: whether it is right, gives the same bits each time, and how long a step takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.cuda import gpu_seconds
from benchmarks.prove import work
from benchmarks.prove.workers import Task
from seqnets.kernels.report.compilations import Compilation, watch_compilations
from seqnets.kernels.triton.layout import pack_rows, pack_weight
from seqnets.tolerance import Error, verdict

REPEATS = 5
CALLS = 10


class Case(NamedTuple):
    """Describes a layer and the tile of a program. T: time steps, B: batch, H: hidden size.

    A program computes `rows` of the batch and `units`, and splits its product into `parts`.
    """

    wait: str  # "counter" or "data"
    T: int
    B: int
    H: int
    dtype: str
    rows: int
    units: int
    parts: int
    warps: int

    def __str__(self) -> str:
        tile = f"{self.rows}x{self.units} in {self.parts}, {self.warps} warps"
        return f"persistent lstm {self.dtype} T={self.T} B={self.B} H={self.H} waiting by {self.wait} ({tile})"


CASES = [
    Case("counter", 256, 32, 512, "bf16", 16, 8, 2, 4),
    Case("data", 256, 32, 512, "bf16", 16, 8, 2, 4),
    Case("counter", 256, 64, 512, "bf16", 16, 16, 2, 4),
    Case("data", 256, 64, 512, "bf16", 16, 16, 2, 4),
    Case("data", 256, 64, 512, "bf16", 16, 16, 1, 8),
    Case("counter", 256, 64, 256, "bf16", 16, 8, 1, 4),
    Case("data", 256, 64, 256, "bf16", 16, 8, 1, 4),
    Case("counter", 256, 16, 1024, "bf16", 16, 8, 2, 4),
    Case("data", 256, 16, 1024, "bf16", 16, 8, 2, 4),
    Case("counter", 256, 32, 512, "tf32", 16, 8, 2, 4),
]
REHEARSED = [Case("counter", 3, 4, 64, "bf16", 16, 16, 1, 4), Case("data", 3, 4, 64, "bf16", 16, 16, 1, 4)]


def tasks(rehearsed: bool) -> list[Task]:
    return [Task(str(case), run, (case,), 60) for case in (REHEARSED if rehearsed else CASES)]


def compilations(rehearsed: bool) -> list[Task]:
    return [Task(f"compile {case}", compile_case, (case,), 90) for case in (REHEARSED if rehearsed else CASES)]


def compile_case(case: Case) -> dict[str, Any]:
    """Compile what `run` launches, without launching it.

    Beside other processes, programs that wait for each other would wait long.
    """
    compiled: list[Compilation] = []
    problem = Problem(case._replace(T=2), launched=False)
    with watch_compilations(compiled):
        for call in problem.passes.values():
            call()
    return work.compilations(compiled)


def run(case: Case) -> dict[str, Any]:
    work.set_precision(case.dtype)
    processors = torch.cuda.get_device_properties(0).multi_processor_count
    programs = case.H // case.units * -(-case.B // case.rows)
    if programs > processors:
        return {
            "not_served": f"its {programs} programs have to run at once, and the GPU has {processors} multiprocessors"
        }
    problem = Problem(case)
    truth, plain = problem.by_torch(torch.float64), problem.by_torch(problem.dtype)
    found: dict[str, Any] = {}
    compiled: list[Compilation] = []
    with watch_compilations(compiled):
        for name, call in problem.passes.items():
            result = "y" if name == "forward" else "d_x"
            found[name] = _pass(result, call, getattr(problem, result), truth[result], plain[result], case)
    # a program that waits by data and gives up leaves nan
    gave_up = bool(problem.gave_up.item()) if case.wait == "counter" else None
    for told in found.values() if gave_up else ():
        told["agrees"] = False
    return found | {"gave_up": gave_up} | work.compilations(compiled)


def _pass(
    name: str, call: Callable[[], None], actual: Tensor, truth: Tensor, plain: Tensor, case: Case
) -> dict[str, Any]:
    """Judge a pass, compare its bits over repeated runs, and time it with the small launches that prepare it."""

    def anew() -> Tensor:
        actual.fill_(float("nan"))  # programs exchange these values: an old one would hide a missing wait
        call()
        torch.cuda.synchronize()
        return actual.clone()

    first = anew()
    told = work.judged([Error(name, *verdict(first, plain, truth, case.dtype == "tf32"))])
    same = all(torch.equal(anew(), first) for _ in range(REPEATS))
    seconds = gpu_seconds(call, CALLS, work.here.device) / CALLS
    if work.here.judged:
        told["agrees"] = told["agrees"] and same
    return told | {"same_bits": same if work.here.judged else None, "gpu_seconds": [seconds]}


class Problem:
    """Holds inputs, outputs filled with nan, and the launches.

    Args:
        case: The layer and the tile of a program.
        together: Whether programs wait for each other within one launch. Otherwise a launch runs one time step, as
            Triton's interpreter needs it.
        launched: Whether kernels are launched, or only compiled.
    """

    def __init__(self, case: Case, together: bool = True, launched: bool = True) -> None:
        from benchmarks.prove.variants import persistent

        self.case, self.kernels, self.dtype = case, persistent, work.DTYPES[case.dtype]
        T, B, H = case.T, case.B, case.H
        torch.manual_seed(0)
        x, self.d_y = self._random(T, B, H), self._random(T, B, H)
        self.h, self.c = self._random(B, H), self._random(B, H)
        weights = torch.nn.LSTM(H, H).to(work.here.device, self.dtype).state_dict()
        gates = x @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        # gate by gate -> gates of a unit side by side
        self.gates = gates.unflatten(-1, (4, H)).movedim(-2, -1).flatten(-2).contiguous()
        self.weight = pack_weight(weights["weight_hh_l0"], 4, 1)[0].contiguous()
        self.bias = pack_rows(weights["bias_hh_l0"], 4, 1)[0].contiguous()
        self.c_out, self.h_out = self.c.to(torch.float32, copy=True), torch.empty_like(self.h)
        new = self.gates.new_full
        # 0xffff is a nan that no arithmetic returns
        self.every = torch.full((T + 1, B, H), -1, dtype=torch.int16, device=x.device)
        self.states, self.cells = new((T, B, H), float("nan")), new((T, B, H), float("nan"))
        self.r, self.d_x = new(self.gates.shape, float("nan")), new(self.gates.shape, float("nan"))
        self.exchange = new((2, B, H), float("nan"))
        self.counters = torch.zeros(64 * 32, dtype=torch.int32, device=x.device)
        self.gave_up = torch.zeros(1, dtype=torch.int32, device=x.device)
        self.spans = [(0, T)] if together else [(t, t + 1) for t in range(T)]
        self.options = {
            "U": H, "BB": case.rows, "BU": case.units, "SPLIT": case.parts,
            "num_warps": case.warps, "num_stages": 1, "launch_cooperative_grid": True, "maxnreg": 255,
        }  # fmt: skip
        self.waiting = {"BARRIER": together, "PRECISION": "tf32" if case.dtype == "tf32" else "ieee"}
        self.grid, self.launched = (H // case.units, -(-B // case.rows)), launched

    @property
    def passes(self) -> dict[str, Callable[[], None]]:
        """Return the passes that the kernels have. Waiting by data has no backward pass yet."""
        return {"forward": self.forward} | ({"backward": self.backward} if self.case.wait == "counter" else {})

    def _run(self, kernel: Any, *arguments: Any, **options: Any) -> None:
        if self.launched:
            kernel[self.grid](*arguments, **options, **self.options)
        else:
            compiled = kernel.warmup(*arguments, grid=self.grid, **options, **self.options)
            if self.case.wait == "data" and "ld.global.cg.v4" not in compiled.asm["ptx"]:
                # the assembly reads eight numbers from the address of the first
                raise RuntimeError("the compiler has not given each thread eight numbers that lie side by side")

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape).to(work.here.device, self.dtype)

    @property
    def y(self) -> Tensor:
        return self.every[1:].view(self.dtype) if self.case.wait == "data" else self.states

    def forward(self) -> None:
        T, B = self.case.T, self.case.B
        self.c_out.copy_(self.c)
        if self.case.wait == "data":
            self.every[1:].fill_(-1)
            self.every[0].copy_(self.h.view(torch.int16))
            self._run(
                self.kernels.forward_ll, self.gates, self.weight, self.bias, self.h, self.c_out, self.every, self.cells,
                self.r, T, B, KEEP=True,
            )  # fmt: skip
            return
        self.counters.zero_()
        self.exchange[1].copy_(self.h)
        for first, last in self.spans:
            self._run(
                self.kernels.forward, self.gates, self.weight, self.bias, self.h_out, self.c_out, self.states,
                self.cells, self.r, self.exchange, self.counters, self.gave_up, first, last, B, KEEP=True,
                **self.waiting,
            )  # fmt: skip

    def backward(self) -> None:
        T, B = self.case.T, self.case.B
        self.counters.zero_()
        d_h, d_c = torch.zeros_like(self.c_out), torch.zeros_like(self.c_out)
        for first, last in reversed(self.spans):
            self._run(
                self.kernels.backward, self.gates, self.r, self.weight, self.c, self.cells, self.d_y, d_h, d_c,
                self.d_x, self.counters, self.gave_up, first, last, T, B, PARTS=4, **self.waiting,
            )  # fmt: skip

    def by_torch(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the output and the gradients of the input projections, computed step by step in `dtype`."""
        gates = self.gates.to(dtype).requires_grad_()
        weight, bias, h, c = (tensor.to(dtype) for tensor in (self.weight, self.bias, self.h, self.c))
        outputs = []
        for t in range(self.case.T):
            i, f, g, o = (gates[t] + h @ weight + bias).unflatten(-1, (-1, 4)).unbind(-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        y = torch.stack(outputs)
        (d_x,) = torch.autograd.grad(y, gates, self.d_y.to(dtype))
        return {"y": y.detach(), "d_x": d_x}
