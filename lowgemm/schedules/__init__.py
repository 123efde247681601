"""How operators are computed: s_tir schedules around the dot-product intrinsics, configured by frozen dataclasses."""

from lowgemm.schedules._conv import FEW_PIXELS as FEW_PIXELS
from lowgemm.schedules._conv import ConvConfig as ConvConfig
from lowgemm.schedules._conv import default_conv_config as default_conv_config
from lowgemm.schedules._conv import dot_layout as dot_layout
from lowgemm.schedules._conv import needs_stage as needs_stage
from lowgemm.schedules._conv import schedule_qconv2d as schedule_qconv2d
from lowgemm.schedules._depthwise import DepthwiseConfig as DepthwiseConfig
from lowgemm.schedules._depthwise import default_depthwise_config as default_depthwise_config
from lowgemm.schedules._depthwise import depthwise_packing as depthwise_packing
from lowgemm.schedules._depthwise import schedule_qdepthwise2d as schedule_qdepthwise2d
from lowgemm.schedules._depthwise import shares_rows as shares_rows
from lowgemm.schedules._elementwise import schedule_copy as schedule_copy
from lowgemm.schedules._elementwise import schedule_elementwise as schedule_elementwise
from lowgemm.schedules._elementwise import schedule_pool as schedule_pool
from lowgemm.schedules._elementwise import schedule_quantize as schedule_quantize
from lowgemm.schedules._float import schedule_float as schedule_float
