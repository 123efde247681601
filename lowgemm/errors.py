"""Every error a user can meet. A message is one line: what is wrong, and what to do about it."""


class LowgemmError(Exception):
    """Base of all errors that lowgemm raises on purpose."""


class ModelError(LowgemmError):
    """The model file cannot be read, is damaged, or says something that has no meaning here."""


class UnsupportedOperatorError(ModelError):
    """The model is sound but uses operators (or forms of them) that lowgemm does not compile."""


class CalibrationError(LowgemmError):
    """The samples do not fit the model, or quantization cannot be done with them."""


class TargetError(LowgemmError):
    """The target does not exist, or this CPU lacks what it needs."""


class TuningError(LowgemmError):
    """What is to be tuned, its database, or a machine to measure on cannot be used."""


class InputError(LowgemmError):
    """A run was given arrays whose names, dtypes or shapes are not the model's."""


class ArtifactError(LowgemmError):
    """A shared library could not be built, or cannot be loaded as one of lowgemm's."""


class RecordError(LowgemmError):
    """A file is no record of measurements, or one that does not belong to this run."""


class BenchError(LowgemmError):
    """A measurement cannot be made as it was asked for."""
