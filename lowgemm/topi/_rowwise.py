"""Rows of codes with their own scale and bias behind them: x = code * scale + bias.

A row of a table is `columns` codes of 8, 4 or 2 bits, the first one in the lowest bits of the first byte, then the scale
and the bias: float32, or float16. FBGEMM calls these formats fused row-wise quantization ("SBFloat", "SBHalf").
"""

from dataclasses import dataclass

from tvm import tirx

from lowgemm.topi._arith import like, round_clamped_int


@dataclass(frozen=True)
class RowFormat:
    """How a row is held: `bits` a code (8, 4 or 2), `scale` the dtype of scale and bias ("float32" or "float16")."""

    bits: int
    scale: str

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scale, and of the bias."""
        return 4 if self.scale == "float32" else 2

    @property
    def per_byte(self) -> int:
        """Codes in a byte; the columns of a row are its multiple."""
        return 8 // self.bits

    @property
    def largest(self) -> int:
        """The largest code."""
        return 2**self.bits - 1

    def row_bytes(self, columns):
        """Bytes of a row."""
        return columns // self.per_byte + 2 * self.scale_bytes

    def codes(self, byte, start, lanes: int):
        """The codes of the columns `[start, start + lanes)` as float32.

        `byte(offset, count)` gives `count` bytes of the row. More than one code a byte: `start` is a multiple of
        `per_byte`, and so is `lanes`, or it is 1.
        """
        if self.bits == 8:
            return _float(byte(start, lanes))
        if lanes == 1:
            shift = (start % self.per_byte).astype("int32") * self.bits
            code = (byte(start // self.per_byte, 1).astype("int32") >> shift) & self.largest
            return _float(code)
        # Every lane gets the word that its code is in, and shifts it down by its own count.
        in_word = min(32 // self.bits, lanes)
        words = []
        for first in range(0, lanes, in_word):
            count = in_word // self.per_byte
            part = byte((start + first) // self.per_byte, count)
            word = tirx.reinterpret(f"uint{8 * count}", part).astype("uint32")
            shifts = tirx.Ramp(_u32(0), _u32(self.bits), in_word)
            words.append(tirx.Broadcast(word, in_word) >> shifts)
        joined = words[0] if len(words) == 1 else tirx.Shuffle(words, list(range(lanes)))
        return _float((joined & tirx.Broadcast(_u32(self.largest), lanes)).astype(f"int32x{lanes}"))

    def scale_and_bias(self, byte, columns):
        """A row's scale and bias as float32."""
        begin = columns // self.per_byte
        parts = (byte(begin + i * self.scale_bytes, self.scale_bytes) for i in range(2))
        return tuple(tirx.reinterpret(self.scale, part).astype("float32") for part in parts)

    def tail(self, scale, bias):
        """The bytes behind the codes: `scale` and `bias`, of the dtype `scale`."""
        count = self.scale_bytes
        parts = [tirx.reinterpret(f"uint8x{count}", value) for value in (scale, bias)]
        return tirx.Shuffle(parts, list(range(2 * count)))

    def packed(self, codes, lanes: int):
        """The bytes of int32 `codes`, `lanes` of them and a multiple of `per_byte`."""
        if self.bits == 8:
            return codes.astype(like("uint8", codes))
        # Codes as bytes, then the bytes of a word moved together into its lowest one.
        bits = 8 * self.per_byte
        count = lanes // self.per_byte
        word = tirx.reinterpret(_lanes(f"uint{bits}", count), codes.astype(f"uint8x{lanes}"))
        total = word
        for i in range(1, self.per_byte):
            total = total | (word >> tirx.const((8 - self.bits) * i, f"uint{bits}"))
        return total.astype(_lanes("uint8", count))

    def rounded(self, value):
        """The nearest code to `value`, ties to even, as int32."""
        return round_clamped_int(value, tirx.const(0.0, "float32"), _f32(self.largest))


def _float(value):
    return value.astype(like("float32", value))


def _lanes(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _f32(value: float):
    return tirx.const(float(value), "float32")


def _u32(value: int):
    return tirx.const(value, "uint32")
