"""Configurations count what the packing makes of a shape, and one that does not divide it is refused."""

from dataclasses import replace

import pytest

from lowgemm import schedules, topi
from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.schedules import ConvConfig
from lowgemm.targets import LEVELS

from conv_check import Conv, check
from isa import isas

TARGET = LEVELS["avx_vnni"]
GOOD = ConvConfig(1, 4, 1, 8, 1, "rows", 1, widen=False)


@pytest.mark.parametrize("level", isas())
@pytest.mark.parametrize(("out", "group"), [(34, 2), (36, 4), (15, 3)])
def test_groups_that_share_a_block(level: str, out: int, group: int) -> None:
    """17 outputs a group are 3 panels of 8, but 34 in one block are 5."""
    check(Conv((1, 4 * group, 2, 3), out, group=group), level, kinds=("random",))


@pytest.mark.parametrize("bad", [replace(GOOD, vectors=2), replace(GOOD, block=3)], ids=str)
def test_config_that_does_not_divide_is_refused(bad: ConvConfig) -> None:
    shape = ConvShape(1, 7, 12, 16, 24, (1, 1))
    packing = ConvPacking.of(shape, schedules.dot_layout(TARGET, GOOD.lanes))
    form = topi.ConvForm("uint8", "uint8", (1, 4), staged=False, widen=False)

    def schedule(config: ConvConfig) -> None:
        func = topi.qconv2d(shape, packing, form)
        schedules.schedule_qconv2d(func, shape, packing, form, TARGET, config)

    schedule(GOOD)
    with pytest.raises(ValueError, match="do not divide"):
        schedule(bad)
