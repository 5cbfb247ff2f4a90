"""Handwritten digits: MNIST (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998), and
the small ones that scikit-learn carries.
"""

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.data.hub import load_from_hub, split_of
from seqnets.data.images import ImageEncoder, Images
from seqnets.data.origins import check_choice, first_available, local_folder
from seqnets.errors import DataError

HUB_NAME = "ylecun/mnist"
DIGITS = tuple(map(str, range(10)))
# split -> images and labels, with the SHA-256 of what is packed in each
FILES = {
    "train": (
        ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ),
    "test": (
        ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
}
WAY_OUT = "or train on the digits that scikit-learn carries, with data=digits"


class MNIST(Images):
    """60,000 and 10,000 handwritten digits of 28 by 28 pixels, in 28 steps of 28.

    Args:
        path: a folder with the four files of MNIST, packed (.gz) or not, as torchvision keeps them too (``MNIST/raw``).
        source: "local" (``path``, else ``$SEQNETS_DATA/mnist``), "hub", or "auto", the first of them.

    and those of `Images`.

    Raises:
        ConfigError: an argument cannot work.
        DataError: the digits are missing, incomplete or damaged.
    """

    size = 28
    labels = DIGITS

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        source: str = "auto",
        batch_size: int = 32,
        eval_batch_size: int = 256,
        validation_fraction: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
        encoder: ImageEncoder | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, validation_fraction, num_workers, seed, encoder)
        check_choice(path, source, ("local", "hub"))
        self.path, self.source = path, source

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
        if self.path is not None:
            return read_folder(local_folder(self.path, "mnist"))
        sources = {"local": lambda: read_folder(local_folder(None, "mnist")), "hub": _hub}
        return first_available("MNIST digits", sources, self.source, f", {WAY_OUT}")


class ScikitDigits(Images):
    """1,797 handwritten digits of 8 by 8 pixels, which scikit-learn carries; every sixth is held out to test.

    The arguments are those of `Images`.
    """

    size = 8
    labels = DIGITS

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
        try:
            import sklearn
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError(f"scikit-learn cannot be imported ({error}): `pip install scikit-learn`.") from error
        found = load_digits()
        images = (found.images * (255 / 16)).round().astype(np.uint8)
        test = np.arange(len(images)) % 6 == 0
        splits = {"train": (images[~test], found.target[~test]), "test": (images[test], found.target[test])}
        note = "Digits of 8 x 8 pixels: no figure of it is one of MNIST."
        return splits, {"source": "package", "location": f"scikit-learn {sklearn.__version__}", "note": note}


def read_folder(folder: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """MNIST's four files.

    Raises:
        DataError: one is missing, or is not MNIST's.
    """
    for place in (folder, folder / "raw", folder / "MNIST" / "raw"):
        if any(_find(place, name) for parts in FILES.values() for name, _ in parts):
            break
    else:
        names = ", ".join(f"{name}.gz" for parts in FILES.values() for name, _ in parts)
        raise DataError(f"{folder} has none of MNIST's files: put {names} there, {WAY_OUT}.")
    splits = {
        split: (_read_idx(place, *images), _read_idx(place, *labels)) for split, (images, labels) in FILES.items()
    }
    return splits, {"source": "local", "location": str(folder), "note": ""}


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _read_idx(folder: Path, name: str, checksum: str) -> np.ndarray:
    file = _find(folder, name)
    if file is None:
        raise DataError(f"{folder} lacks {name} or {name}.gz: put it there.")
    try:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{file} cannot be read ({error}): put it there anew.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != checksum:
        raise DataError(
            f"{file} is not MNIST's: its content has the SHA-256 {found}, not {checksum}; put it there anew."
        )
    # magic number: two zeros, the type (8: bytes), the number of dimensions; then each, and the data
    dimensions = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(dimensions).copy()


def _hub() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    loaded, note = load_from_hub(HUB_NAME)
    splits = {}
    for name in FILES:
        rows = split_of(loaded, HUB_NAME, name)
        splits[name] = np.stack([np.asarray(image, np.uint8) for image in rows["image"]]), np.asarray(rows["label"])
    return splits, {"source": "hub", "location": HUB_NAME, "note": note}
