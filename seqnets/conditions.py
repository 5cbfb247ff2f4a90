"""Tells under which modes of PyTorch a call runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from seqnets.compilation import constant


def graph_is_captured() -> bool:
    """Tell whether a CUDA graph is being captured."""
    compiling = torch.compiler.is_compiling()  # is_current_stream_capturing() cannot be traced
    return not compiling and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def in_functional_transform(*tensors: Tensor) -> bool:
    """Tell whether torch.func or forward-mode AD transforms the call, or vmap batches one of the tensors.

    ``is_grads_batched=True`` batches cotangents by the older vmap, which is no transform of torch.func.
    """
    if torch.compiler.is_compiling():  # the stack cannot be traced; grad and jvp are traced through
        return any(torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors)
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return True
    return any(torch._C._functorch.is_legacy_batchedtensor(tensor) for tensor in tensors)


@constant  # asked outside of the trace: in torch 2.11 Dynamo replaces torch.compiler.is_exporting() by True in every compilation
def is_exporting() -> bool:
    """Tell whether torch.export runs, strict or not."""
    return torch.compiler.is_exporting()
