"""What ships for the demo: real samples, a model of the promised form, and not too many bytes."""

import numpy as np
import onnx

from lowgemm.demo import MODEL_PATH, load_digits


def test_digits_have_the_promised_form() -> None:
    digits = load_digits()
    assert digits.test.shape == (1000, 1, 28, 28)
    assert digits.calibration.shape == (200, 1, 28, 28)
    for images in (digits.test, digits.calibration):
        assert images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
    assert digits.labels.shape == (1000,)
    assert set(digits.labels.tolist()) == set(range(10))
    assert digits.float_accuracy > 0.97


def test_calibration_and_test_images_are_different() -> None:
    digits = load_digits()
    seen = {image.tobytes() for image in digits.test}
    assert not any(image.tobytes() in seen for image in digits.calibration)


def test_model_has_the_promised_form() -> None:
    model = onnx.load(MODEL_PATH)
    onnx.checker.check_model(model, full_check=True)
    (source,), (result,) = model.graph.input, model.graph.output
    assert (source.name, result.name) == ("image", "logits")
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    assert shape == [1, 1, 28, 28]


def test_package_data_stays_small() -> None:
    total = sum(path.stat().st_size for path in MODEL_PATH.parent.iterdir() if path.is_file())
    assert total < 1_500_000
