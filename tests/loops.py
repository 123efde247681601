"""The innermost loops of compiled kernels, in AT&T syntax."""

import re


def innermost_loops(text: str) -> list[list[str]]:
    """The instructions of each loop that has no other inside."""
    lines = text.splitlines()
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    found = []
    for i, line in enumerate(lines):
        jump = re.match(r"\tj\w+\t(\.L\w+)$", line)
        start = labels.get(jump.group(1), i) if jump else i
        inside = lines[start + 1 : i]
        if start < i and not any(other in labels for other in (x[:-1] for x in inside)):
            found.append([x.strip() for x in inside if x.startswith("\t") and x[1] != "."])
    return found


def count(loop: list[str], instruction: str, register: str) -> int:
    """How often an instruction with this prefix and kind of register (ymm, zmm) is in it."""
    return sum(line.startswith(instruction) and register in line for line in loop)


def spills(loop: list[str]) -> bool:
    """Whether it stores a vector."""
    return any(re.match(r"v?mov\w+\t%[xyz]mm\d+, .*\(", line) for line in loop)
