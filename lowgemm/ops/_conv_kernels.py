"""The kernels that compute convolutions: which one, in which configuration, of which packing of the weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lowgemm.packing import ConvPacking, ConvShape, DepthwisePacking, WinogradPacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    ConvConfig,
    DepthwiseConfig,
    WinogradConfig,
    conv_lanes,
    default_conv_config,
    default_depthwise_config,
    default_winograd_config,
    depthwise_packing,
    interleaving,
    needs_stage,
    summing_target,
    winograd_packing,
    winograd_pays,
)

if TYPE_CHECKING:
    from lowgemm.ops._conv_plan import Filters
    from lowgemm.ops._phases import Phase


@dataclass(frozen=True)
class Depthwise:
    """`topi.qdepthwise2d`. The fields of the other kernels mean the same.

    `staged` says that the function takes what the padding is made of, `flip` that int8 inputs count as 128 more.
    """

    x_dtype: str
    passes: int
    shape: ConvShape
    target: CpuTarget
    config: DepthwiseConfig
    packing: DepthwisePacking
    staged: bool = True
    flip: bool = True

    def function(self, output: Any):
        """The scheduled function with the output stage `output`, a `topi.OutputForm`."""
        from lowgemm import schedules, topi

        shape, packing, config = self.shape, self.packing, self.config
        rows, tile = interleaving(shape, packing, config), (config.columns, config.block_rows)
        form = topi.DepthwiseForm(self.x_dtype, output, *tile, rows, self.passes)
        func = topi.qdepthwise2d(shape, packing, form)
        return schedules.schedule_qdepthwise2d(func, shape, packing, form, self.target, config)


@dataclass(frozen=True)
class Direct:
    """`topi.qconv2d`."""

    x_dtype: str
    shape: ConvShape
    target: CpuTarget
    config: ConvConfig
    packing: ConvPacking
    staged: bool
    flip: bool

    def function(self, output: Any):
        """The scheduled function."""
        from lowgemm import schedules, topi

        shape, packing, config = self.shape, self.packing, self.config
        widen = packing.layout.rhs != "int8" and config.widen
        tile = (config.rows, config.columns)
        form = topi.ConvForm(self.x_dtype, output, tile, self.staged, widen)
        func = topi.qconv2d(shape, packing, form)
        return schedules.schedule_qconv2d(func, shape, packing, form, self.target, config)


@dataclass(frozen=True)
class Winograd:
    """`topi.qwinograd2d`."""

    x_dtype: str
    shape: ConvShape
    target: CpuTarget
    config: WinogradConfig
    packing: WinogradPacking
    staged: bool = True
    flip: bool = False

    def function(self, output: Any):
        """The scheduled function."""
        from lowgemm import schedules, topi

        shape, packing, config = self.shape, self.packing, self.config
        form = topi.WinogradForm(self.x_dtype, output, config.block, config.columns)
        func = topi.qwinograd2d(shape, packing, form)
        return schedules.schedule_qwinograd2d(func, shape, packing, form, self.target, config)


def kernel_for(
    filters: Filters, shape: ConvShape, phase: Sequence[Phase], threads: int
) -> Depthwise | Direct | Winograd:
    """The kernel for a phase of the convolution, which has the geometry `shape`."""
    x_dtype, passes, target = filters.x_dtype, filters.passes, filters.target
    if filters.depthwise:
        config = default_depthwise_config(shape, target, threads)
        packing = depthwise_packing(shape, target, config.segments)
        return Depthwise(x_dtype, passes, shape, target, config, packing)

    def packing_for(view: CpuTarget) -> ConvPacking:
        return ConvPacking.of(shape, dot_layout(view, conv_lanes(shape, view)))

    def fits(view: CpuTarget) -> bool:
        packing = packing_for(view)
        return packing.sums_fit(filters.pack(packing, phase).weight)

    view = summing_target(target, fits)
    # What zero points of weights take off is a sum over the window.
    if passes == 1 and winograd_pays(shape, view, threads):
        fewer = default_winograd_config(shape, target, threads)
        return Winograd(x_dtype, shape, target, fewer, winograd_packing(shape, target))
    merged = packing_for(view)
    # Groups that share a block of weights are one to the kernel.
    shape = replace(shape, groups=merged.groups)
    tile = default_conv_config(shape, view, threads)
    staged = needs_stage(shape, merged, x_dtype, tile)
    flip = merged.layout.lhs == "uint8"
    return Direct(x_dtype, shape, view, tile, merged, staged, flip)
