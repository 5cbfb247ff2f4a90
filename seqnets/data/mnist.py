"""Provides handwritten digits: MNIST, and the small ones that come with scikit-learn.

MNIST: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.data.files import File, find_files
from seqnets.data.images import ImageEncoder, Images
from seqnets.data.origins import check_choice
from seqnets.errors import DataError
from seqnets.optional import needed

DIGITS = tuple(map(str, range(10)))
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/{}.gz"  # the mirror that torchvision uses
CHECKSUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES = {name: File(checksum, _URL.format(name)) for name, checksum in CHECKSUMS.items()}
SPLITS = {"train": "train", "test": "t10k"}  # split name here -> how the names of its files begin


class MNIST(Images):
    """Provides 60,000 training and 10,000 test digits of 28 by 28 pixels, as 28 steps of 28 inputs.

    Args:
        path: the folder with the four files of MNIST, packed (.gz) or not. The files may also be in ``MNIST/raw`` below
            it, where torchvision keeps them.
        source: "local" (``path``, else ``$SEQNETS_DATA/mnist``), "download", or "auto" to try them in this order.
        batch_size, eval_batch_size, validation_fraction, num_workers, seed, encoder: as `Images` takes them.

    Raises:
        ConfigError: If an argument is invalid.
        DataError: From ``prepare_data`` or ``setup``, if the digits are missing, incomplete or damaged.
    """

    size = 28
    labels = DIGITS
    licence = "CC BY-SA 3.0, as commonly stated"

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
        check_choice(path, source, ("local", "download"))
        self.path, self.source = path, source

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
        try:
            contents, origin = find_files("mnist", FILES, self._folder(), self.source)
        except DataError as error:
            raise DataError(f"{error}\nOr train on the digits that scikit-learn carries, with data=digits.") from error
        arrays = {name: _idx(content) for name, content in contents.items()}
        splits = {
            split: (arrays[f"{stem}-images-idx3-ubyte"], arrays[f"{stem}-labels-idx1-ubyte"])
            for split, stem in SPLITS.items()
        }
        return splits, origin

    def _folder(self) -> Path | None:
        """Return the folder of the files, which torchvision keeps in a subfolder; None if no path is given."""
        if self.path is None:
            return None
        folder = Path(self.path).expanduser()
        return next((inner for inner in (folder / "raw", folder / "MNIST" / "raw") if inner.is_dir()), folder)


class ScikitDigits(Images):
    """Provides the 1,797 digits of 8 by 8 pixels that come with scikit-learn. Every sixth is held out for the test.

    The arguments are those of `Images`.
    """

    size = 8
    labels = DIGITS
    licence = "BSD-3-Clause, scikit-learn's"

    def _read(self) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
        found = needed("sklearn.datasets", "data=digits").load_digits()
        images = (found.images * (255 / 16)).round().astype(np.uint8)
        test = np.arange(len(images)) % 6 == 0
        splits = {"train": (images[~test], found.target[~test]), "test": (images[test], found.target[test])}
        note = "Digits of 8 x 8 pixels: no figure of it is one of MNIST."
        return splits, {"source": "package", "location": f"scikit-learn {version('scikit-learn')}", "note": note}


def _idx(content: bytes) -> np.ndarray:
    """Parse a file in MNIST's IDX format as a uint8 array.

    The file holds two zero bytes, the type (8 for bytes), the number of dimensions, each dimension as a big-endian
    int32, and then the data.
    """
    dimensions = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(dimensions).copy()
