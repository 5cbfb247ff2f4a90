"""Implements the tiled schedule: units are also split over programs, and one launch runs one time step.

It serves any H. A launch reads everything that the launch before has written, so the order of launches is the only
synchronization, and a sequence of launches can be captured in a CUDA graph. States are carried in global memory, in
the dtype of arithmetic. Every program of a launch multiplies all of h by its part of the weight, so h has two buffers:
one is read and the other is written.
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
    place,
    product,
    row_of,
    store_each,
    time_of,
    units_from,
)
from seqnets.kernels.triton.schedules.step import backward_step, forward_step, read_backward, read_forward


@triton.jit(do_not_specialize=["s", "T", "B"])
def forward(
    x_ptr, h_ptr, weight_ptr, bias_ptr, carried, vectors, masks, lengths_ptr, states, h_next_ptr, r_ptr, s, T, B,
    STEP: tl.constexpr, spec: tl.constexpr,
):  # fmt: skip
    """Run the s-th time step of a forward pass.

    The buffers h and h_next are ``(D, B, N, U)`` in the weight's dtype. The tensors `carried`, of the same shape in
    the dtype of arithmetic, are updated in place. The rest is as in `resident`.
    """
    start = tl.program_id(1) * spec.BLOCK_U
    dn = tl.program_id(2).to(tl.int64)
    rows = batch_rows(spec)
    units = units_from(start, spec)
    inside = (rows < B) & (units < spec.U)
    length = load_length(lengths_ptr, rows, T, B, spec)
    read = read_forward(x_ptr, masks, s, length, T, B, dn, rows, start, spec)
    own = load_each(vectors, dn * spec.U, units, units < spec.U, spec)
    ends = end_of(rows, dn, B, spec)
    state = load_each(carried, ends, units, inside, spec)
    accs = load_bias(bias_ptr, dn, start, spec)
    for k in range(0, spec.U, spec.BLOCK_K):
        inner = k + tl.arange(0, spec.BLOCK_K)
        h = tl.load(h_ptr + ends + inner[None, :], mask=(rows < B) & (inner[None, :] < spec.U), other=0.0)
        later = ()
        for p in tl.static_range(len(spec.widths)):
            columns = units_from(start, spec, spec.widths[p])
            mask = (inner[:, None] < spec.U) & (columns < spec.U * spec.widths[p])
            at = (dn * spec.U + inner[:, None]) * (spec.G * spec.U) + spec.U * spec.firsts[p] + columns
            weight = tl.load(weight_ptr + at, mask=mask, other=0.0)
            later = later + (product(h, weight, accs[p], spec),)
        accs = later
    state = forward_step(read, accs, state, own, states, r_ptr, s, length, T, B, dn, rows, start, STEP, spec)
    store_each(carried, state, ends, units, inside, spec)
    tl.store(h_next_ptr + place(ends, units, spec), state[0], mask=inside)


@triton.jit(do_not_specialize=["s", "T", "B"])
def backward(
    x_ptr, r_ptr, weight_ptr, initial, vectors, masks, lengths_ptr, states, d_states, d_x_ptr, d_r_ptr, d_carried,
    d_params, s, T, B, GRADIENT: tl.constexpr, spec: tl.constexpr,
):  # fmt: skip
    """Run the s-th time step of a backward pass.

    The tensors `d_carried` and `d_params`, ``(D, B, N, U)`` in the dtype of arithmetic, are updated in place.
    Afterward, d_carried still lacks the recurrent product with this step's d_r. The next launch adds it, or the host
    after the last launch.
    """
    start = tl.program_id(1) * spec.BLOCK_U
    dn = tl.program_id(2).to(tl.int64)
    rows = batch_rows(spec)
    units = units_from(start, spec)
    inside = (rows < B) & (units < spec.U)
    length = load_length(lengths_ptr, rows, T, B, spec)
    read = read_backward(x_ptr, r_ptr, masks, initial, states, d_states, s, length, T, B, dn, rows, start, spec)
    own = load_each(vectors, dn * spec.U, units, units < spec.U, spec)
    ends = end_of(rows, dn, B, spec)
    carried = load_each(d_carried, ends, units, inside, spec)
    summed = load_each(d_params, ends, units, inside, spec)
    d_h = carried[0] + convert_layout(
        recurrent_gradient(d_r_ptr, weight_ptr, s + 1, length, T, B, dn, rows, start, spec)
    )
    carried, _, summed = backward_step(
        read, (d_h,) + carried[1:], summed, own, d_x_ptr, d_r_ptr, s, length, T, B, dn, rows, start, GRADIENT, spec
    )
    store_each(d_carried, carried, ends, units, inside, spec)
    store_each(d_params, summed, ends, units, inside, spec)


@triton.jit
def recurrent_gradient(d_r_ptr, weight_ptr, s, length, T, B, dn, rows, start, spec: tl.constexpr):
    """Return ``d_r W^T`` of the s-th step; zero at ``s = T``."""
    t = time_of(s, length, dn, T, spec)
    in_rows = rows < tl.where(s < T, B, 0)
    units = units_from(start, spec)
    Q: tl.constexpr = spec.G * spec.U
    acc = tl.full([spec.BLOCK_B, spec.BLOCK_U], 0.0, spec.carry)
    d_r_row = d_r_ptr + row_of(t, rows, dn, B, spec) * Q
    for q in range(0, Q, spec.BLOCK_K):
        inner = q + tl.arange(0, spec.BLOCK_K)
        d_r = tl.load(d_r_row + inner[None, :], mask=in_rows & (inner[None, :] < Q), other=0.0)
        mask = (inner[:, None] < Q) & (units < spec.U)
        weight = tl.load(weight_ptr + (dn * spec.U + units) * Q + inner[:, None], mask=mask, other=0.0)
        acc = product(d_r, weight, acc, spec)
    return acc
