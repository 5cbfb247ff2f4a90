"""Ends a command as shells expect where a signal or a closed pipe ends it: in a word, with status 128 plus the signal's number."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CLOSED_PIPE = 13  # SIGPIPE, where there is one

_came: int = signal.SIGINT


def interrupted_status() -> int:
    """Return the exit status of a process that a signal interrupts: 128 plus the number of the last that came."""
    return 128 + _came


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGINT and SIGTERM a KeyboardInterrupt, and end the process without a traceback upon one that nobody handles.

    A closed pipe (``… | head``) ends it too. SIGINT comes through where a shell has started the process in the background, and has it
    ignored. Threads other than the main one leave signals as they are.
    """
    replaced = {}
    if threading.current_thread() is threading.main_thread():
        replaced = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            yield
        except KeyboardInterrupt:
            with suppress(OSError):
                print("interrupted", file=sys.stderr)
            raise SystemExit(interrupted_status()) from None
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as where the shell has closed it
                    stream.flush()
    except BrokenPipeError as error:
        before = error.__context__
        if not silence(has_no_reader):  # it was another pipe
            raise
        if before is not None and not isinstance(before, SystemExit | BrokenPipeError):
            raise before from None
        raise SystemExit(getattr(before, "code", None) or 128 + CLOSED_PIPE) from None
    except SystemExit as end:
        # as Rich ends a process
        if end.code == 1 and isinstance(end.__context__, BrokenPipeError) and _goes_nowhere(1):
            raise SystemExit(128 + CLOSED_PIPE) from None
        raise
    finally:
        for number, handler in replaced.items():
            if handler is not None:
                signal.signal(number, handler)


def silence(is_gone: Callable[[int], bool]) -> bool:
    """Have what is still printed go nowhere, as writing to a closed terminal or pipe raises; tell whether one was closed.

    Args:
        is_gone: tells so of a file descriptor.
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
    """Tell whether a file descriptor is a pipe that nobody reads any more."""
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
