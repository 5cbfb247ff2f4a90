"""Compiles generated C++ with the installed compiler and keeps the libraries on disk, so once per machine."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from seqnets.folders import OTHERS_WRITE, cache_directory, is_trusted, make_private
from seqnets.kernels.store import locked

log = logging.getLogger(__name__)

HEADERS = (
    "vector.hpp", "threads.hpp", "product.hpp", "dense.hpp", "problem.hpp", "forward.hpp", "backward.hpp",
    "recurrence.hpp",
)  # fmt: skip
INCLUDE = Path(__file__).parent / "include"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
CODE = (".so", ".dll", ".sha256", ".json")  # suffixes of code; JSON holds printed cells
SECONDS = 120  # time limit of the compiler


class CompilationError(RuntimeError):
    """Raised when there is no compiler or it fails; the message is a clause."""


@cache
def find_compiler() -> tuple[str, ...] | None:
    """Return the compiler command: ``CXX``, or else g++, clang++ or c++; None if there is none."""
    if named := os.environ.get("CXX"):
        return tuple(shlex.split(named))
    found = (shutil.which(name) for name in ("g++", "clang++", "c++"))
    return next(((path,) for path in found if path), None)


def compiled(name: str, source: str) -> tuple[ctypes.CDLL, str]:
    """Return the library compiled from a C++ source, and a key of everything that the library depends on.

    The library is loaded from disk if it is there. Where it cannot be kept, it is compiled for this process alone.

    Args:
        name: The first part of the file name.
        source: C++ code, which may include the headers in ``include/``.

    Raises:
        CompilationError: There is no compiler, it failed, or the library cannot be kept or loaded.
    """
    command = find_compiler()
    if command is None:
        raise CompilationError("no C++ compiler was found (install g++ or clang++, or name one in CXX)")
    key, file = _key_and_file(command, name, source)
    try:
        folder = own_folder()
        if folder is None:
            return _load_from_temporary(command, source, file), key
        if not os.access(folder, os.W_OK):  # such as a cache that belongs to root
            library = _load(folder / file)
            return library or _load_from_temporary(command, source, file), key
        with locked(folder / f"{file}.lock", SECONDS):
            library = _load(folder / file)
            if library is None:
                try:
                    _compile(command, source, folder / file)
                except OSError as error:  # for example, the disk is full
                    log.warning(
                        "%s cannot be written (%s); kernels are compiled for this process alone.", folder, error
                    )
                    return _load_from_temporary(command, source, file), key
                library = ctypes.CDLL(str(folder / file))
    except OSError as error:
        raise CompilationError(f"what {command[0]} made cannot be kept, or loaded ({error})") from None
    return library, key


def is_compiled(name: str, source: str) -> bool:
    """Return True if `compiled` need not compile: the library is on disk, or there is no compiler."""
    command, folder = find_compiler(), own_folder()
    return command is None or (folder is not None and (folder / _key_and_file(command, name, source)[1]).exists())


def _key_and_file(command: tuple[str, ...], name: str, source: str) -> tuple[str, str]:
    """Return a hash of everything that a library depends on, and the name of its file."""
    key = hashlib.sha256(
        "\0".join([source, *_headers(), *command, _version(command), *FLAGS, _cpu()]).encode()
    ).hexdigest()
    return key, f"{name}-{key[:20]}{'.dll' if sys.platform == 'win32' else '.so'}"


def own_folder() -> Path | None:
    """Return the folder where libraries are kept, or None with a warning if there is no safe one.

    Libraries are code, so only the user and root may be able to write the folder. If it belongs to the user but others
    can write it, their access is removed and all code in it is deleted. A folder that belongs to root is accepted even
    if the user cannot write it.
    """
    folder = cache_directory() / "kernels"
    try:
        make_private(folder)
        found = folder.stat()
        if not is_trusted(found) and found.st_uid == os.getuid():
            folder.chmod(found.st_mode & ~OTHERS_WRITE)
            for path in folder.iterdir():
                if path.suffix in CODE:
                    path.unlink()
            log.warning("Other users could write %s: it is closed to them now, and kernels are compiled again.", folder)
            found = folder.stat()
    except OSError as error:
        log.warning("%s cannot be used (%s); kernels are compiled for this process alone.", folder, error)
        return None
    if not is_trusted(found):
        log.warning("%s can be written by other users; kernels are compiled for this process alone.", folder)
        return None
    return folder


def _load(path: Path) -> ctypes.CDLL | None:
    """Load a library if its checksum matches and only the user and root can write it; otherwise return None."""
    checksum = path.with_suffix(".sha256")
    try:
        if not all(is_file_trusted(each) for each in (path, checksum)):
            log.warning("%s can be written by other users, or is a link; it is compiled again.", path)
            return None
        digest = checksum.read_text()
        if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            return ctypes.CDLL(str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be loaded (%s); it is compiled again.", path, error)
        return None
    log.warning("%s is damaged; it is compiled again.", path)
    return None


def is_file_trusted(path: Path) -> bool:
    """Return True if the path is a regular file, not a link, that only the user and root can write."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and is_trusted(found)


def _compile(command: tuple[str, ...], source: str, path: Path) -> None:
    """Compile the library and put it at `path` atomically, followed by its checksum."""
    with tempfile.TemporaryDirectory(prefix="seqnets-") as temporary:
        made = Path(temporary, path.name)
        _run(command, source, made)
        beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            shutil.copyfile(made, beside)
            os.replace(beside, path)
            checksum = path.with_suffix(".sha256")
            beside.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
            os.replace(beside, checksum)
        finally:
            beside.unlink(missing_ok=True)


def _load_from_temporary(command: tuple[str, ...], source: str, file: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="seqnets-", ignore_cleanup_errors=True) as temporary:
        _run(command, source, Path(temporary, file))
        return ctypes.CDLL(str(Path(temporary, file)))


def _run(command: tuple[str, ...], source: str, made: Path) -> None:
    given = made.with_suffix(".cpp")
    given.write_text(source, encoding="utf-8")
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, *FLAGS, f"-I{INCLUDE}", "-o", str(made), str(given)],
            capture_output=True, text=True, errors="replace", timeout=SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CompilationError(f"{command[0]} took more than {SECONDS} s") from None
    except OSError as error:
        raise CompilationError(f"{command[0]} cannot be run ({error.strerror}; set CXX to another compiler)") from None
    if done.returncode:
        log.warning("%s failed:\n%s", " ".join(command), done.stderr)
        first = re.search(r"^.*\berror\b.*$", done.stderr, re.MULTILINE)
        reason = first[0].strip() if first else f"exit status {done.returncode}"
        raise CompilationError(f"{command[0]} failed ({reason}); the log has all it said")
    if not made.exists():
        raise CompilationError(f"{command[0]} made nothing")
    log.info("Compiled %s in %.1f s.", made.name, time.perf_counter() - start)


def compiler_version() -> str | None:
    """Return the first line of the compiler's ``--version``, or None if there is no compiler."""
    command = find_compiler()
    return None if command is None else _version(command)


def cpu_name() -> str:
    """Return the CPU's name as the system reports it."""
    return _cpu().partition("\n")[0].partition(":")[2].strip() or _cpu()


@cache
def _version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.partition("\n")[0]


@cache
def _headers() -> tuple[str, ...]:
    return tuple((INCLUDE / name).read_text(encoding="utf-8") for name in HEADERS)


@cache
def _cpu() -> str:
    """Return a description of the CPU with everything that ``-march=native`` depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if re.match(r"(model name|flags|Features|CPU part)\b", line))
    return f"{platform.machine()} {platform.processor()}"
