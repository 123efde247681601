"""The generated C source: ports, steps and manifest of a plan as constant tables."""

import hashlib
import json

import numpy as np

from lowgemm.artifact.plan import Buffer, Plan, Port, Step, Variant

FORMAT = 1

_DLPACK_CODE = {"i": 0, "u": 1, "f": 2, "b": 6}
_REGION = {
    "input": "LG_INPUT",
    "output": "LG_OUTPUT",
    "arena": "LG_ARENA",
    "constant": "LG_CONSTANT",
}


def manifest(plan: Plan) -> str:
    """What the library says of itself, as JSON: keys sorted, so that the same plan gives the same bytes."""
    content = {
        "format": FORMAT,
        "name": plan.name,
        "inputs": [_port_json(p) for p in plan.inputs],
        "outputs": [_port_json(p) for p in plan.outputs],
        "variants": [
            {
                "level": v.level,
                "features": list(v.features),
                "arena_bytes": v.arena_bytes,
                "constant_bytes": len(v.constants),
                "constants_sha256": hashlib.sha256(v.constants).hexdigest(),
                "steps": [
                    {
                        "layer": s.layer,
                        "kernel": s.kernel,
                        "macs": s.macs,
                        "shape": list(s.shape),
                    }
                    for s in v.steps
                ],
            }
            for v in plan.variants
        ],
        **plan.metadata,
    }
    return json.dumps(content, sort_keys=True)


def tables(plan: Plan) -> str:
    """The C source of the tables that runtime.c reads."""
    out = ['#include "lowgemm_internal.h"', ""]
    shapes: dict[tuple[int, ...], str] = {}

    def shape(dims: tuple[int, ...]) -> str:
        if dims not in shapes:
            shapes[dims] = f"shape_{len(shapes)}"
            values = ", ".join(map(str, dims)) or "0"
            out.append(f"static const int64_t {shapes[dims]}[] = {{{values}}};")
        return shapes[dims]

    for kind, ports in (("input", plan.inputs), ("output", plan.outputs)):
        rows = []
        for port in ports:
            code, bits = _dlpack(port.dtype)
            size = int(np.prod(port.shape, dtype=np.int64)) * np.dtype(port.dtype).itemsize
            rows.append(
                f"  {{{_string(port.name)}, {_string(port.dtype)}, {code}, {bits}, {len(port.shape)}, "
                f"{shape(port.shape)}, {size}u}},"
            )
        out += [f"const lg_port lg_{kind}s[] = {{", *(rows or ["  {0},"]), "};"]
        out.append(f"const int32_t lg_{kind}_count = {len(ports)};")
    rows = []
    for index, variant in enumerate(plan.variants):
        symbols = dict.fromkeys(s.symbol for s in variant.steps)
        out += [f"int __tvm_ffi_{s}(void *, lg_any *, int32_t, lg_any *);" for s in symbols]
        out.append(f"extern const unsigned char lg_constants_{index}[];")
        features = ", ".join(_string(f) for f in variant.features)
        out.append(
            f"static const char *const features_{index}[] = {{{features}{', ' if features else ''}NULL}};"
        )
        out += _steps(f"steps_{index}", variant.steps, shape)
        rows.append(_variant_row(index, variant))
    out += ["const lg_variant lg_variants[] = {", *rows, "};"]
    out.append(f"const int32_t lg_variant_count = {len(plan.variants)};")
    return "\n".join(out) + "\n"


def _steps(name: str, steps: tuple[Step, ...], shape) -> list[str]:
    lines, rows = [], []
    for number, step in enumerate(steps):
        buffers = "\n".join("  " + _buffer(b, shape) for b in step.args)
        lines.append(f"static const lg_buffer {name}_{number}_args[] = {{\n{buffers}\n}};")
        rows.append(
            f"  {{__tvm_ffi_{step.symbol}, {name}_{number}_args, {len(step.args)}, {_string(step.layer)}, "
            f"{_string(step.kernel)}, {step.macs}u}},"
        )
    # shape() appends its arrays to the same list before these lines are added.
    return [*lines, f"static const lg_step {name}[] = {{", *(rows or ["  {0},"]), "};"]


def _buffer(buffer: Buffer, shape) -> str:
    code, bits = _dlpack(buffer.dtype)
    return (
        f"{{{_REGION[buffer.region]}, {code}, {bits}, {len(buffer.shape)}, {buffer.offset}u, "
        f"{shape(buffer.shape)}}},"
    )


def _variant_row(index: int, variant: Variant) -> str:
    return (
        f"  {{{_string(variant.level)}, features_{index}, steps_{index}, {len(variant.steps)}, "
        f"{variant.arena_bytes}u, lg_constants_{index}}},"
    )


def _port_json(port: Port) -> dict:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def _dlpack(dtype: str) -> tuple[int, int]:
    kind = np.dtype(dtype)
    return _DLPACK_CODE[kind.kind], kind.itemsize * 8


def _string(text: str) -> str:
    """A C string literal; every byte outside plain ASCII in octal, which nothing can run into."""
    plain = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{plain}"'
