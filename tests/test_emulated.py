"""The emulated CPU: what it has and lacks at each level, what it reports, and where this Bochs is mended."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lowgemm import ops, targets
from lowgemm.artifact.build import find_compiler

import emulated
import isa
from emulated import EmulationError

# One instruction of each feature, and the levels that have it.
FEATURES = {
    "vpaddd ymm0, ymm1, ymm2": set(isa.LEVELS),
    "vpdpbusd ymm0, ymm1, ymm2": {"avx_vnni"},
    "vpaddd zmm0, zmm1, zmm2": {"avx512", "avx512_vnni", "amx_int8"},
    "vpaddd ymm16, ymm1, ymm2": {"avx512", "avx512_vnni", "amx_int8"},
    "vpaddb zmm0, zmm1, zmm2": {"avx512", "avx512_vnni", "amx_int8"},
    "vpdpbusd zmm0, zmm1, zmm2": {"avx512_vnni", "amx_int8"},
    "vpermi2b zmm0, zmm1, zmm2": set(),
    "vdpbf16ps zmm0, zmm1, zmm2": set(),
    "vaddph zmm0, zmm1, zmm2": set(),
    "tilerelease": {"amx_int8"},
}

Function = Callable[..., int]


@pytest.fixture
def assemble(tmp_path: Path):
    """`assemble(*bodies)` -> functions of `(rdi, rsi, rdx)` called on an emulated CPU of a level, one for each body."""
    libraries = []

    def make(*bodies: str) -> list[Function]:
        lines = [".intel_syntax noprefix"]
        for number, body in enumerate(bodies):
            lines += [f".globl f{number}", f"f{number}:", *body.split(";"), "ret"]
        source = tmp_path / f"{len(libraries)}.s"
        source.write_text("\n".join([*lines, '.section .note.GNU-stack,"",@progbits', ""]))
        path = source.with_suffix(".so")
        command = [*find_compiler(), "-shared", "-nostdlib", "-o", str(path), str(source)]
        subprocess.run(command, check=True)
        libraries.append(ctypes.CDLL(str(path)))
        found = (getattr(libraries[-1], f"f{number}") for number in range(len(bodies)))
        addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found]
        return [
            lambda level, *arguments, at=at: emulated.emulator().call(level, at, *arguments)
            for at in addresses
        ]

    return make


def test_levels_have_their_features_and_no_others(assemble) -> None:
    # AVX-VNNI has the same name as AVX-512 VNNI, and an encoding of its own.
    bodies = [("{vex} " if "vpdpbusd ymm" in name else "") + name for name in FEATURES]
    functions = dict(zip(FEATURES, assemble(*bodies), strict=True))
    for level in isa.LEVELS:
        for name, levels in FEATURES.items():
            if level in levels:
                functions[name](level)
            else:
                with pytest.raises(EmulationError, match="an instruction that the CPU lacks"):
                    functions[name](level)


def test_arguments_and_results(assemble) -> None:
    (call,) = assemble("lea rax, [rdi + 2 * rsi];imul rax, rdx")
    assert call("avx2", 3, 4, 5) == 55
    assert call("avx512", 2**63, 0, 1) == 2**63


def test_what_cannot_be_is_told(assemble) -> None:
    touch, call_system = assemble("mov eax, [rdi]", "mov rax, rdi;syscall")
    with pytest.raises(EmulationError, match="touches 0x1000, where there is no memory"):
        touch("avx2", 0x1000)
    with pytest.raises(EmulationError, match="made system call 57"):
        call_system("avx2", 57)  # fork
    assert call_system("avx2", 39) > 1  # getpid


@pytest.mark.parametrize("size", [0, 1, 3, 17, 40, 100, 1000, 5000, 100_000])
def test_copies_of_the_c_library_run_whatever_vectors_it_chose(size: int) -> None:
    """It chooses for this CPU, and the emulated one may lack AVX-512."""
    library, call = ctypes.CDLL(None), emulated.emulator().call
    move, fill = (
        ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
        for name in ("memmove", "memset")
    )
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    target = np.zeros(size + 2, np.uint8)
    to = target.ctypes.data + 1
    assert call("avx2", move, to, source.ctypes.data, size) == to
    assert (target[1:-1] == source).all() and not target[[0, -1]].any()
    assert call("avx2", fill, to, 7, size) == to
    assert (target[1:-1] == 7).all() and not target[[0, -1]].any()


def test_memory_comes_from_the_same_heap() -> None:
    """Also where the emulated allocator asks the system for more."""
    libc = ctypes.CDLL(None)
    allocate, fill, free = (
        ctypes.cast(function, ctypes.c_void_p).value or 0
        for function in (libc.malloc, libc.memset, libc.free)
    )
    call, size = emulated.emulator().call, 40 << 20
    block = call("avx2", allocate, size)
    assert call("avx2", fill, block, 7, size) == block
    assert ctypes.string_at(block + size - 3, 3) == b"\7\7\7"
    call("avx2", free, block)


# name -> dtype of indices, elements, bytes of one
GATHERS = {
    "vgatherdps zmm{}{{k1}}, [rdi + zmm{} * 4{}]": ("int32", 16, 4),
    "vpgatherqd ymm{}{{k1}}, [rdi + zmm{} * 4{}]": ("int64", 8, 4),
    "vgatherdpd ymm{}{{k1}}, [rdi + xmm{} * 4{}]": ("int32", 4, 8),
}


@pytest.mark.parametrize("form", GATHERS)
def test_gathers_by_any_register(assemble, form: str) -> None:
    """Registers that are lent keep what they had."""
    kind, count, size = GATHERS[form]
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, 1 << 13, dtype=np.uint8)
    indices = rng.integers(0, 900, 64 // np.dtype(kind).itemsize).astype(kind)
    cases = [
        (to, index, ahead)
        for index in (3, 16, 19, 25, 31)
        for to in (0, 2, 12, 30)
        for ahead in (0, 8, 4096)
    ]
    bodies = [
        f"vpternlogd zmm0, zmm0, zmm0, 255;vmovdqa64 zmm1, zmm0;vpxord zmm{to}, zmm{to}, zmm{to};"
        f"vmovdqu64 zmm{index}, [rsi];kxnorw k1, k1, k1;"
        f"{form.format(to, index, f' + {ahead}' if ahead else '')};"
        f"vmovdqu64 [rdx], zmm{to};vmovdqu64 [rdx + 64], zmm{0 if to else 1}"
        for to, index, ahead in cases
    ]
    for call, (*case, ahead) in zip(assemble(*bodies), cases, strict=True):
        out = np.zeros(128, np.uint8)
        call("avx512", data.ctypes.data, indices.ctypes.data, out.ctypes.data)
        at = 4 * indices[:count, None] + ahead + np.arange(size)
        wanted = np.zeros(64, np.uint8)
        wanted[: count * size] = data[at].reshape(-1)
        assert (out[:64] == wanted).all() and (out[64:] == 255).all(), case


# What reads or writes a part of a vector: small displacements are multiplied by the size of the part.
ACCESSES = (
    "vpinsrb xmm20, xmm21, {}, 1",
    "vpinsrw xmm20, xmm21, {}, 1",
    "vpinsrd xmm20, xmm21, {}, 1",
    "vpextrb {}, xmm20, 3",
    "vpextrd {}, xmm20, 1",
    "vmovd xmm20, {}",
    "vmovss {}, xmm20",
    "vpbroadcastb zmm20, {}",
    "vpbroadcastd zmm20, {}",
    "vbroadcasti32x4 zmm20, {}",
    "vpmovsxbd zmm20, {}",
    "vpmovsxbw ymm20, {}",
    "vpmovdb {}, zmm20",
    "vpmovwb {}, ymm20",
    "vextracti32x4 {}, zmm20, 1",
    "vinserti64x4 zmm20, zmm21, {}, 1",
    "vcvtps2ph {}, ymm20, 0",
    "vcvtph2ps zmm20, {}",
    "vpaddd zmm20, zmm21, {}",
    "vpdpbusd zmm20, zmm21, dword ptr {}{{1to16}}",
)


def test_small_displacements(assemble) -> None:
    """An access that spells its displacement out equals one at an address that was computed before."""
    bodies, cases = [], []
    for access in ACCESSES:
        for ahead in (64, 128, -64, 320):
            before = "vmovdqu64 zmm20, [rsi];vmovdqu64 zmm21, [rsi + 64];"
            after = ";vmovdqu64 [rdx], zmm20"
            bodies.append(before + access.format(f"[rdi + {ahead}]") + after)
            bodies.append(before + f"add rdi, {ahead};" + access.format("[rdi]") + after)
            cases.append((access, ahead))
    functions = assemble(*bodies)
    rng = np.random.default_rng(2)
    registers = rng.normal(0, 9, 32).astype(np.float32)
    memory = rng.integers(0, 256, 1024, dtype=np.uint8)
    for number, case in enumerate(cases):
        results = []
        for call in functions[2 * number : 2 * number + 2]:
            touched, out = memory.copy(), np.zeros(64, np.uint8)
            at = touched.ctypes.data + 512
            call("avx512_vnni", at, registers.ctypes.data, out.ctypes.data)
            results.append(touched.tobytes() + out.tobytes())
        assert results[0] == results[1], case


def test_kernels_of_a_better_level_do_not_run() -> None:
    """A level's kernels are held to its features."""
    rng = np.random.default_rng(3)
    a, b = (
        rng.integers(0, 256, (3, 20), dtype=np.uint8),
        rng.integers(-128, 128, (20, 8), dtype=np.int8),
    )
    packed = ops.pack_gemm(b, target=targets.LEVELS["avx512"])
    with emulated.cpu("avx512"):
        assert (packed(a) == a.astype(np.int32) @ b.astype(np.int32)).all()
    other = ops.pack_gemm(b, target=targets.LEVELS["avx512"])
    with (
        emulated.cpu("avx2"),
        pytest.raises(EmulationError, match="an instruction that the CPU lacks"),
    ):
        other(a)


def test_threads_are_as_before() -> None:
    threads = ops.get_num_threads()
    with emulated.cpu("avx2"):
        ops.set_num_threads(threads + 1)
        assert ops.get_num_threads() == threads + 1
    assert ops.get_num_threads() == threads


def test_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install bochscpu-python" in (emulated.missing() or "")
    with pytest.raises(EmulationError, match="pip install bochscpu-python"):
        emulated.Emulator()
