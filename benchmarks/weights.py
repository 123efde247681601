"""float32 by weights of fewer bits: lowgemm beside FBGEMM's float16 product and PyTorch's float32 one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from lowgemm import reference
from lowgemm.bench.compare import Contestant, Work, compare, distance
from lowgemm.bench.host import Setting
from lowgemm.bench.record import LOWGEMM, Row
from lowgemm.errors import BenchError
from lowgemm.targets import peak

PEERS = ("fbgemm-fp16", "torch-float")
KINDS = ("float16", "bfloat16", "int8", "int4")
_BITS = {"float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}
_SEED = 0
# A power of two, so that products of scale and code are exact in float16 and float32: whoever keeps real weights
# multiplies the same numbers as whoever keeps codes.
_SCALE = 2.0**-6
_GROUP = 128
_LARGE = 4096


@dataclass(frozen=True)
class Product:
    """`rows` x `depth` float32 by `depth` x `columns` weights kept as `kind`."""

    kind: str
    rows: int
    columns: int
    depth: int

    @property
    def shape(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"

    @property
    def fields(self) -> dict[str, str]:
        """Of its row."""
        dtype = f"f32 x {self.kind}"
        return {"name": f"weights_{self.kind}", "shape": self.shape, "dtype": dtype}

    @property
    def weight_bytes(self) -> int:
        """Of the weights alone; the scales of int4 are a hundredth more."""
        return self.columns * self.depth * _BITS[self.kind] // 8

    @property
    def macs(self) -> int:
        return self.rows * self.columns * self.depth

    @property
    def moved(self) -> int:
        return self.weight_bytes + 4 * self.rows * (self.depth + self.columns)

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Activations float32 `(rows, depth)`, and codes int8 `(depth, columns)`, of which `_SCALE` makes the weights.

        All kinds can hold the weights exactly: int4 those from -8 to 7, the others those with 7 bits.
        """
        generator = np.random.default_rng(_SEED)
        low, high = (-8, 8) if self.kind == "int4" else (-127, 128)
        codes = generator.integers(low, high, (self.depth, self.columns), np.int8)
        a = generator.standard_normal((self.rows, self.depth)).astype(np.float32)
        return a, codes

    @property
    def weights(self) -> np.ndarray:
        """float32 `(depth, columns)`."""
        return self.data[1] * np.float32(_SCALE)


def products() -> Iterator[Product]:
    """FBGEMM's shapes of float16 products, 1 to 119 rows by 512x512, in each kind; and 4096x4096 with one row."""
    for kind in KINDS:
        yield Product(kind, 1, _LARGE, _LARGE)
        for rows in range(1, 120):
            yield Product(kind, rows, 512, 512)


def measure(product: Product, against: Sequence[str], setting: Setting) -> Row:
    """One row."""
    a, _ = product.data
    # bfloat16 has 8 significant bits, which is what codes need.
    exact = reference.gemm_f32(a, product.weights)
    makers = {name: partial(_make, name, product, setting.threads) for name in (LOWGEMM, *against)}
    own = setting.caches.get("L2", 0)
    read_rate = None
    if product.weight_bytes > own * setting.threads and product.rows == 1:
        read_rate = (
            setting.peaks["read_gb_per_s"]["memory"]
            if setting.state == "flushed"
            else peak.measure_read_rate(product.weight_bytes, setting.threads)
        )
    work = Work(
        name=product.fields["name"],
        shape=product.shape,
        dtype=product.fields["dtype"],
        macs=product.macs,
        moved=product.moved,
        weight_bytes=product.weight_bytes,
        read_rate=read_rate,
        peak="fma_gops",
    )

    def check(name: str, found: np.ndarray) -> tuple[float, bool]:
        return distance(found, exact.value), exact.holds(found)

    return compare(work, makers, check, setting)


def _make(name: str, product: Product, threads: int) -> Contestant:
    if name == LOWGEMM:
        return _lowgemm(product, threads)
    try:
        from benchmarks import torch_floats
    except ModuleNotFoundError as error:
        raise BenchError(f"{error.name} is not installed") from error
    return torch_floats.TorchProduct(product.data[0], product.weights, name, threads)


def _lowgemm(product: Product, threads: int) -> Contestant:
    """`lowgemm.ops.pack_float_gemm`."""
    from benchmarks.native_loops import Operator
    from lowgemm import ops

    ops.set_num_threads(threads)
    a, codes = product.data
    if product.kind == "float16":
        packed = ops.pack_float_gemm(product.weights.astype(np.float16))
    elif product.kind == "bfloat16":
        packed = ops.pack_float_gemm(product.weights, weights="bfloat16")
    else:
        group = _GROUP if product.kind == "int4" else None
        packed = ops.pack_float_gemm(codes, weights=product.kind, scale=_SCALE, group_size=group)
    out = np.empty((product.rows, product.columns), np.float32)
    return Operator(packed.bind(a, out), out)
