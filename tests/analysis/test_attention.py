"""The picture of attention is drawn for any number of sentences."""

import pytest
import torch

from seqnets.analysis.attention import _shown, plot_maps


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_picture_is_drawn(count, tmp_path):
    maps = [(["A", "dog", "."], ["Ein", "Hund", ".", "end"][: n + 2], torch.rand(n + 2, 3)) for n in range(count)]
    plot_maps(maps, tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_goes_on_with_a_word_is_marked():
    assert [_shown(piece) for piece in (" Hund", "läuft", ".", ' "')] == ["Hund", "·läuft", ".", '"']
