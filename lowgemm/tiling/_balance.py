"""How evenly the thread pool can share a parallel loop."""


def parallel_loss(extent: int, threads: int) -> float:
    """The time of a parallel loop of equal iterations over that of one divided evenly: at least 1.

    Threads have as many iterations as each other, or one more (artifact/csrc/threads.c).
    """
    return -(-extent // threads) * threads / extent


def balanced_divisor(n: int, limit: int, threads: int, edge: float, others: int = 1) -> int:
    """A divisor of `n` that is at most `limit`, as the size of the blocks of a parallel loop.

    It weighs uneven work for `threads` against what each block costs beside its share: `edge` iterations. `others` is
    the extent of the loops that are fused with the one over blocks.
    """
    divisors = [d for d in range(1, min(n, max(1, limit)) + 1) if n % d == 0]
    return min(divisors, key=lambda d: parallel_loss(n // d * others, threads) * (1 + edge / d))
