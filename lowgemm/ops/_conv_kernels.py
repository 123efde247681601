"""The kernels that compute convolutions: which one, in which configuration, of which packing of the weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lowgemm.packing import ConvPacking, ConvShape, GroupedPacking, WinogradPacking, dot_layout
from lowgemm.targets import CpuTarget
from lowgemm.tiling import (
    conv_lanes,
    default_conv_config,
    default_depthwise_config,
    default_direct_depthwise_config,
    default_grouped_config,
    default_winograd_config,
    depthwise_packing,
    direct_depthwise_packing,
    direct_depthwise_pays,
    grouped_fits,
    grouped_packing,
    interleaving,
    needs_stage,
    summing_target,
    unstaged_stores,
    winograd_packing,
    winograd_size,
)

if TYPE_CHECKING:
    from lowgemm.ops._conv_plan import Filters
    from lowgemm.ops._phases import Phase


@dataclass(frozen=True)
class Kernel(ABC):
    """What a kernel is made of, but for its output stage.

    `staged` says that the function takes what the padding is made of, `flip` that int8 inputs count as 128 more.
    """

    x_dtype: str
    shape: ConvShape
    target: CpuTarget
    config: Any
    packing: Any
    staged: bool
    flip: bool

    @property
    def paired(self) -> int:
        """Panels that share an order of words of their own, 0 if words are in order."""
        return self.config.vectors if self.target.paired else 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows of pixels of an output image, and pixels of a row, as the kernel computes them."""
        return self.shape.out_height, self.shape.out_width

    @abstractmethod
    def function(self, output: Any) -> Any:
        """The scheduled function with the output stage `output`, a `topi.OutputForm`."""

    def _scheduled(self, define: Callable, schedule: Callable, form: Any):
        what = (self.shape, self.packing, form)
        return schedule(define(*what), *what, self.target, self.config)


@dataclass(frozen=True)
class Depthwise(Kernel):
    """`topi.qdepthwise2d`, which adds up so many filters."""

    passes: int

    def function(self, output: Any):
        from lowgemm import schedules, topi

        config = self.config
        tile = (config.columns, config.block_rows)
        rows = interleaving(self.shape, self.packing, config)
        form = topi.DepthwiseForm(self.x_dtype, output, *tile, rows, self.passes)
        return self._scheduled(topi.qdepthwise2d, schedules.schedule_qdepthwise2d, form)


class DirectDepthwise(Kernel):
    """`schedules.qdepthwise_direct`."""

    def function(self, output: Any):
        from lowgemm import schedules

        return schedules.qdepthwise_direct(
            self.shape, self.packing, self.x_dtype, output, self.target, self.config
        )


class Grouped(Kernel):
    """`schedules.qgrouped2d`."""

    def function(self, output: Any):
        from lowgemm import schedules

        return schedules.qgrouped2d(
            self.shape, self.packing, self.x_dtype, output, self.target, self.config
        )


class Direct(Kernel):
    """`topi.qconv2d`."""

    @property
    def grid(self) -> tuple[int, int]:
        return self.shape.grid

    def function(self, output: Any):
        from lowgemm import schedules, topi

        config = self.config
        widen = self.packing.layout.rhs != "int8" and config.widen
        tile = (config.rows, config.columns)
        form = topi.ConvForm(self.x_dtype, output, tile, self.staged, widen, self.paired)
        return self._scheduled(topi.qconv2d, schedules.schedule_qconv2d, form)


class Winograd(Kernel):
    """`topi.qwinograd2d`."""

    def function(self, output: Any):
        from lowgemm import schedules, topi

        config = self.config
        form = topi.WinogradForm(self.x_dtype, output, config.block, config.columns, config.part)
        return self._scheduled(topi.qwinograd2d, schedules.schedule_qwinograd2d, form)


def kernel_for(
    filters: Filters,
    shape: ConvShape,
    phase: Sequence[Phase],
    form: Mapping[str, Any],
    threads: int,
) -> Kernel:
    """The kernel for a phase of the convolution, which has the geometry `shape` and the output stage `form`."""
    x_dtype, passes, target = filters.x_dtype, filters.passes, filters.target
    if filters.depthwise:
        taken = passes == 1 or dot_layout(target, target.lanes).rhs != "int8"
        if taken and direct_depthwise_pays(shape, target) and unstaged_stores(**form):
            tile = default_direct_depthwise_config(shape, target, threads)
            direct = direct_depthwise_packing(shape, target, tile)
            return DirectDepthwise(x_dtype, shape, target, tile, direct, True, True)
        config = default_depthwise_config(shape, target, threads)
        packing = depthwise_packing(shape, target, config.segments)
        return Depthwise(x_dtype, shape, target, config, packing, True, True, passes)

    def packing_for(view: CpuTarget) -> ConvPacking:
        return ConvPacking.of(shape, dot_layout(view, conv_lanes(shape, view)))

    def fits(view: CpuTarget) -> bool:
        packing = packing_for(view)
        return packing.sums_fit(filters.pack(packing, phase).weight)

    if passes == 1 and unstaged_stores(**form):

        def lanes_fit(packing: GroupedPacking) -> bool:
            return packing.sums_fit(filters.pack(packing, phase).weight)

        if grouped_fits(shape, target, lanes_fit):
            view = target.summing(1)
            tile = default_grouped_config(shape, view, threads)
            groups = grouped_packing(shape, view)
            return Grouped(x_dtype, shape, view, tile, groups, True, True)
    view = summing_target(target, fits)
    # Groups that share a block of weights are one to the direct kernel.
    merged = packing_for(view)
    direct_shape = replace(shape, groups=merged.groups)
    if view.summed == 1:
        paired = view.summing(1, paired=True)
        vectors = default_conv_config(direct_shape, paired, threads).vectors
        if merged.pairs_pay(filters.pack(merged, phase).weight, vectors):
            view = paired
    # What zero points of weights take off is a sum over the window.
    size = None
    if passes == 1 and shape.kernel == (3, 3):
        size = winograd_size(shape, view, threads, WinogradPacking.sizes(filters.values))
    if size is not None:
        fewer = default_winograd_config(shape, target, threads, size)
        layout = winograd_packing(shape, target, size, fewer.part > 0)
        return Winograd(x_dtype, shape, target, fewer, layout, True, False)
    tile = default_conv_config(direct_shape, view, threads)
    staged = needs_stage(direct_shape, merged, x_dtype, tile)
    flip = merged.layout.lhs == "uint8"
    return Direct(x_dtype, direct_shape, view, tile, merged, staged, flip)
