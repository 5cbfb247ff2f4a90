"""Provides images that are read row by row: a sequence has as many steps as the image has rows."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.data.in_memory import InMemory, Loaded
from seqnets.data.loader import Examples
from seqnets.errors import ConfigError, DataError


class ImageEncoder:
    """Turns image files into rows of pixels from 0 (background) to 1, as in data sets of handwritten digits.

    Args:
        size: the height and width that images are resized to.
    """

    kind, usage = "images", "digit.png"

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, paths: Sequence[str]) -> Tensor:
        """Encode image files as ``(B, size, size)`` grayscale pixels, inverted where the background is light.

        Raises:
            ValueError: If a file is not a readable image. The message names it.
        """
        return torch.stack([self._read(Path(path)) for path in paths])

    def _read(self, path: Path) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                gray = image.convert("L").resize((self.size, self.size))
        except FileNotFoundError as error:
            raise ValueError(f"there is no file {path}: give the name of an image file") from error
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path} is no image that can be read: {error}") from error
        pixels = torch.from_numpy(np.array(gray, dtype=np.float32)) / 255
        border = torch.cat([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        return 1 - pixels if border.median() > 0.5 else pixels

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> "ImageEncoder":
        return cls(state["size"])


class Images(InMemory):
    """Provides square grayscale images as batches. A subclass reads the images.

    The inputs are ``(B, size, size)`` with pixels from 0 to 1, the targets ``(B,)`` int64 classes.

    The arguments are those of `InMemory`, and ``encoder``: the encoder of a trained model, which must have the same
    size.
    """

    size: int

    def __init__(
        self,
        batch_size: int = 32,
        eval_batch_size: int = 256,
        validation_fraction: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
        encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, validation_fraction, num_workers, seed)
        self.encoder = ImageEncoder(self.size) if encoder is None else encoder

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
        """Read the data.

        Returns:
            ``train`` and ``test``, each uint8 images ``(N, size, size)`` and their classes ``(N,)``; and the source,
            location and note.
        """
        raise NotImplementedError

    def _load(self) -> Loaded:
        read, origin = self._read()
        digest = hashlib.sha256()
        for name, (images, classes) in read.items():
            if (
                images.shape != (len(classes), self.size, self.size)
                or classes.min() < 0
                or classes.max() >= len(self.labels)
            ):
                raise DataError(
                    f"{origin['location']}, {name}: {images.shape} images with classes {classes.min()} to "
                    f"{classes.max()}, where (N, {self.size}, {self.size}) and 0 to {len(self.labels) - 1} belong."
                )
            digest.update(images.tobytes() + classes.astype(np.int64).tobytes())
        splits = {
            name: (torch.from_numpy(images), torch.from_numpy(classes.astype(np.int64)))
            for name, (images, classes) in read.items()
        }
        if self.validation_fraction:
            pixels, targets = splits["train"]
            order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
            held = round(self.validation_fraction * len(targets))
            if not 0 < held < len(targets):
                raise ConfigError(
                    f"validation_fraction={self.validation_fraction} splits {len(targets)} images into "
                    f"{len(targets) - held} and {held}: choose one that leaves neither empty, or 0."
                )
            splits["train"] = pixels[order[held:]], targets[order[held:]]
            splits["validation"] = pixels[order[:held]], targets[order[:held]]
        examples = {name: Examples(*split) for name, split in splits.items()}
        rows = {name: len(split) for name, split in examples.items()}
        return Loaded(examples, origin | {"rows": rows, "fingerprint": digest.hexdigest()})
