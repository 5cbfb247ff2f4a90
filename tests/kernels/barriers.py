"""The most barriers that a time step of a resident kernel may have at H=128 in bfloat16 on sm_90."""

import triton

MOST = {
    "lstm forward": 12,
    "lstm inference": 6,
    "lstm backward": 6,
    "gru forward": 6,
    "gru backward": 6,
}
if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9):  # it changes layouts more often: docs/kernels.md
    MOST |= {"lstm inference": 10, "lstm backward": 18, "gru forward": 18, "gru backward": 22}
