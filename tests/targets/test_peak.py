"""What the machine can reach: measured figures can only be compared with each other."""

import pytest

from lowgemm import targets
from lowgemm.errors import TargetError
from lowgemm.targets import peak

LEVELS = [target.level for target in targets.host_levels() if target.verified]


@pytest.mark.isa("avx2")
@pytest.mark.parametrize("threads", [1, 2])
def test_every_sequence_of_the_best_level_is_measured(threads: int) -> None:
    rates = peak.measure_dot_rates(LEVELS[0], threads)
    assert rates and all(rate > 1 for rate in rates.values())
    (fma,) = peak.measure_fma_rates(LEVELS[0], threads).values()
    assert 1 < fma < max(rates.values()), "8-bit products are faster than float32 ones"


@pytest.mark.isa("avx2")
def test_runs_of_products_have_a_known_number_of_them() -> None:
    """Two threads do twice as many; a rate is never far above the peak."""
    name = "vpmaddubsw+vpmaddwd+vpaddd ymm"
    one, two = peak.DotRuns(name, 1), peak.DotRuns(name, 2)
    assert two.macs == 2 * one.macs
    seconds = one(20)
    assert len(seconds) == 20 and min(seconds) > 0
    assert 2e-9 * one.macs / min(seconds) < 2 * peak.measure_dot_rates("avx2")[name]
    with pytest.raises(TargetError, match="cannot run vpmaddubsw on 1 threads"):
        peak.DotRuns("vpmaddubsw", 1)


def test_every_cache_and_memory_is_read_and_copied() -> None:
    names = [*peak.cache_sizes(), "memory"]
    for measure in (peak.measure_read_rates, peak.measure_copy_rates):
        rates = measure(2)
        assert list(rates) == names
        assert rates["L1"] > rates["memory"] > 0.1


def test_a_plain_read_has_as_many_bytes_as_are_asked_for() -> None:
    assert peak.measure_read_rate(1 << 14) > 1
    with pytest.raises(ValueError, match="at least 512 bytes"):
        peak.measure_read_rate(600, threads=2)


def test_levels_that_are_not_here_are_refused() -> None:
    with pytest.raises(TargetError, match='unknown target "sse"'):
        peak.measure_dot_rates("sse")
    lacking = [t.level for t in targets.LEVELS.values() if t.missing(targets.host_features())]
    for level in lacking:
        with pytest.raises(TargetError, match="this CPU lacks"):
            peak.measure_fma_rates(level)
