"""Samples the arrays of a layer's case from a seed, and judges outputs: a wrong result gets no time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

import seqnets
from benchmarks.cases import LayerCase
from benchmarks.contenders import Arrays
from seqnets.cells import get_cell
from seqnets.kernels.arguments import DTYPES
from seqnets.tolerance import Error, verdict


def make_arrays(case: LayerCase, seed: int) -> Arrays:
    """Sample the weights and inputs of a case, as float32 arrays rounded to the case's dtype.

    Weights and biases have their names in `torch.nn` and, as there, are uniform in ±1/√H. A cell's own parameters are 1
    plus such numbers. The input ``x`` (T, B, I), and for training the cotangent ``d_y`` (T, B, D·H), are normal. For a
    step, ``x`` is (B, I), and the states (B, H) come by name, as tanh of normal numbers. In ragged cases, ``lengths``
    are integers from T/4 to T, at least one of them T.
    """
    generator = torch.Generator().manual_seed(seed)
    cell = get_cell(case.cell)
    T, B, I, H, G = case.T, case.B, case.I, case.H, cell.gates

    def uniform(*shape: int) -> Tensor:
        return (2 * torch.rand(shape, generator=generator) - 1) / H**0.5

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    arrays: dict[str, Tensor] = {}
    for suffix, width in case.sizes():
        arrays |= {
            f"weight_ih_{suffix}": uniform(G * H, width),
            f"weight_hh_{suffix}": uniform(G * H, H),
            f"bias_ih_{suffix}": uniform(G * H),
            f"bias_hh_{suffix}": uniform(G * H),
        }
        arrays |= {f"{name}_{suffix}": 1 + uniform(H) for name in cell.params}
    if case.mode == "step":
        arrays |= {"x": normal(B, I)} | {name: normal(B, H).tanh() for name in cell.states}
    else:
        arrays["x"] = normal(T, B, I)
    if case.mode == "train":
        arrays["d_y"] = normal(T, B, case.directions * H)
    dtype = DTYPES[case.dtype]
    drawn = {name: value.to(dtype).float().numpy() for name, value in arrays.items()}
    if case.ragged:
        lengths = torch.randint(max(1, T // 4), T + 1, (B,), generator=generator)
        lengths[0] = T
        drawn["lengths"] = lengths.numpy()
    return drawn


class Oracle:
    """Holds what a case gives in float64, and what PyTorch gives in the dtype of the case."""

    def __init__(self, case: LayerCase, arrays: Arrays, device: str, precision: str) -> None:
        self.case = case
        self.exact = _reference(case, arrays, device, torch.float64)
        self.plain = _reference(case, arrays, device, DTYPES[case.dtype])
        # added to what the policy allows: the rounding of a plain sum over time and batch, so that no library is
        # refused for the order of its sums
        self.long_sums = 0.0 if case.dtype == "fp64" else torch.finfo(torch.float32).eps * (case.T * case.B) ** 0.5
        self.tf32 = device == "cuda" and precision == "tf32" and case.dtype == "fp32"

    def worst(self, outputs: Arrays) -> Error | str:
        """Return the error that is the largest relative to what the tolerance policy allows.

        Returns a sentence instead where an output is missing or has the wrong shape.
        """
        errors = []
        for name, exact in self.exact.items():
            if name not in outputs:
                return f"it gave no {name}"
            given = torch.from_numpy(np.ascontiguousarray(outputs[name]))
            if given.shape != exact.shape:
                return f"its {name} is {tuple(given.shape)}, not {tuple(exact.shape)}"
            error, allowed = verdict(given.to(DTYPES[self.case.dtype]), self.plain[name], exact, self.tf32)
            if name.startswith(("d_weight", "d_bias")):
                allowed += self.long_sums * exact.abs().max().item()
            errors.append(Error(name, error, allowed))
        return max(errors, key=lambda error: error.ratio)


def _reference(case: LayerCase, arrays: Arrays, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {n: torch.from_numpy(a).to(device, dtype) for n, a in arrays.items() if n != "lengths"}
    layer = seqnets.Recurrent(
        case.cell, case.I, case.H, case.layers, bidirectional=case.bidirectional, dtype=dtype, device=device,
        backend="reference",
    )  # fmt: skip
    layer.load_state_dict({name: tensors[name] for name in layer.state_dict()})
    x = tensors["x"].requires_grad_()
    options: dict[str, Any] = {}
    if "lengths" in arrays:
        options["lengths"] = torch.from_numpy(arrays["lengths"]).to(device)
    with torch.set_grad_enabled(case.mode == "train"):
        if case.mode == "step":
            results = {"y": layer.step(x, [tensors[name][None] for name in layer.cell.states])[0]}
        else:
            results = {"y": layer(x, **options)[0]}
    if case.mode == "train":
        named = {n: p for n, p in layer.named_parameters() if not n.startswith("bias_hh")}
        found = torch.autograd.grad(results["y"], [x, *named.values()], tensors["d_y"])
        results |= {f"d_{name}": grad for name, grad in zip(["x", *named], found, strict=True)}
    return {name: value.detach().cpu() for name, value in results.items()}
