"""Dies as a library does that writes where it must not; after some words."""

import os
import signal
import sys

from benchmarks.contenders import Work


def versions(settings):
    return {"crashes": "1"}


def why_not(case, settings):
    return None


def prepare(case, arrays, settings):
    def call():
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    return Work(call, wait=lambda result: None, outputs=lambda result: {})
