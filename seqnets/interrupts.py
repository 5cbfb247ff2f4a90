"""Ends a command as shells expect after a signal or a closed pipe: with one line, and status 128 + signal number."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CLOSED_PIPE = 13  # the number of SIGPIPE, which Windows does not have
# the signals that end commands and runs; Windows has no SIGHUP
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_came: int = signal.SIGINT


def interrupted_status() -> int:
    """Return the exit status of an interrupted process: 128 plus the number of the last signal, by default SIGINT."""
    return 128 + _came


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, and exit without a traceback if nothing handles it.

    A closed pipe (``… | head``) ends the process in the same way. SIGINT also arrives in a process that a shell started
    in the background with SIGINT ignored. In threads other than the main one, signal handlers are left alone.

    Raises:
        SystemExit: After an interrupt or a closed pipe, with the status that shells expect.
    """
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        ends = [n for n in SIGNALS if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]  # as nohup sets it
        replaced = {number: signal.signal(number, _interrupt) for number in ends}
    try:
        try:
            yield
        except KeyboardInterrupt:
            with suppress(OSError):
                print("interrupted", file=sys.stderr)
            raise SystemExit(interrupted_status()) from None
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # None if the shell closed the stream
                    stream.flush()
    except BrokenPipeError as error:
        before = error.__context__
        if not silence(has_no_reader):  # it was another pipe
            raise
        if before is not None and not isinstance(before, SystemExit | BrokenPipeError):
            raise before from None
        raise SystemExit(getattr(before, "code", None) or 128 + CLOSED_PIPE) from None
    except SystemExit as end:
        # Rich ends a process with status 1 when its pipe is closed
        if end.code == 1 and isinstance(end.__context__, BrokenPipeError) and _goes_nowhere(1):
            raise SystemExit(128 + CLOSED_PIPE) from None
        raise
    finally:
        for number, handler in replaced.items():
            if handler is not None:
                signal.signal(number, handler)


def silence(is_gone: Callable[[int], bool]) -> bool:
    """Redirect closed output streams to the null device, because writing to a closed terminal or pipe raises an error.

    Args:
        is_gone: tells whether a file descriptor is closed at its other end.

    Returns:
        Whether standard output or standard error was closed.
    """
    nowhere, any_gone = os.open(os.devnull, os.O_WRONLY), False
    for descriptor in (1, 2):
        with suppress(OSError):
            if is_gone(descriptor):
                os.dup2(nowhere, descriptor)
                any_gone = True
    os.close(nowhere)
    return any_gone


def has_no_reader(descriptor: int) -> bool:
    """Tell whether a file descriptor is a pipe without a reader.

    Systems without `select.poll` cannot tell; there it is assumed of standard output alone.
    """
    if not hasattr(select, "poll"):
        return descriptor == 1
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _goes_nowhere(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return False


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    _came = number
    raise KeyboardInterrupt
