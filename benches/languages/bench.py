"""As bench.c, in Python."""

import os
from time import monotonic, perf_counter_ns

import amp_token

count = int(os.environ["COUNT"])
cache = amp_token.TokenCache()
kept, until = cache.value(), monotonic() + 3600


def get():
    value = cache.value
    for _ in range(count):
        value()


class Plain:
    """The same with a method, because nobody writes the comparison at each place."""

    def value(self):
        if monotonic() < until:
            return kept


def plain():
    value = Plain().value
    for _ in range(count):
        value()


def best_of(work):
    times = []
    for _ in range(7):
        start = perf_counter_ns()
        work()
        times.append((perf_counter_ns() - start) / count)
    return min(times)


print(f"{best_of(get):.1f} {best_of(plain):.1f}")
