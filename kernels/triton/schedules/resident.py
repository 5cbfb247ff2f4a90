"""Implements the resident schedule: one program owns a tile of the batch, one direction and one head for all steps.

The recurrent weight stays in shared memory and the state in registers. Programs exchange nothing with each other.
"""

import triton
import triton.language as tl

from seqnets.kernels.triton.schedules.device import (
    batch_rows,
    convert_layout,
    end_of,
    load_bias,
    load_each,
    load_length,
    product,
    store_each,
    units_from,
)
from seqnets.kernels.triton.schedules.step import backward_step, forward_step, read_backward, read_forward

# No argument of a kernel may be called `params`: it would clash with a variable of Triton's launcher.


@triton.jit
def load_weight(ptr, transposed: tl.constexpr, spec: tl.constexpr):
    """Load the recurrent weight ``(U, Q)`` of one head as one tile per pack: ``(U, U·width)``, or transposed."""
    packs = ()
    units = tl.arange(0, spec.BLOCK_U)
    for p in tl.static_range(len(spec.widths)):
        columns = tl.arange(0, spec.BLOCK_U * spec.widths[p])
        k = units[None, :] if transposed else units[:, None]
        q = columns[:, None] if transposed else columns[None, :]
        mask = (k < spec.U) & (q < spec.U * spec.widths[p])
        packs = packs + (tl.load(ptr + k * (spec.G * spec.U) + spec.U * spec.firsts[p] + q, mask=mask, other=0.0),)
    return packs


@triton.jit(do_not_specialize=["T", "B"])
def forward(
    x_ptr, weight_ptr, bias_ptr, initial, vectors, masks, lengths_ptr, states, finals, r_ptr, T, B,
    STEP: tl.constexpr, spec: tl.constexpr,
):  # fmt: skip
    """Run all time steps of a forward pass.

    The weight is ``(D, N, U, Q)``, vectors (the cell's parameters) are ``(D, N, U)``, the bias is ``(D, N, Q)`` or
    None, and lengths are ``(B,)`` or None. See `step` for the rest.
    """
    dn = tl.program_id(1).to(tl.int64)
    rows = batch_rows(spec)
    units = units_from(0, spec)
    inside = (rows < B) & (units < spec.U)
    length = load_length(lengths_ptr, rows, T, B, spec)
    weight = load_weight(weight_ptr + dn * (spec.U * spec.G * spec.U), False, spec)
    bias = load_bias(bias_ptr, dn, 0, spec)
    own = load_each(vectors, dn * spec.U, units, units < spec.U, spec)
    ends = end_of(rows, dn, B, spec)
    state = load_each(initial, ends, units, inside, spec)
    read = read_forward(x_ptr, masks, 0, length, T, B, dn, rows, 0, spec)
    for s in range(T):
        # the next step's reads depend on nothing that this step computes, so they overlap with it
        coming = read_forward(x_ptr, masks, s + 1, length, T, B, dn, rows, 0, spec)
        h = tl.where(units < spec.U, state[0], 0.0).to(weight_ptr.dtype.element_ty)
        accs = ()
        for p in tl.static_range(len(spec.widths)):
            accs = accs + (product(h, weight[p], bias[p], spec),)
        state = forward_step(read, accs, state, own, states, r_ptr, s, length, T, B, dn, rows, 0, STEP, spec)
        read = coming
    store_each(finals, state, ends, units, inside, spec)


@triton.jit(do_not_specialize=["T", "B"])
def backward(
    x_ptr, r_ptr, weight_ptr, initial, vectors, masks, lengths_ptr, states, d_states, d_finals, d_x_ptr, d_r_ptr,
    d_initial, d_params, T, B, GRADIENT: tl.constexpr, spec: tl.constexpr,
):  # fmt: skip
    """Run all time steps of a backward pass, the last first; d_params are ``(D, B, N, U)``, per row of the batch."""
    dn = tl.program_id(1).to(tl.int64)
    rows = batch_rows(spec)
    units = units_from(0, spec)
    inside = (rows < B) & (units < spec.U)
    length = load_length(lengths_ptr, rows, T, B, spec)
    weight = load_weight(weight_ptr + dn * (spec.U * spec.G * spec.U), True, spec)
    own = load_each(vectors, dn * spec.U, units, units < spec.U, spec)
    ends = end_of(rows, dn, B, spec)
    carried = load_each(d_finals, ends, units, inside, spec)
    summed = ()
    for k in tl.static_range(len(vectors)):
        summed = summed + (tl.full([spec.BLOCK_B, spec.BLOCK_U], 0.0, spec.carry),)
    read = read_backward(x_ptr, r_ptr, masks, initial, states, d_states, T - 1, length, T, B, dn, rows, 0, spec)
    for i in range(T):
        s = T - 1 - i
        coming = read_backward(x_ptr, r_ptr, masks, initial, states, d_states, s - 1, length, T, B, dn, rows, 0, spec)
        carried, d_r, summed = backward_step(
            read, carried, summed, own, d_x_ptr, d_r_ptr, s, length, T, B, dn, rows, 0, GRADIENT, spec
        )
        d_h = tl.full([spec.BLOCK_B, spec.BLOCK_U], 0.0, spec.carry)
        for p in tl.static_range(len(spec.widths)):
            d_h = product(d_r[p], weight[p], d_h, spec)
        carried = (carried[0] + convert_layout(d_h),) + carried[1:]
        read = coming
    store_each(d_initial, carried, ends, units, inside, spec)
    store_each(d_params, summed, ends, units, inside, spec)
