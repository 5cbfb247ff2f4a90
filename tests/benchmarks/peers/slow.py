"""Takes a minute to compile, so to speak."""

import time


def versions(settings):
    return {"slow": "1"}


def why_not(case, settings):
    return None


def prepare(case, arrays, settings):
    time.sleep(60)
