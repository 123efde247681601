"""Which layers real models have: `python -m benchmarks.model_layers` writes shapes/*_models.txt anew.

The layers are those of the zoo's models, and of two that are not in the zoo but whose structure is published:
MobileNetV2 (Sandler et al., 2018, table 2, width 1, 224x224) and BERT-base (Devlin et al., 2018: 12 layers, 768 wide,
3072 within) for 128 tokens. A layer that several have, or that FBGEMM's lists have, is listed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from benchmarks import layers, zoo
from benchmarks.layers import FAMILIES, Layer
from lowgemm.frontend import load_onnx
from lowgemm.graph import Graph, Node

# Expansion, channels, repetitions and stride of MobileNetV2's blocks.
_MOBILENET = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def layers_of(name: str, graph: Graph) -> Iterator[Layer]:
    """The convolutions and matrix products of a float graph that have constant weights."""
    for node in graph.nodes:
        if len(node.inputs) > 1 and node.inputs[1] in graph.constants:
            if node.op in ("Conv", "ConvTranspose"):
                yield _convolution(name, graph, node)
            elif node.op in ("Gemm", "MatMul"):
                x, out = graph.types[node.inputs[0]].shape, graph.types[node.output].shape
                depth = x[-2 if node.attrs.get("transA") else -1]
                yield Layer(name, math.prod(out[:-1]), depth, (), out[-1])


def _convolution(name: str, graph: Graph, node: Node) -> Layer:
    batch, channels, *sizes = graph.types[node.inputs[0]].shape
    rank, attrs = len(sizes), node.attrs
    weight = graph.types[node.inputs[1]].shape
    return Layer(
        name,
        batch,
        channels,
        tuple(sizes),
        graph.types[node.output].shape[1],
        tuple(weight[2:]),
        tuple(attrs.get("strides") or [1] * rank),
        tuple(attrs.get("pads") or [0] * 2 * rank),
        tuple(attrs.get("dilations") or [1] * rank),
        attrs.get("group", 1),
        node.op == "ConvTranspose",
        tuple(attrs.get("output_padding") or [0] * rank),
    )


def mobilenet_v2() -> Iterator[Layer]:
    """MobileNetV2's layers."""

    def conv(channels: int, size: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        text = f"1x{channels}x{size}x{size} -> {out}, {kernel}x{kernel} stride {stride} pad {kernel // 2}"
        return Layer.parse("mobilenet_v2", f"{text} groups {groups}" if groups > 1 else text)

    yield conv(3, 224, 32, 3, 2)
    channels, size = 32, 112
    for expansion, out, repetitions, first in _MOBILENET:
        for stride in (first, *[1] * (repetitions - 1)):
            within = channels * expansion
            if expansion > 1:
                yield conv(channels, size, within, 1)
            yield conv(within, size, within, 3, stride, within)
            size //= stride
            yield conv(within, size, out, 1)
            channels = out
    yield conv(320, 7, 1280, 1)
    yield Layer.parse("mobilenet_v2", "1x1000x1280")


def bert_base(tokens: int = 128) -> Iterator[Layer]:
    """BERT-base's products with weights."""
    for rows, columns, depth in (
        (tokens, 768, 768),
        (tokens, 3072, 768),
        (tokens, 768, 3072),
        (1, 768, 768),
    ):
        yield Layer.parse("bert_base", f"{rows}x{columns}x{depth}")


def family_of(layer: Layer) -> str:
    """Which of `FAMILIES` a layer is in."""
    if layer.is_gemm:
        return "gemm"
    return "depthwise" if layer.groups == layer.in_channels > 1 else "conv"


def lists(found: Sequence[Layer]) -> dict[str, str]:
    """The text of each family's file."""
    listed = {layer.shape for name in FAMILIES for layer in layers.read(f"{name}.txt")}
    texts = {name: ["# Layers of real models: benchmarks/model_layers.py."] for name in FAMILIES}
    sections = dict.fromkeys(FAMILIES, "")
    for layer in found:
        if layer.shape in listed:
            continue
        listed.add(layer.shape)
        family = family_of(layer)
        if sections[family] != layer.name:
            sections[family] = layer.name
            texts[family].append(f"[{layer.name}]")
        texts[family].append(layer.shape)
    return {name: "\n".join(lines) + "\n" for name, lines in texts.items()}


@click.command()
@click.option("--zoo", "directory", type=click.Path(path_type=Path), default=zoo.DEFAULT_DIRECTORY)
def main(directory: Path) -> None:
    """Write the lists of the layers of models."""
    found: list[Layer] = []
    for name in zoo.MODELS:
        found += layers_of(name, load_onnx(zoo.ensure(name, directory).float))
    found += [*mobilenet_v2(), *bert_base()]
    for family, text in lists(found).items():
        path = layers.SHAPES / f"{family}_models.txt"
        path.write_text(text)
        click.echo(f"{path.name}: {len(list(layers.read(path.name)))} layers")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.model_layers")
