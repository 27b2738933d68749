"""PHP's serialize format: PHP's own output can be read, ours is what PHP would write, anything else is harmless."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpibackfill.database.php_serialize import dumps, loads

integers = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text()
keys = integers | st.text().filter(lambda text: not re.fullmatch(r"0|-?[1-9][0-9]*", text))
mappings = st.recursive(
    st.dictionaries(keys, scalars, max_size=6),
    lambda arrays: st.dictionaries(keys, scalars | arrays, max_size=4),
    max_leaves=4,
)


@pytest.mark.parametrize(
    ("mapping", "written"),
    [
        ({}, b"a:0:{}"),
        ({"year": 2016}, b'a:1:{s:4:"year";i:2016;}'),
        ({"a": None, "b": True, "c": False}, b'a:3:{s:1:"a";N;s:1:"b";b:1;s:1:"c";b:0;}'),
        ({"né": "Zoë 🙂"}, 'a:1:{s:3:"né";s:9:"Zoë 🙂";}'.encode()),
        ({'"': '";}'}, b'a:1:{s:1:""";s:3:"";}";}'),
        ({"": -(2**63)}, b'a:1:{s:0:"";i:-9223372036854775808;}'),
        ({"x": {2024: 0.5}, "y": {}}, b'a:2:{s:1:"x";a:1:{i:2024;d:0.5;}s:1:"y";a:0:{}}'),
        ({"08": 1, "-0": 2, "1.0": 3, " 1": 4}, b'a:4:{s:2:"08";i:1;s:2:"-0";i:2;s:3:"1.0";i:3;s:2:" 1";i:4;}'),
        ({"9223372036854775808": None, "١": None}, 'a:2:{s:19:"9223372036854775808";N;s:2:"١";N;}'.encode()),
    ],
)
def test_arrays_are_written_as_php_writes_them(mapping: dict[str, Any], written: bytes) -> None:
    assert dumps(mapping) == written
    assert repr(loads(written)) == repr(mapping)


@pytest.mark.parametrize(
    ("mapping", "written"),
    [
        ({"2024": 1, "0": {"-7": 2}}, b"a:2:{i:2024;i:1;i:0;a:1:{i:-7;i:2;}}"),
        ({"-9223372036854775808": 1}, b"a:1:{i:-9223372036854775808;i:1;}"),
        ({"2024": 1, "a": 2, 2024: 3}, b'a:2:{i:2024;i:3;s:1:"a";i:2;}'),
    ],
)
def test_a_key_that_reads_as_an_integer_is_one(mapping: dict[Any, Any], written: bytes) -> None:
    assert dumps(mapping) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (5.0, "5"),
        (-2.5, "-2.5"),
        (0.0, "0"),
        (-0.0, "-0"),
        (100.0, "100"),
        (1e15, "1000000000000000"),
        (12345678901234568.0, "12345678901234568"),
        (1e17, "1.0E+17"),
        (1e25, "1.0E+25"),
        (-1.5e300, "-1.5E+300"),
        (0.0001, "0.0001"),
        (0.00001, "1.0E-5"),
        (-1.25e-7, "-1.25E-7"),
        (math.inf, "INF"),
        (-math.inf, "-INF"),
        (math.nan, "NAN"),
    ],
)
def test_floats_have_the_fewest_digits_that_read_back(number: float, written: str) -> None:
    blob = b'a:1:{s:1:"v";d:%s;}' % written.encode()
    assert dumps({"v": number}) == blob
    read = loads(blob)
    assert read is not None
    assert repr(read["v"]) == repr(number)


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        ("a:2:{i:0;i:1;i:1;d:1.100000000000000088817841970012523233890533447265625;}", {0: 1, 1: 1.1}),
        ('a:1:{s:1:"x";a:2:{i:-5;N;s:1:"y";a:0:{}}}', {"x": {-5: None, "y": {}}}),
        (memoryview(b'a:1:{s:1:"a";d:.5;}'), {"a": 0.5}),
        (b'a:1:{s:4:"name";s:3:"Zo\xeb";}', {"name": "Zo\\xeb"}),
        (b'a:2:{s:1:"k";i:1;s:1:"k";i:2;}', {"k": 2}),
    ],
)
def test_what_php_programs_have_stored_is_read(blob: object, expected: dict[Any, Any]) -> None:
    assert loads(blob) == expected


@pytest.mark.parametrize(
    "blob",
    [
        None,
        "",
        "Array",
        7,
        1.5,
        "N;",
        "i:5;",
        's:1:"a";',
        "a:0:{} ",
        " a:0:{}",
        "a:0:{}a:0:{}",
        "a:-1:{}",
        "a:1:{}",
        "a:0:{i:0;i:0;}",
        "a:1:{b:1;i:0;}",
        "a:1:{d:1;i:0;}",
        "a:1:{N;i:0;}",
        "a:1:{a:0:{}i:0;}",
        "a:1:{i:0;i:9223372036854775808;}",
        "a:1:{i:0;i:1_0;}",
        "a:1:{i:0;i:٣;}",
        "a:1:{i:0;d:1e;}",
        "a:1:{i:0;d:nan;}",
        "a:1:{i:0;b:2;}",
        'a:1:{i:0;s:2:"é}',
        'a:1:{i:0;s:1:"é";}',
        'a:1:{i:0;S:1:"\\41";}',
        'O:8:"stdClass":0:{}',
        'a:1:{i:0;O:8:"stdClass":1:{s:1:"a";i:1;}}',
        'a:1:{i:0;C:11:"ArrayObject":21:{x:i:0;a:0:{};m:a:0:{}}}',
        'a:1:{i:0;E:7:"Suit:Up";}',
        "a:2:{i:0;i:1;i:1;R:2;}",
        "a:2:{i:0;i:1;i:1;r:2;}",
        "\ud800",
        b"\xff\xfe",
    ],
)
def test_anything_but_a_plain_array_is_unreadable(blob: object) -> None:
    assert loads(blob) is None


@pytest.mark.parametrize(
    "blob",
    [
        b"a:1:{i:0;" * 100_000,
        b"a:1:{" * 100_000,
        b"a:1:{i:0;" * 5_000 + b"N;" + b"}" * 5_000,
        b"a:9999999999:{",
        b"a:9999999999:{i:0;N;}",
        b'a:1:{i:0;s:9999999999:"',
        b"a:1:{i:0;d:" + b"9" * 1_000_000,
        b"a:1:{i:0;i:" + b"9" * 1_000_000 + b";}",
    ],
)
def test_hostile_sizes_cost_nothing(blob: bytes) -> None:
    began = time.process_time()
    assert loads(blob) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize("value", [b"bytes", [], object(), {"nested": []}])
def test_only_scalars_and_arrays_are_written(value: Any) -> None:
    with pytest.raises(TypeError, match="not a PHP scalar"):
        dumps({"v": value})


def test_an_integer_that_php_cannot_hold_is_not_written() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        dumps({"v": 2**63})


@given(mappings)
def test_what_is_written_reads_back(mapping: dict[str | int, Any]) -> None:
    assert repr(loads(dumps(mapping))) == repr(mapping)


@given(mappings)
def test_every_cut_is_noticed(mapping: dict[str | int, Any]) -> None:
    blob = dumps(mapping)
    assert [end for end in range(len(blob)) if loads(blob[:end]) is not None] == []


@given(st.binary() | st.text())
def test_nothing_found_in_the_column_raises(blob: bytes | str) -> None:
    read = loads(blob)
    assert read is None or isinstance(read, dict)


@given(mappings, st.data())
def test_a_changed_byte_raises_nothing(mapping: dict[str | int, Any], data: st.DataObject) -> None:
    blob = bytearray(dumps(mapping))
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    read = loads(bytes(blob))
    assert read is None or isinstance(read, dict)


@given(st.lists(st.sampled_from([b"a:1:{", b"a:2:{", b"i:0;", b's:1:"x";', b"N;", b"}", b'O:1:"x":0:{}', b"R:1;"])))
def test_no_mixture_of_the_formats_parts_raises(parts: list[bytes]) -> None:
    read = loads(b"".join(parts))
    assert read is None or isinstance(read, dict)
