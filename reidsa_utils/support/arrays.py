"""Numbers from what users hold: lists, arrays, tensors, columns of a table."""

import sys
from numbers import Real

import numpy as np

from .. import InputError


def as_array(values, kind=None) -> np.ndarray:
    """An array of numbers from a list, an array, a tensor of any device or a column of a table.

    kind: the dtype to convert to; None keeps that of the values. Numbers too large for it become
        infinite.
    Raises InputError for anything else: text, objects, rows of several lengths, complex numbers.
    """
    array = any_array(values)
    if array.dtype.kind not in "fiub":
        raise _no_numbers(values, f"its type is {array.dtype}")
    if kind is None:
        return array
    with np.errstate(over="ignore"):
        return array.astype(kind, copy=False)


def any_array(values) -> np.ndarray:
    """Like as_array, but an array of text or objects is returned as it is.

    Raises InputError for rows of several lengths and for masked values.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise _no_numbers(values, "some of it is masked")
    try:
        if isinstance(values, (list, tuple)):
            # A list of tensors, as a loop over batches collects them.
            values = [_from_tensor(value) for value in values]
        array = np.asarray(_from_tensor(values))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise _no_numbers(values, str(error)) from None
    if array.dtype.kind == "O" and array.size and all(isinstance(v, Real) for v in array.flat):
        array = np.array(array.tolist())  # columns of a table that have several types
    return array


def _from_tensor(values):
    """A tensor as an array; anything else as it is."""
    torch = sys.modules.get("torch")  # if torch is not imported, there is no tensor
    if torch is None or not torch.is_tensor(values):
        return values
    if values.is_floating_point() and values.element_size() < 4:
        values = values.float()  # numpy has no bfloat16
    return values.numpy(force=True)


def _no_numbers(values, why: str) -> InputError:
    return InputError(
        f"found a {type(values).__name__} that is not an array of numbers ({why}); "
        "expected rows of one length, all of numbers"
    )


def as_features(values) -> np.ndarray:
    """Like as_array, as float32, or as float64 where float32 may not hold all digits."""
    features = as_array(values)
    wide = np.promote_types(features.dtype, np.float32)
    return as_array(features, min(wide, np.dtype(np.float64)))


def as_tensor(values):
    """A float tensor, on the device of the values, from anything that as_array takes.

    Floats keep their type. Whole numbers and truth values become float32, or float64 where float32
    may not hold all digits. The tensor may share the memory of an array.
    Raises InputError as as_array does.
    """
    import torch  # here, since neither the renderer nor the metrics need it

    if not torch.is_tensor(values):
        array = as_array(values)
        if array.dtype.kind != "f" or array.itemsize > 8:
            array = as_features(array)
        # torch accepts only writable arrays in the processor's byte order.
        native = array.dtype.newbyteorder("=")
        return torch.from_numpy(np.require(array, native, requirements="CW"))
    check_tensor(values)
    if values.is_floating_point() and values.element_size() > 1:
        return values
    return values.to(torch.float64 if values.element_size() > 2 else torch.float32)


def type_name(values) -> str:
    """The name of the type that an array or a tensor holds: "int64", in any byte order."""
    return getattr(values.dtype, "name", str(values.dtype)).removeprefix("torch.")


def check_tensor(values) -> None:
    """Raises InputError for a tensor that is not dense, or not of real numbers."""
    if values.is_complex() or values.is_quantized or str(values.layout) != "torch.strided":
        raise _no_numbers(values, f"its type is {values.dtype}, its layout {values.layout}")


def check_whole(name: str, value, least: int = 1) -> None:
    """Raises InputError for an argument that is not a whole number, from `least` to 2^31."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or not least <= value <= 2**31:
        raise InputError(f"{name} is {value!r}; expected a whole number from {least} on")


def check_number(name: str, value, low: float, high: float) -> None:
    """Raises InputError for an argument that is not a number from low to high."""
    is_number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if not is_number or not low <= value <= high:
        raise InputError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}")
