"""The table of instruction-set levels and the choice among them."""

import functools
import os
import platform
from dataclasses import dataclass, replace
from typing import Any

from lowgemm.errors import TargetError


@dataclass(frozen=True)
class CpuTarget:
    """One instruction-set level: what a CPU must have, and the facts that schedules are written with.

    `features` use the names of Linux's /proc/cpuinfo. `vector_bits` is the widest vector that kernels use and
    `registers` how many such registers there are. `dot_depth` is how many products one dot-product lane sums. `tiles`
    says that packed matrix products are on AMX tiles; all else is as at the level with the same vectors and products.
    `verified` says that kernels of the level have run on a CPU that has it; one that has not is used only by name.
    `summed` and `paired` belong to no level but to weights (see `summing`).
    """

    level: str
    features: tuple[str, ...]
    llvm_cpu: str
    llvm_features: tuple[str, ...]
    vector_bits: int
    registers: int
    dot_depth: int
    tiles: bool = False
    verified: bool = True
    summed: int = 0
    paired: bool = False

    @property
    def lanes(self) -> int:
        """32-bit lanes of one vector."""
        return self.vector_bits // 32

    def summing(self, groups: int, paired: bool = False) -> "CpuTarget":
        """This level, for weights of which `groups` dot products of four may be summed in 16 bits.

        With `paired`, of one group, those of many pairs of groups may be, too, if they are chosen (`quant.pair_words`).

        Without VNNI that is what vpmaddubsw does, in half the instructions of exact 16-bit products. Nothing saturates
        where `quant.sums_fit` holds of the weights. With VNNI, and with 0 groups, it is the level itself.
        """
        own_depth = 2 if self.summed else self.dot_depth
        if own_depth == 4:
            return self
        depth = 4 if groups else own_depth
        return replace(self, dot_depth=depth, summed=groups, paired=paired)

    @property
    def wide(self) -> "CpuTarget":
        """This level with products of 16 bits, two a lane: `vpdpwssd` with VNNI, or `vpmaddwd` and an addition."""
        return replace(self, dot_depth=2, summed=0, paired=False)

    @property
    def vnni(self) -> bool:
        """Whether one instruction multiplies, and adds to an accumulator."""
        return self.has("avx512_vnni") or self.has("avx_vnni")

    def has(self, feature: str) -> bool:
        """Whether kernels may use `feature`."""
        return feature in self.features

    def missing(self, features: frozenset[str]) -> list[str]:
        """The features this level needs that `features` lacks, in the table's order."""
        return [name for name in self.features if name not in features]


_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")

# LLVM else takes vpdpwssd apart, to a product and an addition, where it is one of a chain.
_FUSED = "+fast-dpwssd"
# What LLVM calls a CPU with the features of each tuple.
_HASWELL, _SKYLAKE = "haswell", "skylake-avx512"
_YMM: dict[str, Any] = {"vector_bits": 256, "registers": 16}
_ZMM: dict[str, Any] = {"vector_bits": 512, "registers": 32}

# Best first: where several levels run, the first one of this table is the default. What is not verified comes last.
LEVELS: dict[str, CpuTarget] = {
    target.level: target
    for target in (
        CpuTarget(
            "avx512_vnni",
            (*_AVX512, "avx512_vnni"),
            llvm_cpu=_SKYLAKE,
            llvm_features=("+avx512vnni", _FUSED),
            dot_depth=4,
            **_ZMM,
        ),
        CpuTarget(
            "avx_vnni",
            (*_AVX2, "avx_vnni"),
            llvm_cpu=_HASWELL,
            llvm_features=("+avxvnni", _FUSED),
            dot_depth=4,
            **_YMM,
        ),
        CpuTarget("avx512", _AVX512, llvm_cpu=_SKYLAKE, llvm_features=(), dot_depth=2, **_ZMM),
        CpuTarget("avx2", _AVX2, llvm_cpu=_HASWELL, llvm_features=(), dot_depth=2, **_YMM),
        CpuTarget(
            "amx_int8",
            (*_AVX512, "avx512_vnni", "amx_tile", "amx_int8"),
            llvm_cpu=_SKYLAKE,
            llvm_features=("+avx512vnni", "+amx-tile", "+amx-int8", _FUSED),
            dot_depth=4,
            tiles=True,
            verified=False,
            **_ZMM,
        ),
    )
}


# level -> features beyond it that kernels use where the CPU is known to have them, and LLVM's names of them.
_AVX512_EXTRAS = {"avx512vbmi": "+avx512vbmi", "avx512_bf16": "+avx512bf16"}
_EXTRAS = {"avx512_vnni": _AVX512_EXTRAS, "amx_int8": _AVX512_EXTRAS}


@functools.cache
def host_features() -> frozenset[str]:
    """This CPU's features as the operating system reports them (empty where it does not say)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return frozenset()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("flags"):
                    return frozenset(line.split(":", 1)[1].split())
    except OSError:
        pass
    return frozenset()


def host_levels() -> list[CpuTarget]:
    """The levels this host can run, best first."""
    return [t for t in LEVELS.values() if not t.missing(host_features())]


def host() -> CpuTarget:
    """The level used on this host: its best verified one, or what the environment variable LOWGEMM_ISA names.

    It comes with what this CPU has beyond the level and kernels can use, which naming the level does not.

    Raises:
        TargetError: the host runs no level, or not the one that LOWGEMM_ISA names.
    """
    forced = os.environ.get("LOWGEMM_ISA")
    if forced:
        target = _named(forced)
        if missing := target.missing(host_features()):
            raise TargetError(f"LOWGEMM_ISA={forced}: this CPU lacks {', '.join(missing)}")
        return _extended(target)
    levels = [target for target in host_levels() if target.verified]
    if not levels:
        missing = LEVELS["avx2"].missing(host_features())
        raise TargetError(
            f"this CPU runs none of lowgemm's levels; the lowest lacks {', '.join(missing)}"
        )
    return _extended(levels[0])


def _extended(target: CpuTarget) -> CpuTarget:
    """`target` with the extra features that this CPU has."""
    extras = _EXTRAS.get(target.level, {})
    found = {name: flag for name, flag in extras.items() if name in host_features()}
    return replace(
        target,
        features=(*target.features, *found),
        llvm_features=(*target.llvm_features, *found.values()),
    )


def parse(text: str) -> list[CpuTarget]:
    """The targets that `text` names: "host", or level names separated by commas.

    Returns them best first, without repetition.

    Raises:
        TargetError: an unknown name, or no name at all.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise TargetError(f'no target named; use "host" or some of {", ".join(LEVELS)}')
    targets = [host() if name == "host" else _named(name) for name in names]
    # Of a level that is named and is the host's, too, the plain one runs on more CPUs.
    wanted = {t.level: t for t in sorted(targets, key=lambda t: -len(t.features))}
    return [wanted[level] for level in LEVELS if level in wanted]


def _named(name: str) -> CpuTarget:
    if name not in LEVELS:
        raise TargetError(f'unknown target "{name}"; use "host" or some of {", ".join(LEVELS)}')
    return LEVELS[name]
