"""Holds what the schedules share on the device: memory offsets, and how tiles are loaded, multiplied and stored.

Shape legend: T time steps, B batch, D directions, N heads, U units per head (H = N·U), G gates, Q = G·U.

Gates are packed: those of one unit lie side by side, so that one wide load, product or store serves several. A pack has
4, 2 or 1 gates (three gates are a pack of 2 and a pack of 1) and is ``(U, width)`` within Q. See
`seqnets.kernels.triton.layout`.
"""

import triton
import triton.language as tl


@triton.jit
def unpack(tile, width: tl.constexpr):
    """Split a tile ``(B, U·width)`` into `width` tiles ``(B, U)``."""
    if width == 1:
        return (tile,)
    elif width == 2:
        return tl.split(tl.reshape(tile, [tile.shape[0], tile.shape[1] // 2, 2]))
    else:
        even, odd = tl.split(tl.reshape(tile, [tile.shape[0], tile.shape[1] // 4, 2, 2]))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
        return (first, second, third, fourth)


@triton.jit
def pack(tiles, first: tl.constexpr, width: tl.constexpr):
    """Join ``tiles[first : first + width]``, each ``(B, U)``, into one tile ``(B, U·width)``."""
    if width == 1:
        return tiles[first]
    elif width == 2:
        both = tl.join(tiles[first], tiles[first + 1])
        return tl.reshape(both, [both.shape[0], both.shape[1] * 2])
    else:
        even = tl.join(tiles[first], tiles[first + 2])
        odd = tl.join(tiles[first + 1], tiles[first + 3])
        both = tl.join(even, odd)
        return tl.reshape(both, [both.shape[0], both.shape[1] * 4])


@triton.jit
def convert_layout(tile):
    """Convert a product to the layout of loaded and stored tiles, without changing its values.

    Tensor cores leave two neighboring columns with a thread. To split pairs that lie two columns apart, and to join
    them again, a thread needs four columns, as after a load. So the compiler converts the layout here, once and in the
    tile's own dtype, rather than later for each gate, state and store.
    """
    pairs = tl.permute(tl.reshape(tile, [tile.shape[0], tile.shape[1] // 4, 2, 2]), [0, 1, 3, 2])
    low, high = tl.split(pairs)
    return tl.reshape(tl.permute(tl.join(low, high), [0, 1, 3, 2]), [tile.shape[0], tile.shape[1]])


@triton.jit
def units_from(start, spec: tl.constexpr, width: tl.constexpr = 1):
    """Return the columns ``(1, BLOCK_U·width)`` of a tile that begins with unit `start`."""
    return start * width + tl.arange(0, spec.BLOCK_U * width)[None, :]


@triton.jit
def place(rows, columns, spec: tl.constexpr, width: tl.constexpr = 1):
    """Return the offsets ``rows + columns`` of a load or store, with a contiguity hint for the compiler.

    By the hint, a thread takes `vector` units with all their gates. Tiles of every width then distribute units over
    threads in the same way, and tiles that meet in arithmetic need no conversion of the layout.
    """
    vector: tl.constexpr = spec.vector
    return tl.max_contiguous(rows + columns, [1, vector * width])


@triton.jit
def unpack_gates(packs, spec: tl.constexpr):
    """Convert one tile per pack to one tile ``(B, U)`` per gate, in the dtype of arithmetic."""
    gates = ()
    for p in tl.static_range(len(spec.widths)):
        gates = gates + unpack(packs[p].to(spec.carry), spec.widths[p])
    return gates


@triton.jit
def pack_gates(gates, keep, dtype: tl.constexpr, spec: tl.constexpr):
    """Convert one tile per gate to one tile per pack, in `dtype`, for stores and products; zero where not `keep`."""
    packs = ()
    for p in tl.static_range(len(spec.widths)):
        kept = ()
        for k in tl.static_range(len(gates)):
            kept = kept + (tl.where(keep, gates[k], 0.0).to(dtype),)
        packs = packs + (pack(kept, spec.firsts[p], spec.widths[p]),)
    return packs


@triton.jit
def load_gates(ptr, rows, start, mask, spec: tl.constexpr):
    """Load one tile per pack, of the units from `start` on; `rows` are the offsets where the gates of a row begin."""
    packs = ()
    for p in tl.static_range(len(spec.widths)):
        columns = units_from(start, spec, spec.widths[p])
        at = place(rows + spec.U * spec.firsts[p], columns, spec, spec.widths[p])
        packs = packs + (tl.load(ptr + at, mask=mask & (columns < spec.U * spec.widths[p]), other=0.0),)
    return packs


@triton.jit
def store_gates(ptr, packs, rows, start, mask, spec: tl.constexpr):
    for p in tl.static_range(len(spec.widths)):
        columns = units_from(start, spec, spec.widths[p])
        at = place(rows + spec.U * spec.firsts[p], columns, spec, spec.widths[p])
        tl.store(ptr + at, packs[p], mask=mask & (columns < spec.U * spec.widths[p]))


@triton.jit
def load_bias(ptr, dn, start, spec: tl.constexpr):
    """Return the initial value of the products, one tile per pack: the recurrent bias in each row, or zeros."""
    packs = ()
    for p in tl.static_range(len(spec.widths)):
        pack = tl.full([spec.BLOCK_B, spec.BLOCK_U * spec.widths[p]], 0.0, spec.carry)
        if ptr is not None:
            columns = units_from(start, spec, spec.widths[p])
            at = dn * (spec.G * spec.U) + spec.U * spec.firsts[p] + columns
            pack += tl.load(ptr + at, mask=columns < spec.U * spec.widths[p], other=0.0).to(spec.carry)
        packs = packs + (pack,)
    return packs


@triton.jit
def load_each(ptrs, rows, units, mask, spec: tl.constexpr):
    tiles = ()
    for k in tl.static_range(len(ptrs)):
        tiles = tiles + (tl.load(ptrs[k] + place(rows, units, spec), mask=mask, other=0.0).to(spec.carry),)
    return tiles


@triton.jit
def store_each(ptrs, tiles, rows, units, mask, spec: tl.constexpr):
    for k in tl.static_range(len(ptrs)):
        tl.store(ptrs[k] + place(rows, units, spec), tiles[k], mask=mask)


@triton.jit
def where_each(condition, yes, no):
    tiles = ()
    for k in tl.static_range(len(yes)):
        tiles = tiles + (tl.where(condition, yes[k], no[k]),)
    return tiles


@triton.jit
def product(a, b, acc, spec: tl.constexpr):
    """Return ``acc + a @ b``, accumulated in the dtype of `acc`."""
    # The interpreter would multiply the bit patterns of bfloat16; in float32 the products are exact
    if spec.interpreted and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=spec.precision, out_dtype=acc.dtype)


@triton.jit
def batch_rows(spec: tl.constexpr):
    """Return the program's rows ``(BLOCK_B, 1)`` in 64 bits, so that all offsets computed from them are 64-bit too."""
    return tl.program_id(0).to(tl.int64) * spec.BLOCK_B + tl.arange(0, spec.BLOCK_B)[:, None]


@triton.jit
def load_length(ptr, rows, T, B, spec: tl.constexpr):
    """Return how many steps each row runs: ``(BLOCK_B, 1)``, or T for all rows if there are no lengths.

    A length beyond T, which is not checked on a GPU, counts as T.
    """
    length = T
    if spec.ragged:
        length = tl.minimum(tl.load(ptr + rows, mask=rows < B, other=0), T).to(tl.int32)
    return length


@triton.jit
def time_of(s, length, dn, T, spec: tl.constexpr):
    """Return the time step that is processed as the s-th; a reverse direction begins at the row's own end.

    For a row that is finished, ``s >= length``, it is s itself, so the steps of every row cover 0..T-1.
    """
    if spec.D == 1:
        return s
    elif spec.ragged:
        return tl.where(dn >= spec.N, tl.where(s < length, length - 1 - s, s), s)
    else:
        return tl.where(dn >= spec.N, T - 1 - s, s)


@triton.jit
def row_of(t, rows, dn, B, spec: tl.constexpr):
    """Return the 64-bit index of a row in ``(T, B, D, N)``."""
    return (t * B.to(tl.int64) + rows) * (spec.D * spec.N) + dn


@triton.jit
def end_of(rows, dn, B, spec: tl.constexpr):
    """Return the 64-bit offset where a row of ``(D, B, N, U)``, for example of an initial or final state, begins."""
    return ((dn // spec.N * B + rows) * spec.N + dn % spec.N) * spec.U
