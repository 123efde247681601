"""The table of levels, what a name means, and what is said of a name that means nothing."""

import pytest

from lowgemm import targets
from lowgemm.errors import TargetError
from lowgemm.targets import LEVELS

import isa


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch):
    """Pretend that this CPU has the features of these levels."""

    def pretend(*levels: str) -> None:
        features = frozenset(f for level in levels for f in LEVELS[level].features)
        monkeypatch.setattr("lowgemm.targets._levels.host_features", lambda: features)
        monkeypatch.delenv("LOWGEMM_ISA", raising=False)

    return pretend


def names(found) -> list[str]:
    return [target.level for target in found]


def test_every_level_asks_for_the_features_its_instructions_need() -> None:
    assert set(LEVELS) == set(isa.LEVELS)
    for level, flags in isa.LEVELS.items():
        assert set(flags) <= set(LEVELS[level].features)


def test_a_level_has_the_vectors_and_products_of_its_instruction() -> None:
    facts = {name: (t.lanes, t.registers, t.dot_depth) for name, t in LEVELS.items()}
    assert facts == {
        "avx512_vnni": (16, 32, 4),
        "avx_vnni": (8, 16, 4),
        "avx512": (16, 32, 2),
        "avx2": (8, 16, 2),
        "amx_int8": (16, 32, 4),
    }
    assert [name for name, t in LEVELS.items() if t.tiles] == ["amx_int8"]


def test_names_are_taken_once_and_best_first() -> None:
    assert names(targets.parse("avx2,avx512_vnni, avx2")) == ["avx512_vnni", "avx2"]
    assert names(targets.parse("amx_int8,avx2,avx512,avx_vnni,avx512_vnni")) == list(LEVELS)


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_no_name_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match='no target named; use "host" or some of avx512_vnni'):
        targets.parse(text)


@pytest.mark.parametrize("text", ["sse2", "avx2,AVX512", "znver5", "host,neon"])
def test_an_unknown_name_is_refused_by_name(text: str, cpu) -> None:
    cpu("avx2")
    with pytest.raises(TargetError, match=f'unknown target "{text.split(",")[-1]}"'):
        targets.parse(text)


@pytest.mark.parametrize("level", [name for name, t in LEVELS.items() if t.verified])
def test_host_is_the_best_level_the_cpu_runs(level: str, cpu) -> None:
    cpu(level)
    assert targets.host().level == level
    assert names(targets.parse("host")) == [level]
    assert names(targets.parse(f"avx2,host,{level}")) == [
        name for name in LEVELS if name in ("avx2", level)
    ]


def test_a_level_that_no_hardware_has_verified_is_used_only_by_name(monkeypatch, cpu) -> None:
    cpu("amx_int8")
    assert names(targets.host_levels())[-1] == "amx_int8"
    assert targets.host().level == "avx512_vnni"
    assert names(targets.parse("host,amx_int8")) == ["avx512_vnni", "amx_int8"]
    monkeypatch.setenv("LOWGEMM_ISA", "amx_int8")
    assert targets.host().level == "amx_int8"


def test_vnni_alone_does_not_make_the_wider_level(cpu) -> None:
    cpu("avx512", "avx_vnni")
    assert names(targets.host_levels()) == ["avx_vnni", "avx512", "avx2"]


def test_a_cpu_with_no_level_is_told_what_it_lacks(monkeypatch, cpu) -> None:
    cpu()
    with pytest.raises(TargetError, match="runs none of lowgemm's levels; the lowest lacks avx2"):
        targets.host()


def test_the_environment_chooses_a_level(monkeypatch, cpu) -> None:
    cpu("avx512_vnni")
    monkeypatch.setenv("LOWGEMM_ISA", "avx2")
    assert targets.host().level == "avx2"


def test_the_environment_cannot_choose_what_the_cpu_lacks(monkeypatch, cpu) -> None:
    cpu("avx2")
    monkeypatch.setenv("LOWGEMM_ISA", "avx_vnni")
    with pytest.raises(TargetError, match="LOWGEMM_ISA=avx_vnni: this CPU lacks avx_vnni"):
        targets.host()


def test_the_environment_can_be_wrong(monkeypatch, cpu) -> None:
    cpu("avx2")
    monkeypatch.setenv("LOWGEMM_ISA", "sse")
    with pytest.raises(TargetError, match='unknown target "sse"'):
        targets.host()


def test_only_the_host_brings_what_is_beyond_a_level(monkeypatch) -> None:
    extras = {"avx512vbmi", "avx512_bf16"}
    features = frozenset((*LEVELS["avx512_vnni"].features, *extras, "avx512_fp16"))
    monkeypatch.setattr("lowgemm.targets._levels.host_features", lambda: features)
    monkeypatch.delenv("LOWGEMM_ISA", raising=False)
    (host,) = targets.parse("host")
    assert set(host.features) - set(LEVELS["avx512_vnni"].features) == extras
    assert host.has("avx512vbmi") and {"+avx512vbmi", "+avx512bf16"} <= set(host.llvm_features)
    # Beside its name, "host" is no more than that.
    for text in ("avx512_vnni", "host,avx512_vnni", "avx512_vnni,host"):
        assert targets.parse(text) == [LEVELS["avx512_vnni"]]


def test_missing_features_are_listed_in_the_order_of_the_table() -> None:
    assert LEVELS["avx_vnni"].missing(frozenset({"fma", "f16c"})) == ["avx2", "bmi2", "avx_vnni"]
    assert LEVELS["avx2"].missing(frozenset(LEVELS["avx512"].features)) == []
