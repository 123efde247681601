"""How evenly the thread pool can share a parallel loop."""

# The thread pool cuts a parallel loop into so many tasks for each thread (artifact/csrc/threads.c).
_TASKS_PER_THREAD = 4


def parallel_loss(extent: int, threads: int) -> float:
    """The time of a parallel loop of equal iterations over that of one divided evenly: at least 1."""
    if threads == 1:
        return 1.0
    stretch = -(-extent // (_TASKS_PER_THREAD * threads))
    tasks = -(-extent // stretch)
    return -(-tasks // threads) * stretch * threads / extent


def balanced_divisor(n: int, limit: int, threads: int, edge: float, others: int = 1) -> int:
    """A divisor of `n` that is at most `limit`, as the size of the blocks of a parallel loop.

    It weighs uneven work for `threads` against what each block costs beside its share: `edge` iterations. `others` is
    the extent of the loops that are fused with the one over blocks.
    """
    divisors = [d for d in range(1, min(n, max(1, limit)) + 1) if n % d == 0]
    return min(divisors, key=lambda d: parallel_loss(n // d * others, threads) * (1 + edge / d))
