"""Products on AMX tiles: the level's instructions, and its machine code run on any CPU.

Where there is no AMX, each tile instruction traps as illegal, and `amx_emulator.c` carries it out: so kernels run as
they are compiled, with their own addresses, strides and tile configurations, and equal the oracle bit for bit. Their
other instructions are those of this host's level; `test_level_as_it_is` has the level's own, by way of `emulated.py`.
That hardware agrees with the emulator of tiles is not shown by either.
"""

# Annotations of TVMScript are calls:
# pyright: reportInvalidTypeForm=false

import ctypes
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T

from lowgemm import codegen, ops, schedules, targets, tiling, topi
from lowgemm.artifact.build import find_compiler
from lowgemm.artifact.objects import compile_kernels
from lowgemm.errors import TargetError
from lowgemm.intrin import tile_instruction
from lowgemm.ops._arrays import level
from lowgemm.targets import LEVELS
from lowgemm.tiling import TileConfig

import isa
from gemm_check import Product, operands, random_output, same, with_stride
from kernels import HARD_DATA, full_range

LEVEL = LEVELS["amx_int8"]
NATIVE = not isa.missing_features("amx_int8")
# Two steps of 52 bytes and two blocks of columns, both with something missing.
DEPTH, COLUMNS = 101, 41
KINDS = (
    "ldtilecfg",
    "tilerelease",
    "tilezero",
    "tileloadd",
    "tilestored",
    "tdpbusd",
    "tdpbssd",
    "tdpbsud",
    "tdpbuud",
    "loaded",
    "stored",
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(19)


@dataclass
class Emulator:
    """The compiled emulator."""

    library: ctypes.CDLL

    def counts(self) -> dict[str, int]:
        """The instructions carried out since the last call, and the bytes that they loaded and stored."""
        numbers = (ctypes.c_long * len(KINDS))()
        self.library.amx_counts(numbers)
        return {kind: n for kind, n in zip(KINDS, numbers, strict=True) if n}

    def fault(self) -> str | None:
        """Why the first instruction that faulted since the last call did."""
        found = self.library.amx_fault()
        return found and found.decode()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("amx") / "emulator.so"
    source = Path(__file__).parent / "amx_emulator.c"
    flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(path)]
    subprocess.run([*find_compiler(), *flags, str(source)], check=True)
    found = ctypes.CDLL(str(path))
    found.amx_fault.restype = ctypes.c_char_p
    return found


@pytest.fixture
def emulator(library: ctypes.CDLL):
    """AMX by traps for as long as the test runs; none of its instructions may fault, and all tiles are released."""
    assert library.amx_install() == 0
    found = Emulator(library)
    found.counts()
    found.fault()
    yield found
    library.amx_remove()
    assert found.fault() is None
    assert not library.amx_configured()


@pytest.fixture
def target() -> targets.CpuTarget:
    """The level's tiles, and for all else what this CPU has."""
    host = targets.host()
    features = (*host.llvm_features, "+amx-tile", "+amx-int8")
    return replace(LEVEL, llvm_cpu=host.llvm_cpu, llvm_features=features)


def blocks(rows: int) -> list[int]:
    """The rows of each block."""
    return [32] * (rows // 32) + ([rows % 32] if rows % 32 else [])


@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_every_number_of_rows(rng, emulator: Emulator, target, a_dtype: str) -> None:
    """Whole tiles, and tiles of any number of rows; as many instructions as blocks, steps and tiles make.

    The bytes say that no row is touched that is not there.
    """
    a, b = operands(rng, 97, DEPTH, COLUMNS, a_dtype)
    product = Product(b, a_dtype)
    packed = product.pack(target)
    dot = {"uint8": "tdpbusd", "int8": "tdpbssd"}[a_dtype]
    for rows in (*range(1, 35), 63, 64, 65, 97):
        product.check(packed, a[:rows])
        tiles = sum(-(-block // 16) for block in blocks(rows))
        columns, steps, step = 2, 2, 52
        calls = (rows >= 32) + (rows % 32 > 0)
        wanted = {
            "ldtilecfg": calls * columns,
            "tilerelease": calls * columns,
            "tilezero": tiles * columns * 2,
            "tileloadd": (tiles + 2 * len(blocks(rows))) * columns * steps,
            "tilestored": tiles * columns * 2,
            dot: tiles * columns * 2 * steps,
            "loaded": (rows + 2 * 16 * len(blocks(rows))) * step * columns * steps,
            "stored": rows * 64 * columns * 2,
        }
        assert emulator.counts() == ({} if NATIVE else wanted), rows


@pytest.mark.parametrize(
    "size",
    [(1, 1), (4, 16), (5, 17), (31, 16), (63, 15), (64, 64), (65, 33), (128, 48), (130, 1)],
    ids="{0[0]}x{0[1]}".format,
)
def test_shapes(rng, emulator: Emulator, target, size: tuple[int, int]) -> None:
    """One step and several, whole and cut short; one tile of columns, pairs, and a pair that is half padding."""
    depth, columns = size
    a, b = operands(rng, 37, depth, columns)
    product = Product(b)
    packed = product.pack(target)
    for rows in (1, 16, 37):
        product.check(packed, a[:rows])


@pytest.mark.parametrize("b_dtype", ["int8", "uint8"])
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_dtypes_and_zero_points(
    rng, emulator: Emulator, target, a_dtype: str, b_dtype: str
) -> None:
    low_a, low_b = np.iinfo(a_dtype).min, np.iinfo(b_dtype).min
    columns = low_b + rng.integers(0, 256, COLUMNS)
    for kind in HARD_DATA:
        a, b = operands(rng, 35, DEPTH, COLUMNS, a_dtype, b_dtype, kind)
        for a_zero, b_zero in ((low_a, low_b + 255), (low_a + 43, columns)):
            product = Product(b, a_dtype, a_zero, b_zero)
            product.check(product.pack(target), a)


def test_largest_depth(emulator: Emulator, target) -> None:
    """Sums that reach the last of 32 bits, over many steps."""
    depth = (2**31 - 1) // (255 * 128)
    a, b = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    assert Product(b).pack(target)(a).tolist() == [[-255 * 128 * depth]]


def test_layouts_of_the_left_matrix(rng, emulator: Emulator, target) -> None:
    """Leading dimensions become strides of tiles: here in place, because the depth is whole steps."""
    depth = 2 * 60
    product = Product(full_range(rng, (depth, 32), "int8"), b_zero_point=3)
    packed = product.pack(target)
    for rows in (5, 40):
        a = full_range(rng, (rows, depth), "uint8")
        for view in (
            a,
            with_stride(a, 9),
            np.asfortranarray(a),
            full_range(rng, (rows, 999), "uint8")[:, 7 : 7 + depth],
        ):
            product.check(packed, view)


def test_written_where_it_is_wanted_and_nowhere_else(rng, emulator: Emulator, target) -> None:
    for columns in (32, COLUMNS):
        a, b = operands(rng, 45, DEPTH, columns)
        product = Product(b)
        wide = np.full((47, columns + 3), 12345, np.int32)
        product.pack(target)(a, wide[1:46, 2:-1])
        same(np.ascontiguousarray(wide[1:46, 2:-1]), product.expected(a))
        wide[1:46, 2:-1] = 12345
        assert (wide == 12345).all()


INTEGER, REAL = np.zeros(1, np.int32), np.zeros(1, np.float32)
FORMS = {
    "u8": ops.Output("uint8", 1.0, 7, bias=INTEGER, activation="relu"),
    "s8-fixed": ops.Output("int8", 0.5, -3, bias=INTEGER, rounding="fixed_point"),
    "u8-sum": ops.Output(
        "uint8", 1.0, 100, scale=0.1, residual=ops.Residual("uint8", 0.05, 128, 0.11, 90)
    ),
    "u8-table": ops.Output("uint8", 1.0, 128, table=np.zeros(256, np.uint8)),
    "f32": ops.Output("float32", 1.0, bias=REAL, row_scale=True, activation="leaky_relu"),
    "bf16-sum": ops.Output("bfloat16", 1.0, bias=REAL, residual=ops.Residual("float32")),
}


@pytest.mark.parametrize(
    ("name", "columns"), [*((name, 32) for name in FORMS), ("u8-sum", 41), ("f32", 41)]
)
def test_output_stages(rng, emulator: Emulator, target, name: str, columns: int) -> None:
    """The stage that all levels share, behind sums that come from tiles."""
    rows, form = 39, FORMS[name]
    a, b = operands(rng, rows, DEPTH, columns)
    product = Product(b, "uint8", 100, -2, output=random_output(rng, form, columns, DEPTH))
    extras = {}
    if form.row_scale:
        extras["row_scale"] = np.exp(rng.normal(0, 1, rows)).astype(np.float32)
    if form.residual:
        shape = (rows, columns)
        codes = form.residual.dtype == "uint8"
        extras["residual"] = (
            full_range(rng, shape, "uint8") if codes else rng.normal(0, 1, shape).astype(np.float32)
        )
    product.check(product.pack(target), a, **extras)


@pytest.mark.parametrize("how", ["static", "row"])
def test_quantized_while_packed(rng, emulator: Emulator, target, how) -> None:
    quantize = ops.Quantize(how, 0.03, 121)
    output = ops.Output("float32", multiplier=0.01)
    product = Product(full_range(rng, (DEPTH, 32), "int8"), quantize=quantize, output=output)
    packed = product.pack(target)
    for rows in (3, 50):
        product.check(packed, rng.normal(0, 1, (rows, DEPTH)).astype(np.float32))


def test_groups_and_zero_points_of_rows(rng, emulator: Emulator, target) -> None:
    product = Product(full_range(rng, (2 * DEPTH, 32), "int8"), "uint8", "row", groups=2)
    a = full_range(rng, (33, 2 * DEPTH), "uint8")
    zeros = rng.integers(0, 256, 33).astype(np.int32)
    product.check(product.pack(target), a, row_zero_point=zeros)


@pytest.mark.parametrize("rows", [20, 1000], ids=["shared-columns", "shared-rows"])
def test_two_threads(rng, emulator: Emulator, target, rows: int) -> None:
    """Every thread configures its own tiles."""
    a, b = operands(rng, rows, 128, 256)
    product = Product(b)
    packed = product.pack(target)
    threads = ops.get_num_threads()
    try:
        ops.set_num_threads(2)
        product.check(packed, a)
    finally:
        ops.set_num_threads(threads)


@pytest.mark.emulated
@pytest.mark.parametrize("level_name", isa.isas("amx_int8"))
@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
def test_level_as_it_is(rng, level_name: str, a_dtype: str) -> None:
    a, b = operands(rng, 97, DEPTH, COLUMNS, a_dtype)
    product = Product(b, a_dtype)
    packed = product.pack(level_name)
    for rows in (1, 16, 17, 32, 97):
        product.check(packed, a[:rows])


# ---- the code of the level, without running it ----


def scheduled(
    depth: int, columns: int, in_dtype: str = "uint8", output: str = "uint8"
) -> dict[str, tvm.tirx.PrimFunc]:
    """The functions for few and for many rows."""
    packing = tiling.gemm_packing(depth, columns, LEVEL, in_dtype)
    found = {}
    for config in dict.fromkeys(tiling.default_gemm_configs(packing, LEVEL)):
        form = topi.GemmForm(
            config.rows,
            depth,
            columns,
            in_dtype,
            tiling.gemm_staged(packing, in_dtype, False),
            fewer=True,
            output=topi.OutputForm(output),
        )
        func = topi.qgemm(form, packing)
        name = f"rows{config.rows}"
        found[name] = schedules.schedule_qgemm(func, packing, form, LEVEL, config)
    return found


def assembly(func: tvm.tirx.PrimFunc) -> list[str]:
    """One stripped line each, without directives."""
    module = tvm.IRModule({"f": func.with_attr("global_symbol", "f")})
    text = compile_kernels(module, codegen.llvm_target(LEVEL)).mod.inspect_source("asm")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"[a-z]", line)]


def names_of(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines]


def test_intermediate_code_has_each_instruction_once() -> None:
    """The loops over tiles are unrolled behind it."""
    for func in scheduled(512, 64).values():
        script = func.script()
        counts = {
            name: len(re.findall(rf'call_llvm_intrin\("void", "llvm\.x86\.{name}"', script))
            for name in (
                "ldtilecfg",
                "tilezero",
                "tileloadd64",
                "tdpbusd",
                "tilestored64",
                "tilerelease",
            )
        }
        assert counts == {name: 1 + (name == "tileloadd64") for name in counts}


@pytest.mark.parametrize(("in_dtype", "dot"), [("uint8", "tdpbusd"), ("int8", "tdpbssd")])
def test_inner_loop_is_loads_and_products(in_dtype: str, dot: str) -> None:
    """Two by two tiles: a product for each load, and all eight registers. Few rows: three loads for two products."""
    for name, loads, dots in (("rows16", 3, 2), ("rows32", 4, 4)):
        lines = assembly(scheduled(64 * 50, 64, in_dtype)[name])
        tiles = [line for line in lines if line.startswith(("tile", "tdp", "ldtile"))]
        assert {line.split()[0] for line in tiles} == {
            "ldtilecfg",
            "tilezero",
            "tileloadd",
            dot,
            "tilestored",
            "tilerelease",
        }
        steps = "".join(
            "l" if "tileloadd" in line else "d" if dot in line else " " for line in tiles
        )
        turns = [turn for turn in steps.split() if turn]
        assert turns
        for turn in turns:
            assert turn == ("l" * loads + "d" * dots) * (len(turn) // (loads + dots))
        used = set(re.findall(r"%tmm(\d)", "\n".join(tiles)))
        assert len(used) == (8 if name == "rows32" else 5)


@pytest.mark.parametrize("name", ["rows16", "rows32"])
def test_tiles_are_configured_around_them_and_nobody_asks_for_permission(name: str) -> None:
    lines = assembly(scheduled(100, 64)[name])
    assert not {"syscall", "int", "sysenter"} & set(names_of(lines))
    called = " ".join(line for line in lines if line.startswith("call"))
    assert "prctl" not in called and "syscall" not in called
    inside, calls = False, 0
    for line in lines:
        if line.startswith("ldtilecfg"):
            inside = True
        elif line.startswith("tilerelease"):
            inside = False
        elif line.startswith(("tile", "tdp")):
            assert inside, line
            calls += 1
        # What is called might use tiles of its own.
        assert not (inside and line.startswith("call")), line
    assert calls and not inside


def test_sums_leave_tiles_for_whole_vectors() -> None:
    """The output stage is that of the other levels with 512 bits."""
    text = "\n".join(assembly(scheduled(128, 64)["rows32"]))
    assert "vcvtdq2ps" in text and re.search(r"vpmovusdb\s+%zmm", text)
    assert "vpdpbusd" not in text


# ---- configurations, packing, permission ----


@pytest.mark.parametrize(
    ("rows", "vectors"),
    [(24, 2), (48, 1), (32, 3), (16, 0)],
)
def test_configurations_that_do_not_fit_are_refused(rows: int, vectors: int) -> None:
    with pytest.raises(ValueError, match="registers are for 16 or 32 rows, 1 or 2 vectors"):
        TileConfig(rows, vectors)


def test_schedule_refuses_what_does_not_divide() -> None:
    packing = tiling.gemm_packing(64, 16, LEVEL)
    form = topi.GemmForm(32, 64, 16, "uint8", False, fewer=True)
    func = topi.qgemm(form, packing)
    with pytest.raises(ValueError, match="2 tiles do not divide 1"):
        schedules.schedule_qgemm(func, packing, form, LEVEL, TileConfig(32, 2))
    with pytest.raises(ValueError, match="the function is for 32 rows"):
        schedules.schedule_qgemm(func, packing, form, LEVEL, TileConfig(16, 1))


@pytest.mark.parametrize("depth", [1, 4, 63, 64, 65, 100, 129, 1000, 4096])
def test_steps_of_the_depth_are_equal_and_fit_a_tile(depth: int) -> None:
    packing = tiling.gemm_packing(depth, 40, LEVEL)
    step = packing.layout.step
    assert step % 4 == 0 and step <= 64
    steps = -(-depth // 64)
    assert packing.padded_run == steps * step
    assert 0 <= packing.padded_run - depth < max(8, 4 * steps)
    assert packing.packed_shape == (4, 1, 1, packing.padded_run // 4, 16, 4)


def test_named_level_needs_the_cpu_and_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    features = frozenset(LEVEL.features) - {"amx_int8"}
    monkeypatch.setattr("lowgemm.targets.host_features", lambda: features)
    with pytest.raises(TargetError, match=r"^target amx_int8: this CPU lacks amx_int8$"):
        level("amx_int8")
    asked = []
    monkeypatch.setattr("lowgemm.targets.host_features", lambda: frozenset(LEVEL.features))
    monkeypatch.setattr("lowgemm.targets.permit_tiles", lambda: asked.append(1))
    assert level("avx512_vnni").level == "avx512_vnni" and not asked
    assert level("amx_int8") is LEVEL and asked


@pytest.mark.skipif(NATIVE, reason="this CPU has tiles")
def test_refused_permission_is_told() -> None:
    """Here by a system without AMX."""
    words = r"^target amx_int8: the operating system refuses AMX tiles: \w+"
    with pytest.raises(TargetError, match=words):
        targets.permit_tiles()


# ---- the emulator ----


@T.prim_func(s_tir=True)
def one_product(
    config: T.Buffer((64,), "uint8"),
    a: T.Buffer((16, 64), "uint8"),
    b: T.Buffer((16, 16, 4), "int8"),
    c: T.Buffer((16, 16), "int32"),
) -> None:
    for _ in T.serial(1):
        with T.sblock("all"):
            T.reads(config[0:64], a[0:16, 0:64], b[0:16, 0:16, 0:4])
            T.writes(c[0:16, 0:16])
            T.evaluate(tile_instruction("ldtilecfg", config.access_ptr("r")))
            T.evaluate(tile_instruction("tilezero", T.uint8(0)))
            T.evaluate(tile_instruction("tileloadd64", T.uint8(3), a.access_ptr("r"), T.int64(64)))
            T.evaluate(tile_instruction("tileloadd64", T.uint8(7), b.access_ptr("r"), T.int64(64)))
            T.evaluate(tile_instruction("tdpbusd", T.uint8(0), T.uint8(3), T.uint8(7)))
            T.evaluate(tile_instruction("tilestored64", T.uint8(0), c.access_ptr("w"), T.int64(64)))
            T.evaluate(tile_instruction("tilerelease"))


def configuration(tiles: dict[int, tuple[int, int]], palette: int = 1) -> np.ndarray:
    """64 bytes for tiles of (rows, bytes)."""
    found = np.zeros(64, np.uint8)
    found[0] = palette
    for number, (rows, width) in tiles.items():
        found[16 + 2 * number], found[48 + number] = width, rows
    return found


@pytest.fixture(scope="module")
def product_of_tiles():
    module = tvm.IRModule({"f": one_product.with_attr("global_symbol", "f")})
    host = targets.host()
    features = ("+amx-tile", "+amx-int8")
    return compile_kernels(module, codegen.llvm_target(replace(host, llvm_features=features)))["f"]


@pytest.mark.skipif(NATIVE, reason="this CPU has tiles")
@pytest.mark.parametrize(
    ("tiles", "reason"),
    [
        ({0: (5, 36), 3: (5, 24), 7: (6, 36)}, None),
        ({0: (16, 64), 3: (16, 64), 7: (16, 64)}, None),
        ({0: (5, 36), 3: (5, 24), 7: (5, 36)}, "tdp: the operands differ in depth"),
        ({0: (5, 36), 3: (4, 24), 7: (6, 36)}, "the left operand differ in rows"),
        ({0: (5, 36), 3: (5, 24), 7: (6, 40)}, "the right operand differ in columns"),
        ({0: (5, 36), 3: (5, 22), 7: (6, 36)}, "a row that is not of whole words"),
        ({0: (5, 36), 3: (5, 24)}, "a tile is used that is not configured"),
        ({0: (5, 36), 3: (5, 0), 7: (6, 36)}, "rows without bytes"),
        ({0: (17, 36), 3: (17, 24), 7: (6, 36)}, "a tile is too large"),
        ({8: (1, 4)}, "a tile beyond the eighth"),
    ],
    ids=str,
)
def test_emulator(rng, emulator: Emulator, product_of_tiles, tiles, reason: str | None) -> None:
    """Rows and bytes of the configuration bound what is read, multiplied and written; faults are noticed."""
    a, b = full_range(rng, (16, 64), "uint8"), full_range(rng, (16, 16, 4), "int8")
    c = np.full((16, 16), 7, np.int32)
    tensors = [tvm.runtime.tensor(array) for array in (configuration(tiles), a, b, c)]
    product_of_tiles(*tensors)
    found, c = emulator.fault(), tensors[-1].numpy()
    if reason:
        assert found and reason in found
        return
    rows, columns, groups = tiles[0][0], tiles[0][1] // 4, tiles[7][0]
    right = b.transpose(0, 2, 1).reshape(64, 16).astype(np.int64)
    wanted = np.full((16, 16), 7, np.int64)
    wanted[:rows, :columns] = (
        a[:rows, : 4 * groups].astype(np.int64) @ right[: 4 * groups, :columns]
    )
    assert found is None and (c == wanted).all()


@pytest.mark.skipif(NATIVE, reason="this CPU has tiles")
def test_emulator_knows_one_palette(emulator: Emulator, product_of_tiles) -> None:
    shapes = ((16, 64), "uint8"), ((16, 16, 4), "int8"), ((16, 16), "int32")
    zeros = [np.zeros(*shape) for shape in shapes]
    product_of_tiles(*map(tvm.runtime.tensor, (configuration({}, palette=2), *zeros)))
    assert emulator.fault() == "ldtilecfg: palette is not 1"
