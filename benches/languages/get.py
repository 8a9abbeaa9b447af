"""Nanoseconds for a variable, a clock and a cached token: see run.py."""

import time
import timeit

import amp_token

VALUE = "value"
TIMES = 300_000


def nanoseconds(work):
    def loop():
        for _ in range(TIMES):
            work()

    return min(timeit.repeat(loop, number=1, repeat=5)) / TIMES * 1e9


def variable():
    return VALUE


with amp_token.TokenCache() as cache:
    cache.value()
    print(f"{nanoseconds(variable):.1f} {nanoseconds(time.monotonic):.1f} {nanoseconds(cache.value):.1f}")
