"""LLVM's names of the instructions that multiply and add."""

# instruction -> its names with 256 and with 512 bits
_NAMES = {
    "vpmaddubsw": ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx512.pmaddubs.w.512"),
    "vpmaddwd": ("llvm.x86.avx2.pmadd.wd", "llvm.x86.avx512.pmaddw.d.512"),
    "vpdpbusd": ("llvm.x86.avx512.vpdpbusd.256", "llvm.x86.avx512.vpdpbusd.512"),
    "vpdpwssd": ("llvm.x86.avx512.vpdpwssd.256", "llvm.x86.avx512.vpdpwssd.512"),
}


def intrinsic(instruction: str, lanes: int) -> str:
    """The intrinsic of `instruction` for vectors of `lanes` (8 or 16) times 32 bits."""
    return _NAMES[instruction][lanes // 8 - 1]
