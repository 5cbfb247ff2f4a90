"""What the schedules share on the device: where things lie, and how a tile is loaded, multiplied and stored.

Shape legend: T time steps, B batch, D directions, N heads, U units per head (H = N·U), G gates, Q = G·U.

Gates lie packed, those of a unit side by side, so that one wide load, product and store serves several: in packs of 4, 2
and 1 (three gates are a pack of 2 and one of 1), each ``(U, width)`` within Q. See `seqnets.kernels.layout`.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def unpack(tile, width: tl.constexpr):
    """``(B, U·width)`` -> `width` tiles ``(B, U)``."""
    if width == 1:
        return (tile,)
    even, odd = tl.split(tl.reshape(tile, [tile.shape[0], tile.shape[1] // 2, 2]))
    if width == 2:
        return (even, odd)
    first, third = tl.split(tl.reshape(even, [even.shape[0], even.shape[1] // 2, 2]))
    second, fourth = tl.split(tl.reshape(odd, [odd.shape[0], odd.shape[1] // 2, 2]))
    return (first, second, third, fourth)


@triton.jit
def pack(tiles, first: tl.constexpr, width: tl.constexpr):
    """``tiles[first : first + width]``, each ``(B, U)`` -> ``(B, U·width)``."""
    if width == 1:
        return tiles[first]
    if width == 2:
        both = tl.join(tiles[first], tiles[first + 1])
    else:
        both = tl.join(tl.join(tiles[first], tiles[first + 2]), tl.join(tiles[first + 1], tiles[first + 3]))
    return tl.reshape(both, [both.shape[0], tiles[first].shape[1] * width])


@triton.jit
def unpack_gates(packs, spec: tl.constexpr):
    """A tile per pack -> a tile ``(B, U)`` per gate, for arithmetic."""
    gates = ()
    for p in tl.static_range(len(spec.widths)):
        gates = gates + unpack(packs[p].to(spec.carry), spec.widths[p])
    return gates


@triton.jit
def pack_gates(gates, keep, dtype: tl.constexpr, spec: tl.constexpr):
    """A tile per gate -> a tile per pack, to be stored and multiplied; zero where not `keep`."""
    packs = ()
    first = 0
    for p in tl.static_range(len(spec.widths)):
        kept = ()
        for k in tl.static_range(len(gates)):
            kept = kept + (tl.where(keep, gates[k], 0.0).to(dtype),)
        packs = packs + (pack(kept, first, spec.widths[p]),)
        first += spec.widths[p]
    return packs


@triton.jit
def load_gates(ptr, start, mask, spec: tl.constexpr):
    """A tile per pack, of the units from `start` on; `ptr` points at all gates of each row."""
    packs = ()
    offset = 0
    for p in tl.static_range(len(spec.widths)):
        columns = start * spec.widths[p] + tl.arange(0, spec.BLOCK_U * spec.widths[p])[None, :]
        packs = packs + (tl.load(ptr + offset + columns, mask=mask & (columns < spec.U * spec.widths[p]), other=0.0),)
        offset += spec.U * spec.widths[p]
    return packs


@triton.jit
def store_gates(ptr, packs, start, mask, spec: tl.constexpr):
    offset = 0
    for p in tl.static_range(len(spec.widths)):
        columns = start * spec.widths[p] + tl.arange(0, spec.BLOCK_U * spec.widths[p])[None, :]
        tl.store(ptr + offset + columns, packs[p], mask=mask & (columns < spec.U * spec.widths[p]))
        offset += spec.U * spec.widths[p]


@triton.jit
def load_bias(ptr, lane, start, spec: tl.constexpr):
    """What products start from: the recurrent bias for each row, or zeros."""
    packs = ()
    offset = 0
    for p in tl.static_range(len(spec.widths)):
        pack = tl.zeros([spec.BLOCK_B, spec.BLOCK_U * spec.widths[p]], spec.carry)
        if ptr is not None:
            columns = start * spec.widths[p] + tl.arange(0, spec.BLOCK_U * spec.widths[p])[None, :]
            row = ptr + lane * (spec.G * spec.U) + offset
            pack += tl.load(row + columns, mask=columns < spec.U * spec.widths[p], other=0.0).to(spec.carry)
        packs = packs + (pack,)
        offset += spec.U * spec.widths[p]
    return packs


@triton.jit
def load_each(ptrs, offsets, mask, dtype: tl.constexpr):
    tiles = ()
    for k in tl.static_range(len(ptrs)):
        tiles = tiles + (tl.load(ptrs[k] + offsets, mask=mask, other=0.0).to(dtype),)
    return tiles


@triton.jit
def store_each(ptrs, tiles, offsets, mask):
    for k in tl.static_range(len(ptrs)):
        tl.store(ptrs[k] + offsets, tiles[k], mask=mask)


@triton.jit
def where_each(condition, yes, no):
    tiles = ()
    for k in tl.static_range(len(yes)):
        tiles = tiles + (tl.where(condition, yes[k], no[k]),)
    return tiles


@triton.jit
def product(a, b, acc, spec: tl.constexpr):
    """``acc + a @ b``, accumulated in the dtype of `acc`."""
    if INTERPRETED and a.dtype == tl.bfloat16:  # the interpreter multiplies bit patterns; in float32 products are exact
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=spec.precision, out_dtype=acc.dtype)


@triton.jit
def batch_rows(spec: tl.constexpr):
    """The program's rows, ``(BLOCK_B, 1)``: 64 bits, as are all offsets that they enter."""
    return tl.program_id(0).to(tl.int64) * spec.BLOCK_B + tl.arange(0, spec.BLOCK_B)[:, None]


@triton.jit
def time_of(s, length, lane, T, spec: tl.constexpr):
    """The time step that is processed as the s-th: a reverse direction begins at the row's own end.

    A row that is finished, ``s >= length``, has s itself: so the steps of every row cover 0..T-1.
    """
    if spec.D == 1:
        return s
    if spec.ragged:
        return tl.where((lane >= spec.N) & (s < length), length - 1 - s, s)
    return tl.where(lane >= spec.N, T - 1 - s, s)
