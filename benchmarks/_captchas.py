"""Rendered captchas: letters in colour, turned and scattered over a photo."""

import numpy as np

from benchmarks import _pages, _photos

_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZabdefghkmnqrt2345678"


def render_captchas(count: int, side: int, style: _pages.PageStyle) -> np.ndarray:
    """Squares with three to six letters each: `uint8[count, side, side, 3]`."""
    from PIL import Image

    generator = np.random.default_rng(style.seed)
    captchas = []
    for photo in _photos.photo_crops(count, style.seed):
        image = Image.fromarray(photo).resize((side, side))
        for _ in range(int(generator.integers(3, 7))):
            letter = _letter(generator, style)
            left, top = (int(generator.integers(0, side - extent)) for extent in letter.size)
            image.paste(letter, (left, top), letter)
        captchas.append(np.asarray(image))
    return np.stack(captchas)


def _letter(generator: np.random.Generator, style: _pages.PageStyle):
    """One letter on a transparent ground."""
    from PIL import Image, ImageDraw, ImageFont

    side = int(generator.integers(50, 100))
    font = ImageFont.truetype(str(_pages.fonts() / generator.choice(style.fonts)), int(0.8 * side))
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    colour = tuple(int(v) for v in generator.integers(0, 256, 3))
    letter = str(generator.choice(list(_LETTERS)))
    ImageDraw.Draw(image).text((side / 2, side / 2), letter, font=font, fill=colour, anchor="mm")
    return image.rotate(float(generator.uniform(-40, 40)), Image.Resampling.BICUBIC)
