"""Rules for the fields of a request (RFC 9113 §8.2, §8.3), and what is remembered of them."""

from __future__ import annotations

import pytest

from ratelimit_service.wire.http2.fields import HeadReader, MalformedFields

METHOD, SCHEME, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a")
GOOD = (METHOD, SCHEME, PATH)

MALFORMED = [
    ("no :method", (SCHEME, PATH)),
    ("no :scheme", (METHOD, PATH)),
    ("no :path", (METHOD, SCHEME)),
    ("an empty :path", (METHOD, SCHEME, (b":path", b""))),
    ("a repeated :path", (*GOOD, PATH)),
    ("an unknown pseudo-field", (*GOOD, (b":x", b"y"))),
    ("a response's pseudo-field", (*GOOD, (b":status", b"200"))),
    ("a pseudo-field after a regular one", (METHOD, SCHEME, (b"a", b"b"), PATH)),
    ("CONNECT with a path", ((b":method", b"CONNECT"), (b":authority", b"a"), PATH)),
    ("CONNECT without an authority", ((b":method", b"CONNECT"),)),
    ("an upper-case name", (*GOOD, (b"Name", b"x"))),
    ("an empty name", (*GOOD, (b"", b"x"))),
    ("a name with a space", (*GOOD, (b"a b", b"x"))),
    ("a connection field", (*GOOD, (b"connection", b"close"))),
    ("transfer-encoding", (*GOOD, (b"transfer-encoding", b"chunked"))),
    ("te other than trailers", (*GOOD, (b"te", b"gzip"))),
    ("a value with NUL", (*GOOD, (b"a", b"x\0y"))),
    ("a value with CR", (*GOOD, (b"a", b"x\ry"))),
    ("a value with LF", (*GOOD, (b"a", b"x\ny"))),
    ("a value that begins with a space", (*GOOD, (b"a", b" x"))),
    ("a value that ends with a tab", (*GOOD, (b"a", b"x\t"))),
    ("a path with LF", (METHOD, SCHEME, (b":path", b"/\n"))),
    ("a content-length that is none", (*GOOD, (b"content-length", b"-1"))),
    ("a content-length of 19 digits", (*GOOD, (b"content-length", b"1" * 19))),
    ("two content-lengths", (*GOOD, (b"content-length", b"1"), (b"content-length", b"2"))),
]


def _reader() -> HeadReader:
    return HeadReader(frozenset({b"kept"}), b"varied")


@pytest.mark.parametrize(("name", "block"), MALFORMED, ids=[name for name, _ in MALFORMED])
def test_a_malformed_head_is_refused_each_time(name: str, block: tuple[tuple[bytes, bytes], ...]) -> None:
    """Also when it comes again, and when every field in it was good in another head."""
    reader = _reader()
    reader.read((*GOOD, (b"a", b"b")))

    for _ in range(2):
        with pytest.raises(MalformedFields):
            reader.read(block)


def test_a_pseudo_field_out_of_place_is_seen_when_the_shape_is_known() -> None:
    """The same kept fields in a good order first."""
    reader = _reader()
    reader.read((METHOD, SCHEME, PATH, (b"a", b"b")))

    with pytest.raises(MalformedFields):
        reader.read((METHOD, SCHEME, (b"a", b"b"), PATH))


def test_a_head_has_what_is_kept_and_what_varies() -> None:
    """Other fields are checked and dropped; repeated ones are joined."""
    reader = _reader()
    block = (*GOOD, (b"te", b"trailers"), (b"other", b"x"), (b"kept", b"1"), (b"kept", b"2"), (b"varied", b"v"))
    head = reader.read(block)

    assert head.shape.method == b"POST"
    assert head.shape.path == b"/a"
    assert head.shape.fields == {b"kept": b"1,2"}
    assert head.varied == b"v"
    assert reader.read((*block, (b"varied", b"w"))).varied == b"v,w"


def test_heads_that_differ_in_what_varies_have_one_shape() -> None:
    """What was made of the shape is found again."""
    reader = _reader()
    one, two = (reader.read((*GOOD, (b"varied", value), (b"other", value))) for value in (b"1", b"2"))

    assert one.shape is two.shape
    assert reader.read((*GOOD, (b"kept", b"1"))).shape is not one.shape


def test_connect_takes_an_authority_alone() -> None:
    """And no path."""
    assert _reader().read(((b":method", b"CONNECT"), (b":authority", b"a"))).shape.path == b""


def test_a_content_length_is_read() -> None:
    """For the check against the body."""
    assert _reader().read((*GOOD, (b"content-length", b"12"))).content_length == 12


@pytest.mark.parametrize("block", [(PATH,), ((b"Upper", b"x"),), ((b"te", b"gzip"),), ((b"a", b"\n"),)])
def test_malformed_trailers_are_refused(block: tuple[tuple[bytes, bytes], ...]) -> None:
    """They hold regular fields only."""
    with pytest.raises(MalformedFields):
        _reader().check_trailers(block)


def test_trailers_may_repeat_a_name_that_nobody_reads() -> None:
    """It is checked each time, and dropped."""
    reader = _reader()
    reader.check_trailers(((b"checksum", b"1"), (b"checksum", b"2")))
    with pytest.raises(MalformedFields):
        reader.check_trailers(((b"checksum", b"1\n"),))


def test_what_is_remembered_is_bounded() -> None:
    """Fields and shapes of a client that never repeats itself; long fields are not remembered at all."""
    reader = _reader()
    for number in range(1_000):
        reader.read((*GOOD, (b"kept", b"%d" % number), (b"other", b"%d" % number), (b"long", bytes(b"x" * 300))))

    assert len(reader._shapes) <= 64
    assert len(reader._roles) <= 256
    assert max(len(name) + len(value) for name, value in reader._roles) <= 256


def test_names_that_were_found_good_are_remembered_within_a_bound() -> None:
    """However many come, and however long they are; each is judged the same when it comes again."""
    reader = _reader()
    for number in range(600):
        reader.read((*GOOD, (b"x-%d" % number, b"y")))
    reader.read((*GOOD, (b"x" * 5_000, b"y")))
    held = reader._passed

    assert len(held) <= 256
    assert max(map(len, held)) < 300
    with pytest.raises(MalformedFields):
        reader.read((*GOOD, (b"x-1\0", b"y")))
