"""Runs torch's own fused LSTM, GRU and RNN: cuDNN on CUDA, oneDNN or native loops on the CPU. Standard cells only."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import _VF, Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqnets.backends.kernels import autocast
from seqnets.cells import Cell, gru, lstm, rnn_relu, rnn_tanh
from seqnets.conditions import graph_is_captured, in_functional_transform, is_exporting, why_own_rules
from seqnets.recurrence import Problem, Result, Weights, active_steps, autocast_dtype, count_heads

# At each call, cuDNN gathers weights that are not in one contiguous block. Ours never are: they are read at each
# forward, so that parametrized and replaced weights take effect. The copy is cheap compared with the call itself, and
# flatten_parameters() would not help.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

OPERATIONS: dict[Cell, Callable[..., Any]] = {
    lstm: _VF.lstm,
    gru: _VF.gru,
    rnn_tanh: _VF.rnn_tanh,
    rnn_relu: _VF.rnn_relu,
}


def why_not(problem: Problem) -> str | None:
    if problem.cell not in OPERATIONS:
        return f"torch has no fused operation for the cell {problem.cell.name!r}, only for {_names()}"
    tensors = problem.tensors()
    if own_rules := why_own_rules(tensors):
        return own_rules
    if (heads := count_heads(problem.state[0], problem.layers[0][0].weight_hh)) > 1:
        return f"torch has no block-diagonal recurrence, and this one has {heads} heads"
    if problem.x.shape[0] == 0 or problem.x.shape[1] == 0:
        return (
            f"torch's fused operations refuse empty input, and this has T={problem.x.shape[0]}, B={problem.x.shape[1]}"
        )
    if problem.all_states and len(problem.state) > 1:
        return f"torch's {problem.cell.name} returns the cell state of the last step only, not of all steps"
    if in_functional_transform(tensors):
        return "torch's fused operations have no rules for torch.func transforms (vmap, jvp, grad) and forward-mode AD"
    if problem.cell is lstm and _compiles_without_input_gradient(problem.x):
        return "compiled on the CPU, torch's LSTM fails where its input needs no gradient but its weights do"
    if problem.x.device.type == "cpu" and autocast_dtype(problem.x) is torch.float16:
        return "torch's fused operations do not run in float16 under autocast on the CPU"
    return None if problem.lengths is None else _why_not_pack(problem, problem.lengths)


def _why_not_pack(problem: Problem, lengths: Tensor) -> str | None:
    """Return why the batch cannot be packed, which needs the values of the lengths on the host, or None if it can."""
    if torch.compiler.is_compiling():
        return "it packs ragged batches by the values of the lengths, which torch.compile and torch.export cannot trace"
    if problem.x.is_meta or lengths.is_meta:
        return "it packs ragged batches by the values of the lengths, and tensors on meta have none"
    if copies_lengths_to_host(problem) and graph_is_captured():
        return "it needs the lengths on the host, and nothing can be copied there while a CUDA graph is captured"
    return None


def _compiles_without_input_gradient(x: Tensor) -> bool:
    compiling = torch.compiler.is_compiling() and not is_exporting()
    return compiling and x.device.type == "cpu" and torch.is_grad_enabled() and not x.requires_grad


def note(problem: Problem) -> str | None:
    if copies_lengths_to_host(problem):
        return (
            "packing for torch copies the lengths to the host, which waits for the GPU; "
            "pass them on the CPU to avoid it"
        )
    return None


def copies_lengths_to_host(problem: Problem) -> bool:
    return problem.lengths is not None and problem.lengths.is_cuda


def run(problem: Problem) -> Result:
    # autocast has no rule for some of these operations, so the dtype of results would depend on the backend
    problem = autocast(problem)
    cell, x, lengths = problem.cell, problem.x, problem.lengths
    first = problem.layers[0][0]
    weights = [tensor for layer in problem.layers for direction in layer for tensor in _flat(direction)]
    # `train`, the fourth option, makes torch keep what backward needs. torch.nn sets it only in training mode, which
    # breaks backward in eval().
    options = (
        first.bias_ih is not None,
        len(problem.layers),
        problem.dropout,
        problem.dropout > 0 or torch.is_grad_enabled(),
        len(problem.layers[0]) == 2,
    )
    if lengths is None:
        y, *final = OPERATIONS[cell](x, _torch_state(problem.state), weights, *options, False)
    else:
        # a row of length 0 cannot be packed: run one step of it, and correct the results below
        packed = pack_padded_sequence(x, lengths.cpu().clamp(min=1), enforce_sorted=False)
        order, restore = packed.sorted_indices, packed.unsorted_indices
        assert order is not None and restore is not None  # enforce_sorted=False sorts
        state = _torch_state(tuple(s.index_select(1, order) for s in problem.state))
        data, *final = OPERATIONS[cell](packed.data, packed.batch_sizes, state, weights, *options)
        y, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes, order, restore), total_length=x.shape[0])
        ran = (lengths.to(x.device) > 0)[:, None]
        y = torch.where(ran, y, 0.0)
        final = [
            torch.where(ran, f.index_select(1, restore), s.to(f.dtype))
            for f, s in zip(final, problem.state, strict=True)
        ]
    return Result(y, tuple(final), _all_states(problem, y, final[0]) if problem.all_states else None)


def _torch_state(state: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return state if len(state) > 1 else state[0]


def _flat(weights: Weights) -> list[Tensor]:
    """Return the weights in torch's order, with zeros for a missing recurrent bias."""
    flat = [weights.weight_ih, weights.weight_hh]
    if weights.bias_ih is not None:
        bias_hh = torch.zeros_like(weights.bias_ih) if weights.bias_hh is None else weights.bias_hh
        flat += [weights.bias_ih, bias_hh]
    return flat if weights.weight_hr is None else [*flat, weights.weight_hr]


def _all_states(problem: Problem, y: Tensor, final: Tensor) -> tuple[Tensor]:
    """Return the only state at every step, ``(T, B, D·H)``.

    It equals the output, except in rows that are not running: finished ones, and those that the reverse direction has
    not reached yet.
    """
    if problem.lengths is None:
        return (y,)
    active = active_steps(problem.lengths, y.shape[0], y.device)
    resting = [final[-2], problem.state[0][-1]] if len(problem.layers[0]) == 2 else [final[-1]]
    return (torch.where(active, y, torch.cat(resting, dim=-1)),)


def _names() -> str:
    return ", ".join(cell.name for cell in OPERATIONS)
