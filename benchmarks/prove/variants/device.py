"""Defines device functions that replace those of seqnets.kernels; see `pieces`.

Triton's interpreter cannot run their assembly.
"""

import triton
import triton.language as tl

from seqnets.kernels.triton.schedules.device import pack


@triton.jit
def tanh(x):
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def sigmoid(x):
    return 0.5 * tanh(0.5 * x) + 0.5


@triton.jit
def pack_gates(gates, keep, dtype: tl.constexpr, spec: tl.constexpr):
    packs = ()
    for p in tl.static_range(len(spec.widths)):
        kept = ()
        for k in tl.static_range(len(gates)):
            if spec.U == spec.BLOCK_U and not spec.ragged:  # padding rows are never stored
                kept = kept + (gates[k].to(dtype),)
            else:
                kept = kept + (tl.where(keep, gates[k], 0.0).to(dtype),)
        packs = packs + (pack(kept, spec.firsts[p], spec.widths[p]),)
    return packs


@triton.jit
def product(a, b, acc, spec: tl.constexpr):
    moved = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [a], dtype=a.dtype, is_pure=False, pack=2)
    return tl.dot(moved, b, acc, input_precision=spec.precision, out_dtype=acc.dtype)
