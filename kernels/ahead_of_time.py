"""Compiles a launch for a GPU that need not be there."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seqnets.kernels.launch import Launch

POINTERS = {
    torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64",
}  # fmt: skip


def compile_ahead(launch: Launch, target: GPUTarget) -> Any:
    """The compiled kernel of a launch, whose tensors may be on ``meta``; as the launcher would make it on that GPU.

    Raises:
        RuntimeError: Triton runs as an interpreter, which compiles nothing.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("with TRITON_INTERPRET=1 Triton compiles nothing; unset it to look at compiled kernels")
    given = [*launch.arguments, *(launch.constants[name] for name in launch.kernel.arg_names[len(launch.arguments) :])]
    constants: dict[tuple[int, ...], Any] = {}
    aligned: dict[tuple[int, ...], Any] = {}

    def describe(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, Tensor):
            aligned[path] = [["tt.divisibility", 16]]  # as allocators align
            return POINTERS[value.dtype]
        if type(value) is tuple:
            return tuple(describe(member, (*path, k)) for k, member in enumerate(value))
        if isinstance(value, int):
            return "i32"
        constants[path] = value
        if isinstance(value, tuple):  # the launcher notes the strings in it, which its cache's key has then
            aligned.update({(*path, k): [] for k, member in enumerate(value) if isinstance(member, str)})
        return "constexpr"

    signature = {
        name: describe(value, (k,)) for k, (name, value) in enumerate(zip(launch.kernel.arg_names, given, strict=True))
    }
    return triton.compile(
        ASTSource(launch.kernel, signature, constants, aligned), target=target, options=launch.options
    )
