"""Prototypes a persistent schedule: an LSTM with its units split over programs, and the time loop inside the kernel.

The layout is that of seqnets.kernels, with the gates of a unit side by side: x and r ``(T, B, Q)``, weight ``(U, Q)``,
states ``(T, B, U)``, where T are time steps, B the batch, U units and Q = 4·U. There is one direction; directions and
heads would be a third axis of the grid.

The grid is (slices of units, tiles of the batch). Programs that share a tile of the batch wait for each other at every
step, so all must run at once: the launch is cooperative. There are two ways to wait: for a counter in global memory
(`forward`, `backward`), or for data whose value tells whether it has arrived (`forward_ll`).

``t0, t1`` and ``BARRIER=False`` run one step per launch, for Triton's interpreter, which runs one program at a time.
"""

import triton
import triton.language as tl

from seqnets.kernels.triton.math import sigmoid, tanh
from seqnets.kernels.triton.schedules.device import convert_layout, pack, unpack

LIMIT = tl.constexpr(1 << 22)  # polls before a program gives up, after some seconds


@triton.jit
def load_weights(w_ptr, columns, U: tl.constexpr, SPLIT: tl.constexpr):
    """Load columns of the weight ``(U, Q)``, one tile for each of SPLIT parts of the inner dimension."""
    K: tl.constexpr = U // SPLIT
    weights = ()
    for p in tl.static_range(SPLIT):
        k = p * K + tl.arange(0, K)[:, None]
        weights = weights + (tl.load(w_ptr + k * (4 * U) + columns),)
    return weights


@triton.jit
def multiply(h, weight, acc, p: tl.constexpr, PRECISION: tl.constexpr):
    """Return ``acc + h @ weight``. The product of an odd part is a chain of its own, which does not wait for `acc`."""
    if p % 2 == 0:
        return tl.dot(h, weight, acc, input_precision=PRECISION)
    else:
        return acc + tl.dot(h, weight, input_precision=PRECISION)


@triton.jit
def step(acc, x, c, dtype: tl.constexpr):
    """Return the recurrent projections and the new h in `dtype`, and the new c in float32."""
    r = convert_layout(acc.to(dtype))
    i, f, g, o = unpack(r.to(tl.float32) + x.to(tl.float32), 4)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return r, (sigmoid(o) * tanh(c)).to(dtype), c


@triton.jit
def arrive(flag, BARRIER: tl.constexpr):
    """Count this program as arrived. A program that sees the count also sees all that this one stored before."""
    if BARRIER:
        tl.debug_barrier()  # every thread's stores come before thread 0's release, which is cumulative
        tl.atomic_add(flag, 1, sem="release", scope="gpu")


@triton.jit
def await_count(flag, target, alive, error, BARRIER: tl.constexpr):
    """Wait until the counter `flag` reaches `target`, and return the limit of polls for later waits.

    Each thread acquires for itself, so no barrier of the block is needed. The limit of this wait is `alive`, which is
    returned. When it is reached, the wait gives up rather than hang: it stores 1 in `error` and returns 0.
    """
    if BARRIER:
        seen = tl.inline_asm_elementwise(
            "ld.acquire.gpu.global.u32 $0, [$1];", "=r,l", [flag], dtype=tl.int32, is_pure=False, pack=1
        )
        polls = 0
        while (seen < target) & (polls < alive):
            seen = tl.inline_asm_elementwise(
                "ld.acquire.gpu.global.u32 $0, [$1];", "=r,l", [flag], dtype=tl.int32, is_pure=False, pack=1
            )
            polls += 1
        if seen < target:
            tl.store(error, 1)
            alive = 0  # never wait again
    return alive


@triton.jit(do_not_specialize=["t0", "t1", "B"])
def forward(
    x_ptr,
    w_ptr,
    b_ptr,
    h_ptr,
    c_ptr,
    y_ptr,
    cs_ptr,
    r_ptr,
    hx_ptr,
    flags_ptr,
    error_ptr,
    t0,
    t1,
    B,
    U: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    SPLIT: tl.constexpr,
    KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
    BARRIER: tl.constexpr,
):
    start = tl.program_id(0) * BU
    rows = tl.program_id(1).to(tl.int64) * BB + tl.arange(0, BB)[:, None]
    inside = rows < B
    units = start + tl.arange(0, BU)[None, :]
    columns = start * 4 + tl.arange(0, BU * 4)[None, :]
    K: tl.constexpr = U // SPLIT
    dtype = w_ptr.dtype.element_ty
    weights = load_weights(w_ptr, columns, U, SPLIT)
    bias = tl.load(b_ptr + columns).to(tl.float32) + tl.zeros([BB, BU * 4], tl.float32)
    c = tl.load(c_ptr + rows * U + units, mask=inside, other=0.0).to(tl.float32)
    flag = flags_ptr + tl.program_id(1) * 32  # a cache line each
    alive = tl.full([], LIMIT, tl.int32)
    h_new = tl.zeros([BB, BU], dtype)
    x = tl.load(x_ptr + (t0 * B.to(tl.int64) + rows) * (4 * U) + columns, mask=inside, other=0.0)
    for t in range(t0, t1):
        here = t * B.to(tl.int64) + rows
        following = tl.load(x_ptr + (here + B) * (4 * U) + columns, mask=rows < tl.where(t + 1 < t1, B, 0), other=0.0)
        alive = await_count(flag, (t - t0) * tl.num_programs(0), alive, error_ptr, BARRIER)
        source = hx_ptr + ((t + 1) % 2) * B.to(tl.int64) * U + rows * U
        acc = bias
        for p in tl.static_range(SPLIT):
            h = tl.load(source + p * K + tl.arange(0, K)[None, :], mask=inside, other=0.0, cache_modifier=".cg")
            acc = multiply(h, weights[p], acc, p, PRECISION)
        r, h_new, c = step(acc, x, c, dtype)
        tl.store(hx_ptr + (t % 2) * B.to(tl.int64) * U + rows * U + units, h_new, mask=inside)
        arrive(flag, BARRIER)
        # what no program waits for is stored last
        tl.store(y_ptr + here * U + units, h_new, mask=inside)
        if KEEP:
            tl.store(cs_ptr + here * U + units, c.to(dtype), mask=inside)
            tl.store(r_ptr + here * (4 * U) + columns, r, mask=inside)
        x = following
    tl.store(h_ptr + rows * U + units, h_new, mask=inside)
    tl.store(c_ptr + rows * U + units, c.to(c_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["t0", "t1", "B", "T"])
def backward(
    x_ptr,
    r_ptr,
    w_ptr,
    c0_ptr,
    cs_ptr,
    dy_ptr,
    dh_ptr,
    dc_ptr,
    dr_ptr,
    flags_ptr,
    error_ptr,
    t0,
    t1,
    T,
    B,
    U: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    SPLIT: tl.constexpr,
    PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
    BARRIER: tl.constexpr,
):
    """Run the backward pass from step t1 - 1 down to t0.

    dh, dc (B, U) hold the gradients of the last state on entry, and those of the first state on exit, where dh still
    lacks the last product. The inner dimension Q is split into PARTS, which a batched product spreads over warps, and
    into SPLIT, which are computed one after another.
    """
    start = tl.program_id(0) * BU
    rows = tl.program_id(1).to(tl.int64) * BB + tl.arange(0, BB)[:, None]
    inside = rows < B
    units = start + tl.arange(0, BU)[None, :]
    columns = start * 4 + tl.arange(0, BU * 4)[None, :]
    Q: tl.constexpr = 4 * U
    K: tl.constexpr = Q // (SPLIT * PARTS)
    dtype = w_ptr.dtype.element_ty
    part = tl.arange(0, PARTS)
    weights = ()
    for p in tl.static_range(SPLIT):
        # (PARTS, K, BU): W[unit, q], q = (p·PARTS + part)·K + k
        q = (p * PARTS + part[:, None, None]) * K + tl.arange(0, K)[None, :, None]
        weights = weights + (tl.load(w_ptr + (start + tl.arange(0, BU))[None, None, :] * Q + q),)
    dc = tl.load(dc_ptr + rows * U + units, mask=inside, other=0.0).to(tl.float32)
    dh = tl.load(dh_ptr + rows * U + units, mask=inside, other=0.0).to(tl.float32)
    flag = flags_ptr + tl.program_id(1) * 32
    alive = tl.full([], LIMIT, tl.int32)
    for n in range(0, t1 - t0):
        t = t1 - 1 - n
        here = t * B.to(tl.int64) + rows
        a = tl.load(x_ptr + here * Q + columns, mask=inside, other=0.0).to(tl.float32)
        a += tl.load(r_ptr + here * Q + columns, mask=inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + here * U + units, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(cs_ptr + here * U + units, mask=inside, other=0.0).to(tl.float32)
        first = tl.load(c0_ptr + rows * U + units, mask=rows < tl.where(t == 0, B, 0), other=0.0).to(tl.float32)
        earlier = tl.load(cs_ptr + (here - B) * U + units, mask=rows < tl.where(t > 0, B, 0), other=0.0).to(tl.float32)
        before = tl.where(t == 0, first, earlier)
        i, f, g, o = unpack(a, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        tc = tanh(c)
        # everything that needs no product comes before the wait
        alive = await_count(flag, n * tl.num_programs(0), alive, error_ptr, BARRIER)
        dh += dy
        if t + 1 < T:
            rows3 = (here + B)[None, :, :] * Q
            acc = tl.zeros([PARTS, BB, BU], tl.float32)
            for p in tl.static_range(SPLIT):
                inner = (p * PARTS + part[:, None, None]) * K + tl.arange(0, K)[None, None, :]
                d = tl.load(dr_ptr + rows3 + inner, mask=inside[None, :, :], other=0.0, cache_modifier=".cg")
                acc = tl.dot(d, weights[p], acc, input_precision=PRECISION)
            dh += tl.sum(acc, axis=0)
        dct = dc + dh * o * (1 - tc * tc)
        d_i = dct * g * i * (1 - i)
        d_f = dct * before * f * (1 - f)
        d_g = dct * i * (1 - g * g)
        d_o = dh * tc * o * (1 - o)
        dc = dct * f
        dh = tl.zeros_like(dh)
        tl.store(dr_ptr + here * Q + columns, pack((d_i, d_f, d_g, d_o), 0, 4).to(dtype), mask=inside)
        arrive(flag, BARRIER)
    tl.store(dc_ptr + rows * U + units, dc.to(dc_ptr.dtype.element_ty), mask=inside)
    tl.store(dh_ptr + rows * U + units, dh.to(dh_ptr.dtype.element_ty), mask=inside)


# ---- the same without barriers: the exchanged values tell whether they have arrived


@triton.jit
def when_there(ptr, mask):
    """Load a tile of 16-bit numbers (int16), and repeat the load where one of them is still -1.

    As a floating-point number, -1 (0xffff) is a nan that no arithmetic returns: its nans are 0x7fff. After four million
    polls a -1 stays, and what is computed from it is nan.
    """
    first = tl.load(ptr, mask=mask, other=0, cache_modifier=".cg")
    return tl.inline_asm_elementwise(
        """
        {
        .reg .pred p, q; .reg .b32 n, a, b, c, d;
        mov.b32 $0, $4; mov.b32 $1, $5; mov.b32 $2, $6; mov.b32 $3, $7;
        mov.u32 n, 4000000;
        AGAIN:
        not.b32 a, $0; sub.u32 a, a, 0x00010001; and.b32 a, a, $0; and.b32 a, a, 0x80008000;
        not.b32 b, $1; sub.u32 b, b, 0x00010001; and.b32 b, b, $1; and.b32 b, b, 0x80008000;
        not.b32 c, $2; sub.u32 c, c, 0x00010001; and.b32 c, c, $2; and.b32 c, c, 0x80008000;
        not.b32 d, $3; sub.u32 d, d, 0x00010001; and.b32 d, d, $3; and.b32 d, d, 0x80008000;
        or.b32 a, a, b; or.b32 c, c, d; or.b32 a, a, c;
        setp.ne.u32 p, a, 0;
        setp.ne.and.u32 q, n, 0, p;
        sub.u32 n, n, 1;
        @q ld.relaxed.gpu.global.v4.b32 {$0, $1, $2, $3}, [$8];
        @q bra AGAIN;
        }
        """,
        "=&r,=&r,=&r,=&r,r,r,r,r,l,l,l,l,l,l,l,l",
        [first, ptr],
        dtype=tl.int16,
        is_pure=False,
        pack=8,
    )


@triton.jit(do_not_specialize=["T", "B"])
def forward_ll(
    x_ptr,
    w_ptr,
    b_ptr,
    h_ptr,
    c_ptr,
    y_ptr,
    cs_ptr,
    r_ptr,
    T,
    B,
    U: tl.constexpr,
    BB: tl.constexpr,
    BU: tl.constexpr,
    SPLIT: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Run the forward pass, waiting by data.

    y (T + 1, B, U) holds the bits of the dtype as int16: on entry the initial state first, then -1 everywhere.
    """
    start = tl.program_id(0) * BU
    rows = tl.program_id(1).to(tl.int64) * BB + tl.arange(0, BB)[:, None]
    inside = rows < B
    units = start + tl.arange(0, BU)[None, :]
    columns = start * 4 + tl.arange(0, BU * 4)[None, :]
    K: tl.constexpr = U // SPLIT
    dtype = w_ptr.dtype.element_ty
    weights = load_weights(w_ptr, columns, U, SPLIT)
    bias = tl.load(b_ptr + columns).to(tl.float32) + tl.zeros([BB, BU * 4], tl.float32)
    c = tl.load(c_ptr + rows * U + units, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + rows * (4 * U) + columns, mask=inside, other=0.0)
    for t in range(T):
        here = t * B.to(tl.int64) + rows
        following = tl.load(x_ptr + (here + B) * (4 * U) + columns, mask=rows < tl.where(t + 1 < T, B, 0), other=0.0)
        acc = bias
        for p in tl.static_range(SPLIT):
            h = when_there(y_ptr + here * U + p * K + tl.arange(0, K)[None, :], inside).to(dtype, bitcast=True)
            acc = multiply(h, weights[p], acc, p, "ieee")
        r, h_new, c = step(acc, x, c, dtype)
        tl.store(y_ptr + (here + B) * U + units, h_new.to(tl.int16, bitcast=True), mask=inside, cache_modifier=".cg")
        if KEEP:
            tl.store(cs_ptr + here * U + units, c.to(dtype), mask=inside)
            tl.store(r_ptr + here * (4 * U) + columns, r, mask=inside)
        x = following
    tl.store(c_ptr + rows * U + units, c.to(c_ptr.dtype.element_ty), mask=inside)
