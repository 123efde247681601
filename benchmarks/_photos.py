"""Images for classifiers: crops of the photos that Python packages bring along."""

from pathlib import Path

import numpy as np

SIDE = 224


def photo_crops(count: int, seed: int) -> np.ndarray:
    """Random crops, half of them mirrored, of scikit-learn's and matplotlib's photos.

    Returns:
        `uint8[count, 224, 224, 3]`, RGB.
    """
    from PIL import Image

    generator = np.random.default_rng(seed)
    photos = [Image.open(path).convert("RGB") for path in _files()]
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(min(photo.size) * generator.uniform(0.35, 1))
        left, top = (int(generator.integers(0, extent - side + 1)) for extent in photo.size)
        crop = photo.crop((left, top, left + side, top + side))
        pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        pixels = pixels * generator.uniform(0.6, 1.2)
        crops.append(pixels[:, ::-1] if generator.random() < 0.5 else pixels)
    return np.clip(np.rint(np.stack(crops)), 0, 255).astype(np.uint8)


def _files() -> list[Path]:
    import matplotlib
    import sklearn.datasets

    images = Path(sklearn.datasets.__file__).parent / "images"
    samples = Path(matplotlib.get_data_path()) / "sample_data"
    return [images / "china.jpg", images / "flower.jpg", samples / "grace_hopper.jpg"]
