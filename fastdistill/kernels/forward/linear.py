"""Rows times weights, packed so that each output sums in one order whatever is computed beside it."""

from __future__ import annotations

import numpy as np

from fastdistill.arguments import as_array, check_array, check_choice, check_integer
from fastdistill.errors import ArgumentError
from fastdistill.kernels.boundary import aligned_bytes, check_status, const, ffi, lib, pointer, refuse_rows, written
from fastdistill.kernels.isa import LAYOUTS, isa_layout, refuse_layout
from fastdistill.kernels.threads import check_threads

FORMATS = {"f32": lib.FD_F32, "f16": lib.FD_F16, "bf16": lib.FD_BF16, "q8": lib.FD_Q8, "q4": lib.FD_Q4}
_DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "q8": np.int8, "q4": np.uint8}
_CODES_PER_BLOCK = {"q8": 32, "q4": 16}  # array entries that hold the codes of 32 weights


def kernel_name(format: str) -> str:
    """What multiplies rows by weights of a format at the selected level: its instruction and its register tile.

    Parameters
    ----------
    format : str
        "f32", "f16", "bf16", "q8" or "q4"
    """
    check_choice("format", format, FORMATS)
    text = ffi.new("char[]", 128)
    lib.fd_kernel_name(FORMATS[format], text, len(text))
    return ffi.string(text).decode()


def packed_bytes(format: str, outputs: int, inputs: int) -> int:
    """Bytes that a PackedWeight takes beside its bias, a multiple of 64."""
    return lib.fd_packed_bytes(FORMATS[format], outputs, inputs)


class PackedWeight:
    """A weight matrix (outputs, inputs) in tiles, as csrc/kernels/forward/packed.h has them, and its bias; immutable.

    Attributes
    ----------
    format : str
        "f32", "f16", "bf16", "q8" or "q4"
    shape
        (outputs, inputs)
    layout
        "16x4" or "8x8": levels that read this one multiply by it
    struct
        struct fd_weight *, for C
    """

    def __init__(
        self,
        format: str,
        data: np.ndarray,
        scale: np.ndarray | None = None,
        minimum: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        inputs: int | None = None,
        threads: int | None = 1,
        packed: np.ndarray | None = None,
        layout: str | None = None,
    ) -> None:
        """Pack a matrix; the arrays it is made of are not held afterwards.

        Parameters
        ----------
        format : str
            "f32", "f16", "bf16", "q8" or "q4"
        data : float32, float16 or uint16 (outputs, inputs)
            uint16 holds bf16 bits; q8: int8 codes (outputs, blocks * 32); q4: uint8 (outputs, blocks * 16), byte j of a
            block holding code j low and code j + 16 high; blocks = ceil(inputs / 32)
        scale : float16 (outputs, blocks), optional
            of q8 and q4
        minimum : float16 (outputs, blocks), optional
            of q4: weight = scale * code + minimum
        bias : float32 (outputs,), optional
        inputs : int, optional
            columns, where the last block is not full
        threads : int | None, default 1
            at most so many; None: as many as this process may use
        packed : np.ndarray, optional
            where to: uint8 (packed_bytes(format, outputs, inputs),), beginning on a cache line; default: a new array
        layout : str, optional
            "16x4" or "8x8"; default: what the selected level reads

        Raises
        ------
        ArgumentError
        """
        check_choice("format", format, FORMATS)
        outputs, columns = check_array("data", data, _DTYPES[format], ("outputs", "columns"))
        blocks = columns // _CODES_PER_BLOCK[format] if format in _CODES_PER_BLOCK else 0
        if format in _CODES_PER_BLOCK and columns % _CODES_PER_BLOCK[format]:
            raise ArgumentError(
                f"data must have whole blocks of {_CODES_PER_BLOCK[format]} a row, got {columns} columns"
            )
        most = blocks * 32 if blocks else columns
        if 0 in data.shape:
            raise ArgumentError(f"data must have outputs and columns, got shape {data.shape}")
        inputs = most if inputs is None else check_integer("inputs", inputs, 1, 2**31 - 1)
        if not (most - 31 if blocks else most) <= inputs <= most:
            raise ArgumentError(f"inputs = {inputs} does not fit data of shape {data.shape}")
        for name, part, wanted in (("scale", scale, blocks > 0), ("minimum", minimum, format == "q4")):
            if (part is not None) != wanted:
                raise ArgumentError(f"{name} must {'be given' if wanted else 'be None'} for format {format}")
            if part is not None:
                check_array(name, part, np.float16, (outputs, blocks))
        self.layout = isa_layout() if layout is None else layout
        check_choice("layout", self.layout, LAYOUTS)
        self.format, self.shape = format, (outputs, inputs)
        size = packed_bytes(format, outputs, inputs)
        self._packed = aligned_bytes(size) if packed is None else packed
        check_array("packed", self._packed, np.uint8, (size,), written=True)
        if self._packed.ctypes.data % 64:
            raise ArgumentError("packed must begin on a cache line, an address that is a multiple of 64")
        self._bias = None
        if bias is not None:
            bias = as_array("bias", bias, np.float32, (outputs,))
            self._bias = np.zeros(-(-outputs // 32) * 32, np.float32)
            self._bias[:outputs] = bias
        threads = check_threads(threads)
        with written({"packed": packed}, {"data": data, "scale": scale, "minimum": minimum}):
            status = lib.fd_pack(
                FORMATS[format], LAYOUTS[self.layout], outputs, inputs, const(data), const(scale), const(minimum),
                pointer(self._packed), threads,
            )  # fmt: skip
        check_status("pack", status)
        self.struct = ffi.new("struct fd_weight *")
        self.struct.format, self.struct.layout = FORMATS[format], LAYOUTS[self.layout]
        self.struct.outputs, self.struct.inputs = outputs, inputs
        self.struct.packed, self.struct.bias = const(self._packed), const(self._bias)

    @property
    def floats(self) -> np.ndarray:
        """Of format f32: what is packed, float32 (n,), tile by tile; whoever trains it writes here.

        Raises
        ------
        ArgumentError
            for another format
        """
        if self.format != "f32":
            raise ArgumentError(f"floats are of format f32, this weight has {self.format}")
        return self._packed.view(np.float32)

    @property
    def bias(self) -> np.ndarray | None:
        """float32 (outputs,) and zeros up to a multiple of 32, or None; whoever trains it writes here."""
        return self._bias

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrix and its bias."""
        return self._packed.nbytes + (0 if self._bias is None else self._bias.nbytes)

    def multiply(self, x: np.ndarray, threads: int | None = 1) -> np.ndarray:
        """x float32 (rows, inputs) -> float32 (rows, outputs); q8 and q4 quantise x first (`quantize_rows`).

        Parameters
        ----------
        x : float32 (rows, inputs)
        threads : int | None, default 1
            at most so many; None: as many as this process may use

        Raises
        ------
        ArgumentError
        NotFiniteError
            where x is to be quantised and is not finite
        IsaError
            where the selected level reads another layout
        """
        rows, _ = check_array("x", x, np.float32, ("rows", self.shape[1]))
        y = np.empty((rows, self.shape[0]), np.float32)
        status = lib.fd_linear(self.struct, rows, const(x), pointer(y), check_threads(threads))
        if status == lib.FD_NOT_FINITE:
            refuse_rows("linear", x, bans=False)
        if status == lib.FD_OTHER_LAYOUT:
            refuse_layout(self.layout)
        check_status("linear", status)
        return y


def linear(
    x: np.ndarray,
    format: str,
    data: np.ndarray,
    scale: np.ndarray | None = None,
    minimum: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    threads: int | None = 1,
) -> np.ndarray:
    """x (rows, inputs) times a weight matrix, plus a bias: packs, then multiplies; see PackedWeight for repeated use.

    Parameters
    ----------
    x : float32 (rows, inputs)
    format : str
        "f32", "f16", "bf16", "q8" or "q4"
    data : np.ndarray
        as of PackedWeight
    scale : np.ndarray, optional
        as of PackedWeight
    minimum : np.ndarray, optional
        as of PackedWeight
    bias : float32 (outputs,), optional
    threads : int | None, default 1
        at most so many; None: as many as this process may use

    Returns
    -------
    float32 (rows, outputs)

    Raises
    ------
    ArgumentError
    NotFiniteError
    """
    _, inputs = check_array("x", x, np.float32, ("rows", "inputs"))
    return PackedWeight(format, data, scale, minimum, bias, inputs, threads).multiply(x, threads)
