# %% [markdown]
# # Quickstart: from a float ONNX model to one shared library
#
# The model is a small digit classifier and the images are MNIST digits; both ship with the package.
# Everything this script claims it asserts, and the test suite runs it.

# %%
from pathlib import Path

import numpy as np

import lowgemm
from lowgemm.demo import MODEL_PATH, load_digits
from lowgemm.errors import InputError

digits = load_digits()
print(
    f"{len(digits.test)} test images {digits.test[0].shape}, {len(digits.calibration)} to calibrate"
)

# %% [markdown]
# ## Compile
#
# The model is float, so it needs calibration: samples of what the inputs look like, one array per
# input, named as the input is, first axis = samples. From them come the scale and the zero point of
# each activation. Weights become `int8` with a scale per output channel. The target is this machine
# unless it is named.

# %%
model = lowgemm.compile(MODEL_PATH, calibration={"image": digits.calibration})
library = Path("digits.so")
model.export(library)
before, after = (path.stat().st_size / 1024 for path in (MODEL_PATH, library))
print(f"{library}: {after:.0f} KiB, the float model: {before:.0f} KiB")
assert library.exists()
assert library.with_suffix(".h").exists(), "the C header lies beside the library"

# %% [markdown]
# ## Load and run
#
# Loading needs numpy and nothing else: no compiler, no TVM, no ONNX. A network is called with a
# dict of arrays and returns one.

# %%
net = lowgemm.load(library, threads=2)
outputs = net({"image": digits.test[:1]})
print(outputs)
assert outputs["logits"].shape == (1, 10)
assert outputs["logits"].argmax() == digits.labels[0]

# %% [markdown]
# ## What int8 costs in accuracy
#
# `float_accuracy` is what PyTorch measured on the same images with the float model.

# %%
labels = [net({"image": image[None]})["logits"].argmax() for image in digits.test]
accuracy = float(np.mean(labels == digits.labels))
print(f"accuracy: float {digits.float_accuracy:.2%}, int8 {accuracy:.2%}")
assert accuracy > 0.97
assert accuracy > digits.float_accuracy - 0.01

# %% [markdown]
# ## The same answer, whatever the thread count
#
# The result is defined in integers, so it does not depend on how the work is split.

# %%
single = lowgemm.load(library, threads=1)
for image in digits.test[:20]:
    assert np.array_equal(
        single({"image": image[None]})["logits"], net({"image": image[None]})["logits"]
    )

# %% [markdown]
# ## Wrong input is an error that says what to do

# %%
try:
    net({"image": digits.test[:1].astype(np.float64)})
except InputError as error:
    print(f"error: {error}")
    assert "float64" in str(error) and "float32" in str(error)
else:
    raise AssertionError("float64 was accepted")
