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
from lowgemm.schedules._steps import parallel_loss as parallel_loss
from lowgemm.schedules._tasks import FAMILIES as FAMILIES
from lowgemm.schedules._tasks import KernelTask as KernelTask
from lowgemm.schedules._tasks import check_config as check_config
from lowgemm.schedules._tasks import config_from_json as config_from_json
from lowgemm.schedules._tasks import config_space as config_space
from lowgemm.schedules._tasks import config_to_json as config_to_json
from lowgemm.schedules._tasks import default_config as default_config
from lowgemm.schedules._tasks import task_from_json as task_from_json
from lowgemm.schedules._tasks import task_to_json as task_to_json
