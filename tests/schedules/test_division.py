"""A configuration that does not divide the shape is refused."""

from dataclasses import replace

import pytest

from lowgemm import schedules, topi
from lowgemm.packing import ConvPacking, ConvShape
from lowgemm.schedules import ConvConfig, DepthwiseConfig
from lowgemm.targets import LEVELS

TARGET = LEVELS["avx_vnni"]
GOOD = ConvConfig(1, 4, 1, 8, 1, "rows", 1, widen=False)


@pytest.mark.parametrize("bad", [replace(GOOD, vectors=2), replace(GOOD, block=3)], ids=str)
def test_config_that_does_not_divide_is_refused(bad: ConvConfig) -> None:
    shape = ConvShape(1, 7, 12, 16, 24, (1, 1))
    packing = ConvPacking.of(shape, schedules.dot_layout(TARGET, GOOD.lanes))
    output = topi.OutputForm("uint8")
    form = topi.ConvForm("uint8", output, (1, 4), staged=False, widen=False)

    def schedule(config: ConvConfig) -> None:
        func = topi.qconv2d(shape, packing, form)
        schedules.schedule_qconv2d(func, shape, packing, form, TARGET, config)

    schedule(GOOD)
    with pytest.raises(ValueError, match="do not divide"):
        schedule(bad)


@pytest.mark.parametrize("bad", [DepthwiseConfig(2, 3), DepthwiseConfig(2, 7, 2)], ids=str)
def test_depthwise_config_that_does_not_divide_is_refused(bad: DepthwiseConfig) -> None:
    shape = ConvShape(1, 7, 11, 32, 32, (3, 3), padding=(1, 1, 1, 1), groups=32)

    def schedule(config: DepthwiseConfig) -> None:
        packing = schedules.depthwise_packing(shape, TARGET, 1)
        rows = schedules.interleaving(shape, packing, config)
        tile = (config.columns, config.block_rows)
        form = topi.DepthwiseForm("uint8", topi.OutputForm("uint8"), *tile, rows)
        func = topi.qdepthwise2d(shape, packing, form)
        schedules.schedule_qdepthwise2d(func, shape, packing, form, TARGET, config)

    schedule(DepthwiseConfig(2, 1))
    with pytest.raises(ValueError, match="does not divide 7 rows of 11"):
        schedule(bad)
