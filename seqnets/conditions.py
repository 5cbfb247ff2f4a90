"""Detects the modes of PyTorch under which a call runs, and tensors that override operations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

from seqnets.compilation import constant


def graph_is_captured() -> bool:
    """Tell whether a CUDA graph is being captured."""
    compiling = torch.compiler.is_compiling()  # is_current_stream_capturing() cannot be traced
    return not compiling and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


_is_batched_by_old_vmap = torch._C._functorch.is_legacy_batchedtensor


def in_functional_transform(tensors: Iterable[Tensor]) -> bool:
    """Tell whether torch.func or forward-mode AD transforms the call, or vmap batches one of the tensors.

    ``is_grads_batched=True`` batches cotangents with the legacy vmap, which is not a transform of torch.func.
    """
    if torch.compiler.is_compiling():  # the stack cannot be traced, but grad and jvp can
        return any(torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors)
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return True
    return any(map(_is_batched_by_old_vmap, tensors))


# Called outside of the trace: in torch 2.11 Dynamo replaces torch.compiler.is_exporting() by True in every compilation.
@constant
def is_exporting() -> bool:
    """Tell whether torch.export is running, in strict mode or not."""
    return torch.compiler.is_exporting()


PLAIN = frozenset((Tensor, torch.nn.Parameter))
_DEFAULT_RULES = (Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl)  # type: ignore[attr-defined]


def why_own_rules(tensors: Iterable[Tensor]) -> str | None:
    """Return why a fused operation cannot take these tensors, as a clause, or None if it can.

    A tensor that overrides ``__torch_function__`` handles each operation itself. A fused one would hide them from it.
    """
    if torch.compiler.is_compiling():  # Dynamo traces through the overrides
        return None
    for tensor in tensors:
        if (kind := type(tensor)) not in PLAIN:
            rule = kind.__torch_function__
            if getattr(rule, "__func__", rule) not in _DEFAULT_RULES:
                return f"a tensor of type {kind.__name__} handles each operation itself (__torch_function__)"
    return None
