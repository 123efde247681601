"""How operators are computed: s_tir schedules around the dot-product intrinsics, configured by frozen dataclasses."""

from lowgemm.schedules._conv import ConvConfig as ConvConfig
from lowgemm.schedules._conv import default_conv_config as default_conv_config
from lowgemm.schedules._conv import schedule_qconv2d as schedule_qconv2d
from lowgemm.schedules._depthwise import DepthwiseConfig as DepthwiseConfig
from lowgemm.schedules._depthwise import default_depthwise_config as default_depthwise_config
from lowgemm.schedules._depthwise import schedule_qdepthwise2d as schedule_qdepthwise2d
from lowgemm.schedules._elementwise import schedule_elementwise as schedule_elementwise
