"""Finds data sets that consist of a few files with known contents, in a folder or by download."""

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from seqnets.data.origins import Unavailable, first_available, local_folder
from seqnets.errors import DataError
from seqnets.folders import cache_directory, make_private

log = logging.getLogger(__name__)

SECONDS = 10.0  # after so long without a response a host counts as unreachable


class File(NamedTuple):
    """Describes a file of a data set.

    Attributes:
        sha256: the SHA-256 of the unpacked content.
        url: where the file is published; packed if the name ends in ``.gz``.
    """

    sha256: str
    url: str


def find_files(
    name: str, files: Mapping[str, File], path: str | os.PathLike[str] | None = None, source: str = "auto"
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the contents of all `files` by name, and their source, location and note.

    The files come from "local" (the folder `path`, else ``$SEQNETS_DATA/<name>``) or "download" (kept in the cache
    folder). "auto" tries them in this order. A `path` rules out the download.

    Raises:
        DataError: If the files are not available, or one has the wrong content. The message says what to put where.
    """

    def local() -> tuple[dict[str, bytes], dict[str, Any]]:
        return read_files(local_folder(path, name), files), {
            "source": "local",
            "location": str(local_folder(path, name)),
        }

    def download() -> tuple[dict[str, bytes], dict[str, Any]]:
        folder = _downloaded(name, files)
        return read_files(folder, files), {"source": "download", "location": str(folder)}

    sources = {"local": local} if path is not None else {"local": local, "download": download}
    contents, origin = first_available(f"files of {name}", sources, source)
    log.info("%s: from source %s, %s.", name, origin["source"], origin["location"])
    return contents, origin | {"note": ""}


def fingerprint(contents: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of all files, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(hashlib.sha256(contents[name]).digest())
    return digest.hexdigest()


def read_files(folder: Path, files: Mapping[str, File]) -> dict[str, bytes]:
    """Return the contents of `files` in `folder` by name, unpacked if they are ``.gz``.

    Raises:
        DataError: If a file is missing, damaged or different from the published one.
    """
    contents = {}
    for name, file in files.items():
        place = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
        if place is None:
            raise DataError(f"{folder} lacks {name}: download {file.url} and put it there.")
        try:
            raw = place.read_bytes()
            contents[name] = gzip.decompress(raw) if place.suffix == ".gz" else raw
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{place} cannot be read ({error}): download {file.url} and put it there anew.") from error
        if (found := hashlib.sha256(contents[name]).hexdigest()) != file.sha256:
            raise DataError(
                f"{place} is not the file that is published: its content has the SHA-256 {found}, not {file.sha256}; "
                f"download {file.url} and put it there anew."
            )
    return contents


def _downloaded(name: str, files: Mapping[str, File]) -> Path:
    """Download the files that are missing, and return the cache folder that holds all of them.

    Raises:
        Unavailable: If they cannot be downloaded. The message says why.
        DataError: If a downloaded file has the wrong checksum.
    """
    try:
        import pooch
        from requests import ConnectionError as NoConnection
        from requests import RequestException
    except ImportError as error:
        raise Unavailable(f"The package pooch cannot be imported ({error}): `pip install pooch`.") from error
    folder = cache_directory() / "downloads" / name
    quiet = pooch.get_logger()
    level = quiet.level
    quiet.setLevel(logging.WARNING)
    try:
        make_private(folder)
        for file in files.values():
            packed, saved = file.url.endswith(".gz"), file.url.rsplit("/", 1)[1]
            if not (folder / saved).exists():
                log.info("%s: downloading %s", name, file.url)
            pooch.retrieve(
                file.url, None if packed else file.sha256, saved, folder,  # the checksum is that of the unpacked file
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=SECONDS),
            )  # fmt: skip
    except ValueError as error:  # wrong checksum: the published file has changed, or somebody has tampered with it
        raise DataError(f"{name}: {str(error).splitlines()[0]}") from error
    except (OSError, RequestException) as error:
        reason = "there is no connection" if isinstance(error, NoConnection) else str(error).splitlines()[0]
        urls = ", ".join(file.url for file in files.values())
        raise Unavailable(
            f"cannot be downloaded ({reason}). Fetch {urls} and put them into $SEQNETS_DATA/{name}/, "
            "or give data.path=<their folder>."
        ) from error
    finally:
        quiet.setLevel(level)
    return folder
