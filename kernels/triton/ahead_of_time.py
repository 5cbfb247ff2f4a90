"""Compiles launches for a GPU that need not be in this machine."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from seqnets.kernels.triton.launch import Launch
from seqnets.kernels.triton.planning.arch import Arch


def target_of(arch: Arch) -> GPUTarget:
    return GPUTarget(arch.backend, arch.version, arch.warp_size)


def compile_ahead(launch: Launch, target: GPUTarget) -> Any:
    """Compile the kernel of a launch, whose tensors may be on ``meta``, and return Triton's compiled kernel.

    The launcher on that GPU then finds it in Triton's cache.

    Raises:
        RuntimeError: Triton runs as an interpreter, which compiles nothing.
    """
    return _compile(ASTSource, launch, target)


def is_compiled(launch: Launch, target: GPUTarget) -> bool:
    """Tell whether Triton's cache has the kernel, so that neither `compile_ahead` nor the launcher would compile it.

    Raises:
        RuntimeError: Triton runs as an interpreter, which compiles nothing.
    """
    try:
        _compile(_NeverCompiled, launch, target)
    except _NotCached:
        return False
    return True


class _NotCached(Exception):
    """Raised when a kernel is not in Triton's cache."""


class _NeverCompiled(ASTSource):
    """Has the cache key of an `ASTSource`, but raises when it is to be compiled, which happens only on a cache miss."""

    def make_ir(self, *arguments: Any, **more: Any) -> Any:
        raise _NotCached


def _compile(source: type[ASTSource], launch: Launch, target: GPUTarget) -> Any:
    if triton.knobs.runtime.interpret:
        raise RuntimeError("with TRITON_INTERPRET=1 Triton compiles nothing; unset it to look at compiled kernels")
    # Bind the arguments as the launcher does: the result is part of the cache key, and differs between Triton versions
    kernel, backend = launch.kernel, make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    given = {**launch.constants, **launch.options}
    bound, specialization, rest = bind(*launch.arguments, **given)
    options, signature, constants, attributes = kernel._pack_args(backend, given, bound, specialization, rest)
    return triton.compile(source(kernel, signature, constants, attributes), target=target, options=options.__dict__)
