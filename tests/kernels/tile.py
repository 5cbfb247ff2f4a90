"""A kernel that runs a generated step, and its gradient, on one tile. What lies beyond B and H is NaN."""

import triton
import triton.language as tl


@triton.jit
def _load(ptrs, at, mask):
    tiles = ()
    for k in tl.static_range(len(ptrs)):
        tiles = tiles + (tl.load(ptrs[k] + at, mask=mask, other=float("nan")),)  # noqa: RUF005
    return tiles


@triton.jit
def _store(ptrs, tiles, at, mask):
    for k in tl.static_range(len(ptrs)):
        tl.store(ptrs[k] + at, tiles[k], mask=mask)


@triton.jit
def step_and_gradient(
    x, r, state, params, masks, d_new, new, d_x, d_r, d_state, d_params, B, H,
    STEP: tl.constexpr, GRADIENT: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """Of parameters ``(H,)``; of all else, and of the gradients of parameters, ``(B, H)``."""
    rows = tl.arange(0, BLOCK_B)[:, None]
    units = tl.arange(0, BLOCK_H)[None, :]
    cols = units < H
    at, mask = rows * H + units, (rows < B) & cols
    given = (
        _load(x, at, mask),
        _load(r, at, mask),
        _load(state, at, mask),
        _load(params, units, cols),
        _load(masks, at, mask),
    )
    tiles = STEP(given[0], given[1], given[2], given[3], given[4], cols, H)
    _store(new, tiles, at, mask)
    gradients = GRADIENT(given[0], given[1], given[2], given[3], given[4], _load(d_new, at, mask), cols, H)
    _store(d_x, gradients[0], at, mask)
    _store(d_r, gradients[1], at, mask)
    _store(d_state, gradients[2], at, mask)
    _store(d_params, gradients[3], at, mask)
