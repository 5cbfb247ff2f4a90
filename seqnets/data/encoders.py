"""What turns that which a user gives into inputs of a model, by the kind that checkpoints name."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from seqnets.data.images import ImageEncoder
from seqnets.data.sentences import SentenceEncoder
from seqnets.data.series import SeriesEncoder
from seqnets.data.text import TextEncoder
from seqnets.data.vocabulary import CharacterEncoder, WordEncoder


class Encoder(Protocol):
    """Of texts, of image files, of numbers.

    Attributes:
        kind: of what, in the plural.
        usage: what to give to predict.py, as one types it.
    """

    kind: str
    usage: str

    def encode(self, given: Sequence[str]) -> Tensor:
        """(B, …) inputs. Raises ValueError where one cannot be encoded; the message names it."""

    def to_dict(self) -> dict[str, Any]:
        """Everything the encoder is, ``kind`` included, as plain types."""


class NoEncoder:
    """Of data that are made or measured: there is nothing to type."""

    kind, usage = "nothing", ""

    def encode(self, given: Sequence[str]) -> Tensor:
        raise ValueError("this model's data are made or measured: there is nothing to give it here")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "NoEncoder":
        return cls()


class MusicEncoder(NoEncoder):
    """Of music, where one gives the name of the file to write."""

    kind, usage = "music", "new.mid --length 64"

    def encode(self, given: Sequence[str]) -> Tensor:
        raise ValueError("a model of music reads nothing that one types: it writes a MIDI file of the name given")


KINDS = (
    TextEncoder, ImageEncoder, CharacterEncoder, WordEncoder, SentenceEncoder, SeriesEncoder, MusicEncoder, NoEncoder,
)  # fmt: skip
ENCODERS: dict[str, Any] = {encoder.kind: encoder for encoder in KINDS}


def encoder_from_dict(state: dict[str, Any]) -> Encoder:
    """The encoder that `Encoder.to_dict` described.

    Raises:
        LookupError, TypeError, ValueError: there is none like that.
    """
    return ENCODERS[state.get("kind", TextEncoder.kind)].from_dict(state)
