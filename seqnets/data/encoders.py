"""Collects the encoders that turn user input into model inputs, by the kind that checkpoints store."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from seqnets.data.images import ImageEncoder
from seqnets.data.sentences import SentenceEncoder
from seqnets.data.series import SeriesEncoder
from seqnets.data.text import TextEncoder
from seqnets.data.vocabulary import CharacterEncoder, WordEncoder


class Encoder(Protocol):
    """Turns texts, image files or numbers into model inputs.

    Attributes:
        kind: what is encoded, in the plural, such as "texts".
        usage: an example input for predict.py, as typed on the command line.
    """

    kind: str
    usage: str

    def encode(self, given: Sequence[str]) -> Tensor:
        """Encode B inputs as a tensor ``(B, …)``.

        Raises:
            ValueError: If an input cannot be encoded. The message names it.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return everything that defines the encoder, ``kind`` included, as plain types."""


class NoEncoder:
    """Stands in for an encoder where the data are synthetic or measured, so that there is nothing to type."""

    kind, usage = "nothing", ""

    def encode(self, given: Sequence[str]) -> Tensor:
        raise ValueError("this model's data are made or measured: there is nothing to give it here")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "NoEncoder":
        return cls()


class MusicEncoder(NoEncoder):
    """Stands in for an encoder of music, where the user gives the name of the file to write."""

    kind, usage = "music", "new.mid --length 64"

    def encode(self, given: Sequence[str]) -> Tensor:
        raise ValueError("a model of music reads nothing that one types: it writes a MIDI file of the name given")


KINDS = (
    TextEncoder, ImageEncoder, CharacterEncoder, WordEncoder, SentenceEncoder, SeriesEncoder, MusicEncoder, NoEncoder,
)  # fmt: skip
ENCODERS: dict[str, Any] = {encoder.kind: encoder for encoder in KINDS}


def encoder_from_dict(state: dict[str, Any]) -> Encoder:
    """Rebuild the encoder that `Encoder.to_dict` described.

    Raises:
        LookupError, TypeError, ValueError: If `state` does not describe an encoder.
    """
    return ENCODERS[state.get("kind", TextEncoder.kind)].from_dict(state)
