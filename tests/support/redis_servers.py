"""Real Redis servers for tests: one, a primary with sentinels, a cluster. On free loopback ports, ended by pid."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from support.certificates import Authority
from support.server_clock import ServerClock

MISSING: Final = "redis-server is missing: install the package redis-server (Debian, Ubuntu) or redis"

_WAIT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02
_NUDGE_SECONDS: Final = 6.0
"""Longer than Redis takes to give a failover up."""
_SLOTS: Final = 16_384
_ATTEMPTS: Final = 5
_PORTS: Final = (16_400, 32_000)
"""Five digits, and no number of a slot: a proxy that stands in for a server can tell them in what the server says."""
_PORTS_GIVEN: Final[set[int]] = set()
_CHANCE: Final = random.SystemRandom()
"""Not the seeded one: test processes that run side by side must not pick the same ports."""


class RedisOptions(msgspec.Struct, frozen=True):
    """How the servers of a test are set up.

    Attributes:
        user, password: Empty: everybody may do everything. Else only this user may, and sentinels ask for it too.
        tls: Encrypted ports only; clients need a certificate of the same authority if `client_certs`.
        dead_after_ms: How long sentinels and cluster members wait for one that does not answer; on a machine that has
            other things to do, less makes failovers that nobody asked for.
        config: More lines of configuration, such as `("maxmemory", "3mb")`.
        own_clock: Servers (not sentinels) go by a system clock that the test can set: `RedisServer.clock`.
    """

    user: str = ""
    password: str = ""
    tls: bool = False
    client_certs: bool = False
    config: tuple[tuple[str, str], ...] = ()
    own_clock: bool = False
    dead_after_ms: int = 2_000


class Certificates(msgspec.Struct, frozen=True):
    """Files of one authority."""

    ca: Path
    cert: Path
    key: Path


class RedisServer:
    """One redis-server process; `start` again after `kill` finds an empty memory."""

    def __init__(self, folder: Path, options: RedisOptions, *, sentinel: bool = False) -> None:
        self.port = free_port()
        self._options = options
        self._sentinel = sentinel
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.port}-", dir=folder))
        self._process: subprocess.Popen[bytes] | None = None
        self._has_run = False
        self.extra: list[tuple[str, str]] = []
        self.certificates = issue(folder) if options.tls else None
        self.clock = ServerClock(folder, self._folder.name) if options.own_clock and not sentinel else None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to run; returns when it answers. The first start takes another port where somebody was quicker."""
        for _ in range(1 if self._has_run else _ATTEMPTS):
            self._spawn()
            wait_for(lambda: self._has_ended() or self.answers("PING") == "PONG", f"{self.endpoint} answers")
            if not self._has_ended():
                self._has_run = True
                return
            self.port = free_port()
        raise RedisCliFailed(self.log)

    def _spawn(self) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None
        config = self._folder / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._lines()))
        command = [binary, str(config), *(["--sentinel"] if self._sentinel else [])]
        environment = None if self.clock is None else self.clock.environment
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=environment)

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def cli(self, *words: str, timeout: float = 10.0) -> str:
        """What redis-cli prints; raises when it fails."""
        binary = shutil.which("redis-cli")
        assert binary is not None
        options = ["-p", str(self.port), *self._login()]
        run = subprocess.run(
            [binary, "-e", *options, *words], capture_output=True, text=True, timeout=timeout, check=False
        )
        if run.returncode != 0:
            raise RedisCliFailed(run.stderr + run.stdout)
        return run.stdout.strip()

    def answers(self, *words: str) -> str:
        """As `cli`, empty when nobody is there."""
        with contextlib.suppress(RedisCliFailed, subprocess.TimeoutExpired):
            return self.cli(*words, timeout=2.0)
        return ""

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Let it stand still: its connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `stop`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _login(self) -> list[str]:
        options = self._options
        login = ["--user", options.user, "--pass", options.password, "--no-auth-warning"] if options.password else []
        if self.certificates is not None:
            files = self.certificates
            login += ["--tls", "--cacert", str(files.ca), "--cert", str(files.cert), "--key", str(files.key)]
        return login

    def _lines(self) -> Iterator[tuple[str, str]]:
        options = self._options
        yield "bind", "127.0.0.1"
        yield "dir", str(self._folder)
        yield "daemonize", "no"
        yield "protected-mode", "no"
        if self.certificates is None:
            yield "port", str(self.port)
        else:
            yield "port", "0"
            yield "tls-port", str(self.port)
            yield "tls-ca-cert-file", str(self.certificates.ca)
            yield "tls-cert-file", str(self.certificates.cert)
            yield "tls-key-file", str(self.certificates.key)
            yield "tls-auth-clients", "yes" if options.client_certs else "optional"
            yield "tls-replication", "yes"
            if not self._sentinel:
                yield "tls-cluster", "yes"
        if options.password:
            yield "user", "default off"
            yield "user", f"{options.user} on >{options.password} ~* &* +@all"
        if not self._sentinel:
            yield "save", '""'
            yield "appendonly", "no"
            yield "repl-diskless-sync-delay", "0"
            if options.password:
                yield "masteruser", options.user
                yield "masterauth", options.password
            yield from options.config
        yield from self.extra


class RedisCliFailed(Exception):
    """redis-cli could not do what it was told."""


class SentinelSetup:
    """A primary, a replica and three sentinels that call the primary `main`."""

    master_name: Final = "main"

    def __init__(self, folder: Path, options: RedisOptions) -> None:
        self._options = options
        self.servers = [RedisServer(folder, options) for _ in range(2)]
        self.sentinels = [RedisServer(folder, options, sentinel=True) for _ in range(3)]

    def start(self) -> None:
        """Begin to run; returns when the sentinels know each other and the replica."""
        primary, replica = self.servers
        replica.extra = [("replicaof", f"127.0.0.1 {primary.port}")]
        primary.start()
        replica.start()
        for sentinel in self.sentinels:
            sentinel.extra = list(self._watching(primary))
            sentinel.start()
        wait_for(self._is_settled, "three sentinels know one replica")

    def primary(self) -> RedisServer:
        """The server that most sentinels call the master."""
        named = [
            sentinel.answers("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master_name) for sentinel in self.sentinels
        ]
        ports = [answer.split("\n")[-1] for answer in named if answer]
        port = max(set(ports), key=ports.count)
        return next(server for server in self.servers if str(server.port) == port)

    def fail_over(self) -> RedisServer:
        """Have the replica made the master; returns it when it takes writes."""
        old = self.primary()
        new = next(server for server in self.servers if server is not old)
        wait_for(
            lambda: self.sentinels[0].answers("SENTINEL", "FAILOVER", self.master_name) == "OK", "a failover begins"
        )
        wait_for(lambda: "role:master" in new.answers("INFO", "replication"), "the replica is the master")
        wait_for(lambda: self.primary() is new, "the sentinels say so")
        return new

    def all(self) -> Sequence[RedisServer]:
        return [*self.sentinels, *self.servers]

    def _watching(self, primary: RedisServer) -> Iterator[tuple[str, str]]:
        name = self.master_name
        yield "sentinel", f"monitor {name} 127.0.0.1 {primary.port} 2"
        yield "sentinel", f"down-after-milliseconds {name} {self._options.dead_after_ms}"
        yield "sentinel", f"failover-timeout {name} 3000"
        if self._options.password:
            yield "sentinel", f"auth-user {name} {self._options.user}"
            yield "sentinel", f"auth-pass {name} {self._options.password}"
            yield "sentinel", f"sentinel-user {self._options.user}"
            yield "sentinel", f"sentinel-pass {self._options.password}"

    def _is_settled(self) -> bool:
        for sentinel in self.sentinels:
            lines = sentinel.answers("SENTINEL", "MASTER", self.master_name).split("\n")
            fields = dict(zip(lines[::2], lines[1::2], strict=False))
            if (fields.get("num-slaves"), fields.get("num-other-sentinels")) != ("1", "2"):
                return False
        return "master_link_status:up" in self.servers[1].answers("INFO", "replication")


class ClusterSetup:
    """Three masters with a third of the slots each, and a replica of each: servers 0 to 2, and 3 to 5."""

    def __init__(self, folder: Path, options: RedisOptions) -> None:
        self._options = options
        self.servers = [RedisServer(folder, options) for _ in range(6)]

    def start(self) -> None:
        """Begin to run; returns when every member sees a cluster that works."""
        for server in self.servers:
            server.extra = [
                ("cluster-enabled", "yes"),
                ("cluster-node-timeout", str(self._options.dead_after_ms)),
                # Not port + 10000: that could be anybody's.
                ("cluster-port", str(free_port())),
                ("cluster-replica-validity-factor", "0"),
            ]
            server.start()
        masters = self.servers[:3]
        bounds = [0, _SLOTS // 3, 2 * _SLOTS // 3, _SLOTS]
        for index, master in enumerate(masters):
            master.cli("CLUSTER", "ADDSLOTSRANGE", str(bounds[index]), str(bounds[index + 1] - 1))
            master.cli("CLUSTER", "SET-CONFIG-EPOCH", str(index + 1))
        first = self.servers[0]
        for server in self.servers[1:]:
            bus_port = dict(server.extra)["cluster-port"]
            first.cli("CLUSTER", "MEET", "127.0.0.1", str(server.port), bus_port)
        wait_for(lambda: all(self._knows(server, 6) for server in self.servers), "six members know each other")
        for master, replica in zip(masters, self.servers[3:], strict=True):
            replica.cli("CLUSTER", "REPLICATE", master.cli("CLUSTER", "MYID"))
        wait_for(self._is_settled, "the cluster works and every replica is in step")

    def owner_of(self, slot: int) -> RedisServer:
        """The master of a slot, as the members that answer see it."""
        for line in next(filter(None, (server.answers("CLUSTER", "NODES") for server in self.servers))).split("\n"):
            words = line.split(" ")
            if "master" in words[2] and "fail" not in words[2]:
                for run in words[8:]:
                    first, _, last = run.partition("-")
                    if first.isdigit() and int(first) <= slot <= int(last or first):
                        return self._by_port(words[1])
        raise LookupError(f"nobody owns slot {slot}")

    def fail_over(self, replica: RedisServer) -> None:
        """Make a replica the master, orderly; returns when it is."""
        wait_for(lambda: "master_link_status:up" in replica.answers("INFO", "replication"), "the replica is in step")
        wait_for(
            lambda: "role:master" in replica.answers("INFO", "replication"),
            "the replica is the master",
            nudge=lambda: replica.answers("CLUSTER", "FAILOVER"),
        )

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Move a slot with all its keys, and tell everybody; servers without a login only."""
        source = self.owner_of(slot)
        target_id = target.cli("CLUSTER", "MYID")
        self.begin_move(slot, target)
        keys = source.cli("CLUSTER", "GETKEYSINSLOT", str(slot), "1000").split()
        if keys:
            source.cli("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "REPLACE", "KEYS", *keys)
        for server in (target, source, *self.servers):
            if server.answers("ROLE").startswith("master"):
                server.cli("CLUSTER", "SETSLOT", str(slot), "NODE", target_id)

    def begin_move(self, slot: int, target: RedisServer) -> None:
        """Leave a slot half-way: keys that are not at its owner are asked for at the target."""
        source = self.owner_of(slot)
        target.cli("CLUSTER", "SETSLOT", str(slot), "IMPORTING", source.cli("CLUSTER", "MYID"))
        source.cli("CLUSTER", "SETSLOT", str(slot), "MIGRATING", target.cli("CLUSTER", "MYID"))

    def all(self) -> Sequence[RedisServer]:
        return self.servers

    def _by_port(self, address: str) -> RedisServer:
        port = address.partition("@")[0].rpartition(":")[2]
        return next(server for server in self.servers if str(server.port) == port)

    def _knows(self, server: RedisServer, members: int) -> bool:
        lines = server.answers("CLUSTER", "NODES").split("\n")
        return len(lines) == members and not any("handshake" in line for line in lines)

    def _is_settled(self) -> bool:
        works = all("cluster_state:ok" in server.answers("CLUSTER", "INFO") for server in self.servers)
        return works and all(
            "master_link_status:up" in replica.answers("INFO", "replication") for replica in self.servers[3:]
        )


@contextlib.contextmanager
def running_server(options: RedisOptions = RedisOptions()) -> Iterator[RedisServer]:  # noqa: B008 — frozen
    """One server."""
    require_redis()
    with _folder() as folder:
        server = RedisServer(folder, options)
        with _ending([server]):
            server.start()
            yield server


@contextlib.contextmanager
def running_sentinels(options: RedisOptions = RedisOptions()) -> Iterator[SentinelSetup]:  # noqa: B008 — frozen
    """A primary, a replica and three sentinels."""
    require_redis()
    with _folder() as folder:
        setup = SentinelSetup(folder, options)
        with _ending(setup.all()):
            setup.start()
            yield setup


@contextlib.contextmanager
def running_cluster(options: RedisOptions = RedisOptions()) -> Iterator[ClusterSetup]:  # noqa: B008 — frozen
    """Three masters and three replicas."""
    require_redis()
    with _folder() as folder:
        setup = ClusterSetup(folder, options)
        with _ending(setup.all()):
            setup.start()
            yield setup


def require_redis() -> None:
    """Skip the test where there is no Redis."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip(MISSING)


def free_port() -> int:
    """A loopback port that nobody has now, below those that the system hands to clients; never the same one twice."""
    while True:
        port = _CHANCE.randrange(*_PORTS)
        if port in _PORTS_GIVEN:
            continue
        _PORTS_GIVEN.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def wait_for(holds: Callable[[], bool], what: str, nudge: Callable[[], object] | None = None) -> None:
    """Poll until something holds; fails the test after 30 s. `nudge` is done at once, and again where it was lost."""
    began = nudged = time.monotonic()
    if nudge is not None:
        nudge()
    while not holds():
        now = time.monotonic()
        assert now - began < _WAIT_SECONDS, f"not within {_WAIT_SECONDS:g} s: {what}"
        if nudge is not None and now - nudged > _NUDGE_SECONDS:
            nudge()
            nudged = now
        time.sleep(_POLL_SECONDS)


def issue(folder: Path) -> Certificates:
    """Certificates for every server and client of a folder; made once."""
    ca, cert, key = folder / "ca.pem", folder / "redis.crt", folder / "redis.key"
    if not ca.exists():
        Authority(folder).issue("redis")
    return Certificates(ca, cert, key)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tidegate-redis-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _ending(servers: Sequence[RedisServer]) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.kill()
