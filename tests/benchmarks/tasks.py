"""What workers do in `test_prove_workers`: functions of a module, as a process that is started anew must find them."""

import os
import signal
import sys
import time


def setup():
    os.environ["SEQNETS_TEST_SETUP"] = "done"


def identify(value):
    return {"value": value, "process": os.getpid(), "set_up": os.environ.get("SEQNETS_TEST_SETUP")}


def fail():
    raise RuntimeError("\nCUDA error: an illegal memory access was encountered\nmore of it")


def end():
    print("the last words", file=sys.stderr, flush=True)
    os._exit(3)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    print("before it hangs", flush=True)
    time.sleep(600)


def spend():
    return {"process": os.getpid(), "spent": True}


def warn():
    print("a warning", file=sys.stderr, flush=True)
    return {}
