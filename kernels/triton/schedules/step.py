"""Computes one time step of a tile, forward and backward: what the schedules share between two recurrent products.

Shapes: x, r and their gradients ``(T, B, D, N, Q)``; states and their gradients ``(T, B, D, N, U)``; initial and final
states and gradients of parameters ``(D, B, N, U)``; parameters ``(D, N, U)``; masks ``(D, T or 1, B, N, U)``.
`dn` counts directions and heads, ``d·N + n``; `rows` is ``(BLOCK_B, 1)``; `start` is the tile's first unit.
"""

import triton
import triton.language as tl

from seqnets.kernels.triton.schedules.device import (
    convert_layout,
    end_of,
    load_gates,
    pack_gates,
    place,
    row_of,
    store_gates,
    time_of,
    units_from,
    unpack_gates,
    where_each,
)


@triton.jit
def read_masks(masks, t, inside, T, B, dn, rows, units, spec: tl.constexpr):
    tiles = ()
    for k in tl.static_range(len(masks)):
        row = dn // spec.N * B + rows
        if spec.per_step[k]:
            row = (dn // spec.N * T + t) * B.to(tl.int64) + rows
        at = place((row * spec.N + dn % spec.N) * spec.U, units, spec)
        tiles = tiles + (tl.load(masks[k] + at, mask=inside, other=0.0).to(spec.carry),)
    return tiles


@triton.jit
def read_forward(x_ptr, masks, s, length, T, B, dn, rows, start, spec: tl.constexpr):
    """Load what the s-th step reads from global memory: x, still packed, and masks. Load nothing at ``s = T``."""
    t = time_of(s, length, dn, T, spec)
    in_rows = rows < tl.where(s < T, B, 0)
    units = units_from(start, spec)
    at = row_of(t, rows, dn, B, spec)
    x = load_gates(x_ptr, at * (spec.G * spec.U), start, in_rows, spec)
    return x, read_masks(masks, t, in_rows & (units < spec.U), T, B, dn, rows, units, spec)


@triton.jit
def forward_step(
    read, accs, state, params, states, r_ptr, s, length, T, B, dn, rows, start, STEP: tl.constexpr, spec: tl.constexpr
):
    """Return the state after the s-th step, given its recurrent products `accs`, one per pack; store what is kept."""
    t = time_of(s, length, dn, T, spec)
    units = units_from(start, spec)
    cols = units < spec.U
    in_rows = rows < B
    at = row_of(t, rows, dn, B, spec)
    x, masks = read
    rounded = ()
    for p in tl.static_range(len(spec.widths)):
        rounded = rounded + (convert_layout(accs[p].to(x[p].dtype)),)
    r = unpack_gates(rounded, spec)
    if r_ptr is not None:
        # `r` is packed again, which costs nothing: `accs` still have the layout of a product, not that of stores
        r_packs = pack_gates(r, in_rows & cols, r_ptr.dtype.element_ty, spec)
        store_gates(r_ptr, r_packs, at * (spec.G * spec.U), start, in_rows, spec)
    x, masks = read
    new = STEP(unpack_gates(x, spec), r, state, params, masks, cols, spec.N * spec.U)
    if spec.ragged:
        new = where_each(s < length, new, state)
    # `states` has the same length, but Triton 3.6 cannot tell the length of a tuple that contains None
    for k in tl.static_range(len(new)):
        if states[k] is not None:
            kept = new[k]
            if spec.ragged and k == 0:  # the output
                kept = tl.where(s < length, kept, 0.0)
            tl.store(states[k] + place(at * spec.U, units, spec), kept, mask=in_rows & cols)
    return new


@triton.jit
def read_backward(x_ptr, r_ptr, masks, initial, states, d_states, s, length, T, B, dn, rows, start, spec: tl.constexpr):
    """Load what the gradient of the s-th step reads from global memory. Load nothing at ``s < 0``."""
    t = time_of(s, length, dn, T, spec)
    in_rows = rows < tl.where(s >= 0, B, 0)
    units = units_from(start, spec)
    inside = in_rows & (units < spec.U)
    at = row_of(t, rows, dn, B, spec)
    x = load_gates(x_ptr, at * (spec.G * spec.U), start, in_rows, spec)
    r = load_gates(r_ptr, at * (spec.G * spec.U), start, in_rows, spec)
    first = end_of(rows, dn, B, spec)
    before = row_of(time_of(s - 1, length, dn, T, spec), rows, dn, B, spec)
    previous = ()
    incoming = ()
    for k in tl.static_range(len(states)):
        given = tl.load(
            initial[k] + place(first, units, spec), mask=inside & (rows < tl.where(s == 0, B, 0)), other=0.0
        )
        reached = tl.load(
            states[k] + place(before * spec.U, units, spec), mask=inside & (rows < tl.where(s > 0, B, 0)), other=0.0
        )
        previous = previous + (tl.where(s == 0, given, reached),)
        if d_states[k] is not None:
            running = inside
            if spec.ragged:
                running = inside & (s < length)
            incoming = incoming + (tl.load(d_states[k] + place(at * spec.U, units, spec), mask=running, other=0.0),)
        else:
            incoming = incoming + (tl.zeros_like(given),)
    return x, r, previous, incoming, read_masks(masks, t, inside, T, B, dn, rows, units, spec)


@triton.jit
def backward_step(
    read, d_carried, d_params, params, d_x_ptr, d_r_ptr, s, length, T, B, dn, rows, start, GRADIENT: tl.constexpr,
    spec: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of the s-th step, and store those of r and, where they differ from those of r, of x.

    Returns the gradients of the states before the step, without the recurrent product; of the step's r, packed; and of
    the parameters, summed so far.
    """
    t = time_of(s, length, dn, T, spec)
    cols = units_from(start, spec) < spec.U
    in_rows = rows < B
    x, r, previous, incoming, masks = read
    state = ()
    d_state = ()
    for k in tl.static_range(len(previous)):
        state = state + (previous[k].to(spec.carry),)
        d_state = d_state + (d_carried[k] + incoming[k].to(spec.carry),)
    d_x, d_r, d_previous, d_own = GRADIENT(
        unpack_gates(x, spec), unpack_gates(r, spec), state, params, masks, d_state, cols, spec.N * spec.U
    )
    running = in_rows & cols
    if spec.ragged:
        running = running & (s < length)
        d_previous = where_each(s < length, d_previous, d_carried)
    summed = ()
    for k in tl.static_range(len(d_own)):
        summed = summed + (d_params[k] + tl.where(running, d_own[k], 0.0),)
    at = row_of(t, rows, dn, B, spec) * (spec.G * spec.U)
    d_r_packs = pack_gates(d_r, running, d_r_ptr.dtype.element_ty, spec)
    store_gates(d_r_ptr, d_r_packs, at, start, in_rows, spec)
    if d_x_ptr is not None:
        d_x_packs = pack_gates(d_x, running, d_x_ptr.dtype.element_ty, spec)
        store_gates(d_x_ptr, d_x_packs, at, start, in_rows, spec)
    return d_previous, d_r_packs, summed
