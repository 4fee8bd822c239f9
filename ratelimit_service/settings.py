"""The typed settings that the flags of `tidegate serve` become.

`decode_settings` takes the texts and returns a `ServeSettings` that is valid as a whole, or raises all its problems.
"""

from __future__ import annotations

import enum
import socket
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ratelimit_service.addresses import Address, InvalidAddress, parse_address
from ratelimit_service.errors import TidegateError
from ratelimit_service.flags import FLAGS, MEMORY_STORE, XDS_SCHEME
from ratelimit_service.policy.quantities import duration_text, duration_us, quantity_bytes, quantity_text
from ratelimit_service.redis_server.address import InvalidStoreAddress, parse_store_url
from ratelimit_service.redis_server.address_model import RedisAddress
from ratelimit_service.xds_address import XDS_TYPES, InvalidXdsAddress, XdsAddress, parse_servers

Choice = TypeVar("Choice", bound=enum.Enum)

LOOPBACK_ONLY: Final = ("/json", "/rlconfig", "/explain", "/counters", "/reset", "/debug")
"""Admin pages that answer loopback only unless `--admin-expose` names them (DECISIONS 37)."""


class Compat(enum.Enum):
    """Whose counting and errors the whole process reproduces (DECISIONS 9)."""

    NONE = "none"
    ENVOYPROXY = "envoyproxy"


class LogFormat(enum.Enum):
    """JSON for machines, aligned columns for people."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(enum.Enum):
    """Least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ServeSettings(msgspec.Struct, frozen=True):
    """Everything that `serve` was told, checked.

    Fields are the flags of `FLAGS`, with units in their names. `xds` None: policies come from files, else `policies` is
    empty. `store` None: the memory of the process. `tls_cert` and
    `tls_key` are there together or not at all; `client_ca` needs them, and `client_sans` need `client_ca`.
    `traces_endpoint` is empty where no traces are made.
    """

    policies: tuple[Path, ...]
    xds: XdsAddress | None
    store: RedisAddress | None
    grpc: tuple[Address, ...]
    admin: Address
    transport: str
    workers: int
    tls_cert: Path | None
    tls_key: Path | None
    client_ca: Path | None
    client_sans: tuple[str, ...]
    drain_delay_us: int
    drain_grace_us: int
    store_max_keys: int
    store_max_bytes: int
    slots: int
    warm_file: Path | None
    secrets_dir: Path
    compat_per_second_store: RedisAddress | None
    compat_expiry_jitter_s: int
    compat_local_cache_bytes: int
    compat_stop_when_over: bool
    deadline_us: int
    compat: Compat
    log_format: LogFormat
    log_level: LogLevel
    traces_endpoint: str
    max_message_bytes: int
    metrics_max_series: int
    start_without_policies: bool
    admin_expose: frozenset[str]
    shadow_mode: bool
    quota_mode: bool
    merge_domain_config: bool
    response_headers: bool
    response_dynamic_metadata: bool
    near_limit_ratio: float


class InvalidSettings(TidegateError):
    """The flags contradict themselves or cannot be read.

    Attributes:
        problems: One line each, beginning with the flag.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Reader:
    """Reads texts by flag name and collects what is wrong; a field that is wrong reads as its default."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._problems: list[tuple[str, str]] = []
        self._texts = {flag.name: tuple(values.get(flag.name) or filter(None, [flag.default])) for flag in FLAGS}

    def complain(self, flag: str, message: str) -> None:
        self._problems.append((flag, message))

    def problems(self) -> list[str]:
        """What is wrong, in the order of the flags."""
        order = [flag.name for flag in FLAGS]
        return [f"{flag}: {message}" for flag, message in sorted(self._problems, key=lambda each: order.index(each[0]))]

    def texts(self, flag: str) -> tuple[str, ...]:
        return self._texts[flag]

    def text(self, flag: str) -> str:
        return "".join(self._texts[flag][-1:])

    def address(self, flag: str, text: str) -> Address:
        try:
            return parse_address(text)
        except InvalidAddress as error:
            self.complain(flag, str(error))
            return Address()

    def count(self, flag: str, low: int, high: int) -> int:
        text = self.text(flag)
        # The length first: Python refuses to read numbers of thousands of digits.
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and low <= int(text) <= high):
            self.complain(flag, f"{text!r} is not a whole number from {low} to {high}")
            return low
        return int(text)

    def size_bytes(self, flag: str, low: int, high: int) -> int:
        text = self.text(flag)
        size_bytes = quantity_bytes(text)
        if size_bytes is None:
            self.complain(flag, f"{text!r} is not a size; write bytes with k, M, G, Ki, Mi or Gi, like 200Mi")
        elif not low <= size_bytes <= high:
            self.complain(flag, f"{text} is out of range, {quantity_text(low)} to {quantity_text(high)}")
        return size_bytes or low

    def duration_us(self, flag: str, low_us: int, high_us: int) -> int:
        text = self.text(flag)
        value_us = 0 if text == "0" else duration_us(text)
        if value_us is None:
            self.complain(flag, f"{text!r} is not a duration; write numbers with h, m, s or ms, like 5s or 1m30s")
            return low_us
        if not low_us <= value_us <= high_us:
            self.complain(flag, f"{text} is out of range, {duration_text(low_us)} to {duration_text(high_us)}")
        return value_us

    def ratio(self, flag: str) -> float:
        try:
            ratio = float(self.text(flag))
        except ValueError:
            ratio = -1.0
        if not 0 < ratio <= 1:
            self.complain(flag, f"{self.text(flag)!r} is not a ratio above 0 and at most 1")
        return ratio

    def switch(self, flag: str) -> bool:
        text = self.text(flag).lower()
        if text not in _TRUTH:
            self.complain(flag, f"{text!r} is neither true nor false")
        return _TRUTH.get(text, False)

    def choice(self, flag: str, choices: type[Choice]) -> Choice:
        by_text = {choice.value: choice for choice in choices}
        self.one_of(flag, by_text)
        return by_text.get(self.text(flag), next(iter(choices)))

    def one_of(self, flag: str, choices: Collection[str]) -> str:
        text = self.text(flag)
        if text not in choices:
            self.complain(flag, f"{text!r} is none of {', '.join(choices)}")
        return text

    def file(self, flag: str) -> Path | None:
        text = self.text(flag)
        if text:
            self.must_be_there(flag, Path(text), "no such file", stat.S_ISREG)
        return Path(text) if text else None

    def must_be_there(self, flag: str, path: Path, absent: str, wanted: Callable[[int], bool]) -> None:
        """Complain unless the path leads to something of the wanted kind, which its mode tells."""
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            self.complain(flag, f"{path}: {absent}")
        except OSError as error:  # not allowed, a name too long, links in a circle
            self.complain(flag, f"{path}: {error.strerror}")
        else:
            if not wanted(mode):
                self.complain(flag, f"{path}: {absent}")


_MAX_DIGITS: Final = 20

_TRUTH: Final = {
    **dict.fromkeys(("true", "1", "t", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "f", "no", "off"), False),
}
"""What Go's strconv.ParseBool takes, which reads these variables for envoyproxy/ratelimit, and yes/no/on/off."""


def decode_settings(values: Mapping[str, Sequence[str]], transports: Collection[str]) -> ServeSettings:
    """Turn texts by flag name into settings.

    Args:
        values: Flag (`--grpc`) → texts given for it; an absent flag takes its default.
        transports: Names that `--transport` may say.

    Raises:
        InvalidSettings: With every problem at once.
    """
    read = _Reader(values)
    drain_delay_us = read.duration_us("--drain-delay", 0, 3_600_000_000)
    drain_grace_us = read.duration_us("--drain-grace", 0, 3_600_000_000)
    if drain_grace_us < drain_delay_us:
        read.complain("--drain-grace", "includes --drain-delay, so it cannot be shorter")
    tls_cert, tls_key, client_ca, client_sans = _tls(read)
    slots = read.count("--slots", 1, 1000)
    start_without_policies = read.switch("--start-without-policies")
    xds = _xds(read)
    settings = ServeSettings(
        policies=() if xds is not None else _policies(read, may_come_later=start_without_policies),
        xds=xds,
        store=_store(read),
        grpc=tuple(read.address("--grpc", text) for text in read.texts("--grpc")),
        admin=_admin(read),
        transport=read.one_of("--transport", transports),
        workers=_workers(read, slots),
        tls_cert=tls_cert,
        tls_key=tls_key,
        client_ca=client_ca,
        client_sans=client_sans,
        drain_delay_us=drain_delay_us,
        drain_grace_us=drain_grace_us,
        store_max_keys=read.count("--store-max-keys", 1, 10**9),
        store_max_bytes=read.size_bytes("--store-max-bytes", 2**20, 2**50),
        slots=slots,
        warm_file=Path(read.text("--warm-file")) if read.text("--warm-file") else None,
        secrets_dir=Path(read.text("--secrets-dir")),
        compat_per_second_store=_per_second_store(read),
        compat_expiry_jitter_s=read.duration_us("--compat-expiry-jitter", 0, 86_400_000_000) // 1_000_000,
        compat_local_cache_bytes=read.size_bytes("--compat-local-cache-bytes", 0, 2**40),
        compat_stop_when_over=read.switch("--compat-stop-when-over"),
        deadline_us=read.duration_us("--deadline", 1_000, 60_000_000),
        compat=read.choice("--compat", Compat),
        log_format=read.choice("--log-format", LogFormat),
        log_level=read.choice("--log-level", LogLevel),
        traces_endpoint=_traces_endpoint(read),
        max_message_bytes=read.size_bytes("--max-message-bytes", 1024, 2**30),
        metrics_max_series=read.count("--metrics-max-series", 1, 10**7),
        start_without_policies=start_without_policies,
        admin_expose=_admin_expose(read),
        shadow_mode=read.switch("--shadow-mode"),
        quota_mode=read.switch("--quota-mode"),
        merge_domain_config=read.switch("--merge-domain-config"),
        response_headers=read.switch("--response-headers"),
        response_dynamic_metadata=read.switch("--response-dynamic-metadata"),
        near_limit_ratio=read.ratio("--near-limit-ratio"),
    )
    if problems := read.problems():
        raise InvalidSettings(problems)
    return settings


def _policies(read: _Reader, *, may_come_later: bool) -> tuple[Path, ...]:
    paths = tuple(Path(text) for text in read.texts("--policies"))
    if not paths:
        read.complain("--policies", "name at least one file or folder of policies, like --policies examples/policies")
    if not may_come_later:
        for path in paths:
            read.must_be_there("--policies", path, "no such file or folder", lambda _mode: True)
    return paths


def _xds(read: _Reader) -> XdsAddress | None:
    """The operator to follow, None: there is none, or what is said of it is wrong."""
    texts = read.texts("--policies")
    if not any(text.startswith(XDS_SCHEME) for text in texts):
        for flag in ("--xds-ca", "--xds-cert", "--xds-key", "--xds-snapshot", "--xds-bootstrap"):
            if read.text(flag):
                read.complain(flag, f"goes with --policies {XDS_SCHEME}HOST:PORT")
        return None
    if len(texts) > 1:
        read.complain("--policies", "an operator is the only source of policies; name it alone")
    servers: tuple[Address, ...] = ()
    try:
        servers = parse_servers(texts[0])
    except InvalidXdsAddress as wrong:
        for problem in wrong.problems:
            read.complain("--policies", problem)
    ca, cert, key = (read.file(flag) for flag in ("--xds-ca", "--xds-cert", "--xds-key"))
    if (cert is None) != (key is None):
        read.complain("--xds-cert" if cert is None else "--xds-key", "certificate and key go together")
    if cert is not None and ca is None:
        read.complain("--xds-ca", "is needed with --xds-cert: the operator is trusted by its CA")
    return XdsAddress(
        servers=servers,
        node=read.text("--xds-node") or socket.gethostname(),
        resources=read.one_of("--xds-type", XDS_TYPES),
        ca=str(ca or ""),
        cert=str(cert or ""),
        key=str(key or ""),
        server_name=read.text("--xds-server-name"),
        snapshot=read.text("--xds-snapshot"),
        bootstrap=read.text("--xds-bootstrap"),
    )


def _workers(read: _Reader, slots: int) -> int:
    workers = read.count("--workers", 1, 64)
    if workers == 1:
        return 1
    if read.text("--store") == MEMORY_STORE:
        read.complain(
            "--workers",
            f"{workers} workers need a store that they share, like --store redis://HOST:PORT; "
            f"counts of {MEMORY_STORE} belong to one process",
        )
    if read.text("--transport") == "grpcio":
        read.complain("--workers", "more than one needs --transport native; grpcio takes no connection from another")
    if 1 < slots < workers:
        read.complain("--slots", f"{slots} are fewer than {workers} workers, each of which is a replica")
    return workers


def _traces_endpoint(read: _Reader) -> str:
    """Where traces go, empty: nowhere."""
    text = read.text("--traces-endpoint")
    if text == "none":
        return ""
    scheme, _, rest = text.partition("://")
    if scheme not in {"http", "https"} or not rest.strip("/"):
        read.complain("--traces-endpoint", f"{text!r} is no endpoint; write http://HOST:4317, https://… or none")
    return text


def _store(read: _Reader) -> RedisAddress | None:
    text = read.text("--store")
    if text == MEMORY_STORE:
        return None
    if not text.startswith("redis"):
        read.complain("--store", f"{text!r} is no store; write {MEMORY_STORE} or redis://HOST:PORT")
        return None
    return _redis(read, "--store", text)


def _per_second_store(read: _Reader) -> RedisAddress | None:
    text = read.text("--compat-per-second-store")
    return _redis(read, "--compat-per-second-store", text) if text else None


def _redis(read: _Reader, flag: str, text: str) -> RedisAddress | None:
    try:
        return parse_store_url(text)
    except InvalidStoreAddress as wrong:
        for problem in wrong.problems:
            read.complain(flag, problem)
    return None


def _admin(read: _Reader) -> Address:
    address = read.address("--admin", read.text("--admin"))
    if address.unix_path:
        read.complain("--admin", "is HOST:PORT; a Unix socket is for --grpc only")
    return address


def _tls(read: _Reader) -> tuple[Path | None, Path | None, Path | None, tuple[str, ...]]:
    cert, key = read.file("--grpc-tls-cert"), read.file("--grpc-tls-key")
    client_ca, client_sans = read.file("--grpc-client-ca"), read.texts("--grpc-client-san")
    if (cert is None) != (key is None):
        missing = "--grpc-tls-cert" if cert is None else "--grpc-tls-key"
        read.complain(missing, "certificate and key go together")
    if client_ca is not None and cert is None:
        read.complain("--grpc-client-ca", "needs --grpc-tls-cert and --grpc-tls-key")
    if client_sans and client_ca is None:
        read.complain("--grpc-client-san", "needs --grpc-client-ca")
    return cert, key, client_ca, client_sans


def _admin_expose(read: _Reader) -> frozenset[str]:
    pages = frozenset("/" + text.strip("/") for text in read.texts("--admin-expose"))
    for page in sorted(pages.difference(LOOPBACK_ONLY)):
        read.complain("--admin-expose", f"{page} is none of {', '.join(LOOPBACK_ONLY)}")
    return pages
