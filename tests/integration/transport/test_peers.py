"""The native transport under clients that others wrote: grpc-go, curl, nghttp and h2load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from ratelimit_service.transport import reflection
from ratelimit_service.transport.contract import Transport
from ratelimit_service.wire.grpc.calls import frame_message
from ratelimit_service.wire.rls.client import encode_request
from support.deciders import ValueDecider, request_for
from support.transports import ASK, TRANSPORTS, on_loop, serving

CACHE = Path.home() / ".cache" / "tidegate" / "bin"
GHZ_MODULE = "github.com/bojand/ghz/cmd/ghz@v0.120.0"
DESCRIPTORS = Path(reflection.__file__).with_name(reflection.DESCRIPTORS_FILE)
QUIET = ("--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "20", "--output", os.devnull)
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")


class Ended(NamedTuple):
    """A program's exit code and all that it printed."""

    code: int
    text: str


async def _run(*command: str | Path) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return Ended(process.returncode or 0, output.decode(errors="replace"))


def _url(transport: Transport) -> str:
    return f"http://{transport.addresses[0]}{ASK}"


def _installed(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return found


@pytest.fixture(scope="module")
def ghz() -> str:
    """The load generator that drives grpc-go's client; built once, outside the repository."""
    target = CACHE / "ghz"
    found = shutil.which("ghz") or (str(target) if target.exists() else None)
    if found is not None:
        return found
    go = shutil.which("go")
    if go is None:
        pytest.skip("neither ghz nor a Go compiler to build it is here (Debian: golang-go)")
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOBIN": str(CACHE)}
    built = subprocess.run([go, "install", GHZ_MODULE], env=environment, capture_output=True, check=False)
    if built.returncode != 0:
        pytest.skip("ghz cannot be built: its modules are out of reach")
    return str(target)


@pytest.fixture(scope="module")
def curl() -> str:
    """With HTTP/2."""
    return _installed("curl", "curl")


@pytest.fixture(scope="module")
def nghttp() -> str:
    """A client that can pad and prioritise."""
    return _installed("nghttp", "nghttp2-client")


@pytest.fixture(scope="module")
def h2load() -> str:
    """A load generator in C."""
    return _installed("h2load", "nghttp2-client")


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole request message in a file."""
    path = tmp_path_factory.mktemp("peers") / "body"
    path.write_bytes(frame_message(encode_request(request_for(b"x"))))
    return path


@on_loop
@pytest.mark.parametrize(("value", "answer"), [("x", "OK"), ("late", "OK"), ("late-error", "Unavailable")])
async def test_grpc_go_gets_an_answer_to_every_call(ghz: str, value: str, answer: str) -> None:
    """A thousand calls, fifty at a time over four connections, answered at once, later, or with an error."""
    data = json.dumps({"domain": "test", "descriptors": [{"entries": [{"key": "user", "value": value}]}]})
    call = ASK.removeprefix("/")
    async with serving(TRANSPORTS["native"], ValueDecider()) as transport:
        ended = await _run(
            ghz, "--insecure", "--protoset", DESCRIPTORS, "--call", call, "-d", data, "-n", "1000", "-c", "50",
            "--connections", "4", "--timeout", "25s", "-O", "json", transport.addresses[0],
        )  # fmt: skip
    report = json.loads(ended.text)

    assert report["statusCodeDistribution"] == {answer: 1_000}


@on_loop
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), "415"),
        (("-X", "POST", "-d", "hello"), "415"),
        (("--head",), "415"),
        (GRPC, "405"),
        ((*GRPC, "--head"), "405"),
        (("-H", f"x-large: {'{' * 10_000}"), "415"),
        (("-X", "OPTIONS"), "415"),
    ],
)
async def test_curl_is_told_what_this_port_speaks(curl: str, arguments: tuple[str, ...], status: str) -> None:
    """Requests that are no calls get an HTTP status, and the whole answer comes."""
    async with serving(TRANSPORTS["native"], ValueDecider()) as transport:
        ended = await _run(curl, *QUIET, "--write-out", "%{http_code}", *arguments, _url(transport))

    assert ended == (0, status)


async def _curl_call(curl: str, body: Path, transport: Transport) -> Ended:
    """A real call; what it prints are the answer's headers and trailers."""
    return await _run(curl, *QUIET, "--dump-header", "-", *GRPC, "--data-binary", f"@{body}", _url(transport))


@on_loop
@pytest.mark.parametrize("message_bytes", [0, 1, 16_384, 2**20])
async def test_curl_makes_calls_small_and_large(curl: str, tmp_path: Path, message_bytes: int) -> None:
    """Up to 1 MiB, for which the windows must be opened again and again; the answer comes with its trailers."""
    body = tmp_path / "body"
    body.write_bytes(frame_message(encode_request(request_for(b"x" * message_bytes))))
    async with serving(TRANSPORTS["native"], ValueDecider()) as transport:
        ended = await _curl_call(curl, body, transport)

    assert ended.code == 0, ended.text
    assert re.findall(r"^(?:HTTP/2|grpc-status:) (\d+)", ended.text, re.MULTILINE) == ["200", "0"]


@on_loop
async def test_curl_with_huge_headers_loses_its_own_request_only(curl: str, body: Path) -> None:
    """A list above the size that the server announced ends its stream, and others are answered."""
    huge = [word for number in range(3) for word in ("-H", f"x-huge-{number}: {'{' * 8_000}")]
    async with serving(TRANSPORTS["native"], ValueDecider()) as transport:
        refused = await _run(curl, *QUIET, *huge, _url(transport))
        ended = await _curl_call(curl, body, transport)

    # 92: the stream was not closed cleanly.
    assert refused.code == 92, refused.text
    assert ended.code == 0, ended.text


@on_loop
@pytest.mark.parametrize("arguments", [(), ("-b", "200"), ("-p", "1"), ("-c", "0"), ("-w", "1"), ("-m", "50")])
async def test_nghttp_is_answered_however_it_speaks(nghttp: str, body: Path, arguments: tuple[str, ...]) -> None:
    """Padded, with priorities, without a header table, with windows of one byte, fifty calls at once."""
    async with serving(TRANSPORTS["native"], ValueDecider()) as transport:
        ended = await _run(
            nghttp, "--verbose", "--null-out", "--timeout", "20", *arguments, *GRPC, "-d", body, _url(transport)
        )
    statuses = re.findall(r"recv \(stream_id=\d+\) grpc-status: (\d+)", ended.text)

    assert ended.code == 0, ended.text
    assert set(statuses) == {"0"}, ended.text
    assert "RST_STREAM" not in ended.text


@on_loop
@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (1, 100), (100, 1), (100, 16)])
async def test_h2load_is_answered_with_any_number_of_calls(
    h2load: str, body: Path, connections: int, streams: int
) -> None:
    """Two thousand of them, every one with status 200; what was decided is counted beside."""
    decider = ValueDecider()
    async with serving(TRANSPORTS["native"], decider) as transport:
        ended = await _run(
            h2load, "-n", "2000", "-c", str(connections), "-m", str(streams), *GRPC, "-d", body, _url(transport)
        )

    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in ended.text, ended.text
    assert "status codes: 2000 2xx" in ended.text
    assert len(decider.calls) == 2_000
