"""Configurations of kernels, chosen without compiling anything.

Apart from the schedules, because whoever calls a kernel that is compiled already must not wait for TVM to load.
"""

from lowgemm.tiling._acc16 import acc16_configs as acc16_configs
from lowgemm.tiling._acc16 import acc16_packing as acc16_packing
from lowgemm.tiling._balance import balanced_divisor as balanced_divisor
from lowgemm.tiling._balance import parallel_loss as parallel_loss
from lowgemm.tiling._conv import FEW_PIXELS as FEW_PIXELS
from lowgemm.tiling._conv import SERIAL_MACS as SERIAL_MACS
from lowgemm.tiling._conv import ConvConfig as ConvConfig
from lowgemm.tiling._conv import block_tiles as block_tiles
from lowgemm.tiling._conv import check_conv_config as check_conv_config
from lowgemm.tiling._conv import conv_lanes as conv_lanes
from lowgemm.tiling._conv import default_conv_config as default_conv_config
from lowgemm.tiling._conv import fetches_rows as fetches_rows
from lowgemm.tiling._conv import needs_stage as needs_stage
from lowgemm.tiling._conv import row_image as row_image
from lowgemm.tiling._depthwise import DepthwiseConfig as DepthwiseConfig
from lowgemm.tiling._depthwise import blocks_together as blocks_together
from lowgemm.tiling._depthwise import check_depthwise_config as check_depthwise_config
from lowgemm.tiling._depthwise import default_depthwise_config as default_depthwise_config
from lowgemm.tiling._depthwise import depthwise_packing as depthwise_packing
from lowgemm.tiling._depthwise import interleaving as interleaving
from lowgemm.tiling._depthwise_direct import MOST_PIXELS as MOST_PIXELS
from lowgemm.tiling._depthwise_direct import DirectDepthwiseConfig as DirectDepthwiseConfig
from lowgemm.tiling._depthwise_direct import (
    check_direct_depthwise_config as check_direct_depthwise_config,
)
from lowgemm.tiling._depthwise_direct import (
    default_direct_depthwise_config as default_direct_depthwise_config,
)
from lowgemm.tiling._depthwise_direct import direct_depthwise_packing as direct_depthwise_packing
from lowgemm.tiling._depthwise_direct import direct_depthwise_pays as direct_depthwise_pays
from lowgemm.tiling._depthwise_direct import direct_depthwise_takes as direct_depthwise_takes
from lowgemm.tiling._gemm import MOST_ROWS as MOST_ROWS
from lowgemm.tiling._gemm import GemmConfig as GemmConfig
from lowgemm.tiling._gemm import default_gemm_configs as default_gemm_configs
from lowgemm.tiling._gemm import gemm_packing as gemm_packing
from lowgemm.tiling._gemm import gemm_staged as gemm_staged
from lowgemm.tiling._gemm import paired_panels as paired_panels
from lowgemm.tiling._grouped import GroupedConfig as GroupedConfig
from lowgemm.tiling._grouped import check_grouped_config as check_grouped_config
from lowgemm.tiling._grouped import default_grouped_config as default_grouped_config
from lowgemm.tiling._grouped import grouped_fits as grouped_fits
from lowgemm.tiling._grouped import grouped_packing as grouped_packing
from lowgemm.tiling._registers import held_weights as held_weights
from lowgemm.tiling._registers import summing_target as summing_target
from lowgemm.tiling._registers import tile_registers as tile_registers
from lowgemm.tiling._tiles import TileConfig as TileConfig
from lowgemm.tiling._unstaged import unstaged_prefetches as unstaged_prefetches
from lowgemm.tiling._unstaged import unstaged_stores as unstaged_stores
from lowgemm.tiling._winograd import WINOGRAD_CHANNELS as WINOGRAD_CHANNELS
from lowgemm.tiling._winograd import WinogradConfig as WinogradConfig
from lowgemm.tiling._winograd import check_winograd_config as check_winograd_config
from lowgemm.tiling._winograd import default_winograd_config as default_winograd_config
from lowgemm.tiling._winograd import winograd_packing as winograd_packing
from lowgemm.tiling._winograd import winograd_size as winograd_size
from lowgemm.tiling._winograd import winograd_takes as winograd_takes
