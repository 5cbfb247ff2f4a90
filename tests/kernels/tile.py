"""A kernel that runs a generated step, and one for its gradient, on one tile. What lies beyond H is NaN."""

import triton
import triton.language as tl


@triton.jit
def _load(ptrs, at, mask):
    tiles = ()
    for k in tl.static_range(len(ptrs)):
        tiles = tiles + (tl.load(ptrs[k] + at, mask=mask, other=float("nan")),)
    return tiles


@triton.jit
def _store(ptrs, tiles, at, mask):
    for k in tl.static_range(len(ptrs)):
        tl.store(ptrs[k] + at, tiles[k], mask=mask)


@triton.jit
def step(x, r, state, params, masks, new, B, H, STEP: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr):
    rows = tl.arange(0, BLOCK_B)[:, None]
    units = tl.arange(0, BLOCK_H)[None, :]
    at = rows * H + units
    cols = units < H
    mask = (rows < B) & cols
    tiles = STEP(
        _load(x, at, mask), _load(r, at, mask), _load(state, at, mask), _load(params, units, cols), _load(masks, at, mask),
        cols, H,
    )  # fmt: skip
    _store(new, tiles, at, mask)


@triton.jit
def gradient(
    x, r, state, params, masks, d_new, d_x, d_r, d_state, d_params, B, H,
    GRADIENT: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, BLOCK_B)[:, None]
    units = tl.arange(0, BLOCK_H)[None, :]
    at = rows * H + units
    cols = units < H
    mask = (rows < B) & cols
    of_x, of_r, of_state, of_params = GRADIENT(
        _load(x, at, mask), _load(r, at, mask), _load(state, at, mask), _load(params, units, cols), _load(masks, at, mask),
        _load(d_new, at, mask), cols, H,
    )  # fmt: skip
    _store(d_x, of_x, at, mask)
    _store(d_r, of_r, at, mask)
    _store(d_state, of_state, at, mask)
    _store(d_params, of_params, at, mask)
