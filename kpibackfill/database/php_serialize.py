"""PHP's serialize format, as in the `meta` column of the fact table: writes and reads arrays, nested ones too.

PHP programs read what is written, so an array is exactly what PHP itself would write. A column can hold anything, so
reading never fails and never creates objects: anything but a plain array reads as None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Union

Scalar = str | int | float | bool | None
Value = Union[Scalar, "Array"]
Array = Mapping[Any, Value]  # the keys are texts and integers; Mapping is invariant in its keys

_DEEPEST = 64  # levels of arrays; honest ones have one or two
_INTEGERS = range(-(2**63), 2**63)
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}")  # what PHP takes for an integer as a key
# No alternative needs backtracking, whatever the input.
_TOKEN = re.compile(
    rb"(?P<null>N);"
    rb"|b:(?P<bool>[01]);"
    rb"|i:(?P<int>[+-]?\d{1,20});"
    rb"|d:(?P<float>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|-?INF|NAN);"
    rb'|s:(?P<str>\d{1,10}):"'
    rb"|a:(?P<array>\d{1,10}):\{"
)


def dumps(mapping: Array) -> bytes:
    """The mapping as a PHP-serialized array, with texts in UTF-8 and, as in PHP, keys such as `"2024"` as integers.

    Raises TypeError for a value of another type and ValueError for an integer of more than 64 bits.
    """
    items = {_key(key): value for key, value in mapping.items()}
    written = b"".join(_scalar(key) + _value(value) for key, value in items.items())
    return b"a:%d:{%s}" % (len(items), written)


def loads(blob: object) -> dict[str | int, Any] | None:
    """The PHP-serialized array in `blob` (bytes, memoryview or str, as drivers return it) as a dict, or None.

    Nested arrays are dicts too; bytes that are not UTF-8 appear as `\\xe9`. Anything else is None: NULL, a number, a
    text such as `Array`, a truncated array or one followed by more, and arrays that hold objects, enumerations or
    references.
    """
    try:
        if isinstance(blob, str):
            blob = blob.encode(errors="surrogateescape")
        if not isinstance(blob, bytes | bytearray | memoryview):
            return None
        data = bytes(blob)
        value, end = _read(data, 0, _DEEPEST)
    except ValueError:
        return None
    return value if isinstance(value, dict) and end == len(data) else None


def _key(key: str | int) -> str | int:
    return int(key) if isinstance(key, str) and _DECIMAL.fullmatch(key) and int(key) in _INTEGERS else key


def _value(value: Value) -> bytes:
    return dumps(value) if isinstance(value, Mapping) else _scalar(value)


def _scalar(value: Scalar) -> bytes:
    if value is None:
        return b"N;"
    if isinstance(value, bool):
        return b"b:%d;" % value
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise ValueError(f"{value} has more than PHP's 64 bits")
        return b"i:%d;" % value
    if isinstance(value, float):
        return b"d:%s;" % _float(float(value)).encode()
    if isinstance(value, str):
        text = value.encode()
        return b's:%d:"%s";' % (len(text), text)
    raise TypeError(f"{type(value).__name__} is not a PHP scalar")


def _float(value: float) -> str:
    """As PHP has written it since 7.1: the fewest digits that read back as this number."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INF" if value > 0 else "-INF"
    number = Decimal(repr(value)).normalize()
    if -4 <= number.adjusted() <= 16:
        return f"{number:f}"
    mantissa, exponent = f"{number:E}".split("E")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}E{exponent}"


def _read(data: bytes, start: int, depth: int) -> tuple[Any, int]:
    """The value that begins at `start`, and where it ends. Raises ValueError where no value can be read."""
    token = _TOKEN.match(data, start)
    if token is None or depth < 0:
        raise ValueError
    kind, end = str(token.lastgroup), token.end()
    text = token[kind]
    if kind == "null":
        return None, end
    if kind == "float":
        return float(text), end
    if kind == "str":
        close = end + int(text)
        if data[close : close + 2] != b'";':
            raise ValueError
        return data[end:close].decode(errors="backslashreplace"), close + 2
    if kind == "array":
        return _read_items(data, end, int(text), depth)
    number = int(text)
    if number not in _INTEGERS:
        raise ValueError
    return (bool(number) if kind == "bool" else number), end


def _read_items(data: bytes, at: int, count: int, depth: int) -> tuple[dict[str | int, Any], int]:
    items: dict[str | int, Any] = {}
    for _ in range(count):  # if the count is wrong, this ends at the first missing item
        key, at = _read(data, at, depth - 1)
        if type(key) not in (int, str):
            raise ValueError
        items[key], at = _read(data, at, depth - 1)
    if data[at : at + 1] != b"}":
        raise ValueError
    return items, at + 1
