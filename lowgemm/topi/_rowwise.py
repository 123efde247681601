"""Rows of codes with their own scale and bias beside them: x = code * scale + bias.

A row of a table is `columns` codes of 8, 4 or 2 bits, the first one in the lowest bits of the first byte, and the scale
and the bias: float32, or float16. FBGEMM calls these formats fused row-wise quantization ("SBFloat", "SBHalf").
`quant.quantize_rows` and `quant.dequantize_rows` define the numbers.
"""

from dataclasses import dataclass

from tvm import tirx

from lowgemm.topi._arith import f32, fma, like, nearest, saturated, to_float

# Keeps FBGEMM's reciprocal of an empty range finite.
_EPSILON = 1e-8


@dataclass(frozen=True)
class RowFormat:
    """How a row is held: `bits` a code (8, 4 or 2), the dtype of scale and bias ("float32" or "float16"), and whether
    these two stand behind the codes (`last`) or in front of them."""

    bits: int
    params: str
    last: bool = True

    @property
    def param_bytes(self) -> int:
        """Bytes of scale and bias together."""
        return 8 if self.params == "float32" else 4

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
        return columns // self.per_byte + self.param_bytes

    def code_byte(self, start):
        """Where in a row the code of the column `start` is."""
        return start // self.per_byte + (0 if self.last else self.param_bytes)

    def codes(self, byte, start, lanes: int):
        """The codes of the columns `[start, start + lanes)` as float32.

        `byte(offset, count)` gives `count` bytes of the row. More than one code a byte: `start` is a multiple of
        `per_byte`, and so is `lanes`, or it is 1.
        """
        first = self.code_byte(start)
        if self.bits == 8:
            return to_float(byte(first, lanes))
        if lanes == 1:
            shift = (start % self.per_byte).astype("int32") * self.bits
            return to_float((byte(first, 1).astype("int32") >> shift) & self.largest)
        # Every lane gets the word that its code is in, and shifts it down by its own count.
        in_word = min(32 // self.bits, lanes)
        count = in_word // self.per_byte
        words = []
        for number in range(lanes // in_word):
            part = byte(first + number * count, count)
            word = tirx.reinterpret(f"uint{8 * count}", part).astype("uint32")
            shifts = tirx.Ramp(_u32(0), _u32(self.bits), in_word)
            words.append(tirx.Broadcast(word, in_word) >> shifts)
        joined = words[0] if len(words) == 1 else tirx.Shuffle(words, list(range(lanes)))
        codes = joined & tirx.Broadcast(_u32(self.largest), lanes)
        return to_float(codes.astype(like("int32", codes)))  # signed, which has an instruction

    def scale_and_bias(self, byte, columns):
        """A row's scale and bias as float32."""
        begin = columns // self.per_byte if self.last else 0
        count = self.param_bytes // 2
        parts = (byte(begin + i * count, count) for i in range(2))
        return tuple(tirx.reinterpret(self.params, part).astype("float32") for part in parts)

    def real(self, codes, scale, bias):
        """The elements that float32 `codes` stand for."""
        return fma(codes, scale, bias)

    def of_range(self, low, high):
        """(scale, bias, inverse) of a row with elements from `low` to `high`, all float32.

        The first two are in `params` as they are; the code of x is the nearest integer to (x - bias) * inverse.
        """
        top = f32(float(self.largest))
        if self.params == "float32":
            return (high - low) / top, low, top / (high - low + f32(_EPSILON))
        low = low.astype("float16").astype("float32")
        one = f32(1.0)
        scale = tirx.Select(high == low, one, (high - low) / top)
        scale = scale.astype("float16").astype("float32")
        scale = tirx.Select(scale == f32(0.0), one, scale)
        return scale, low, one / scale

    def packed(self, values, lanes: int):
        """The bytes of the nearest codes to float32 `values`, `lanes` of them and a multiple of `per_byte`."""
        bounded = tirx.min(f32(float(self.largest)), values)
        small = saturated(nearest(bounded), "uint8")
        if self.bits == 8:
            return small
        # The codes of a byte as the bytes of a word, moved together into its lowest one.
        kind, count = f"uint{8 * self.per_byte}", lanes // self.per_byte
        word = tirx.reinterpret(kind if count == 1 else f"{kind}x{count}", small)
        together = word
        for i in range(1, self.per_byte):
            together = together | (word >> tirx.const((8 - self.bits) * i, kind))
        return together.astype(like("uint8", together))

    def param_bytes_of(self, scale, bias):
        """The bytes of float32 `scale` and `bias` as a row holds them."""
        count = self.param_bytes // 2
        parts = [tirx.reinterpret(f"uint8x{count}", v.astype(self.params)) for v in (scale, bias)]
        return tirx.Shuffle(parts, list(range(2 * count)))


def _u32(value: int):
    return tirx.const(value, "uint32")
