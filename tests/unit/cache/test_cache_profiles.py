"""What profiles mean: the four that ship, and manifests over each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.cache.compression import Method
from ratelimit_service.cache.profiles import (
    PROFILES,
    InvalidProfile,
    api_responses,
    auth_tokens,
    load_profile,
    rate_limiting,
    sessions,
)
from ratelimit_service.policy.profile_model import CoherenceMode, Eviction, WarmingMode
from ratelimit_service.redis_server.address_model import Layout

MIB = 1024 * 1024
HEAD = "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: mine, namespace: n}\nspec:\n"


def written(folder: Path, spec: str) -> Path:
    """A file with one profile."""
    path = folder / "profile.yaml"
    path.write_text(HEAD + "".join(f"  {line}\n" for line in spec.strip().splitlines()))
    return path


def test_the_profiles_that_ship_are_as_documented() -> None:
    """The numbers of the design."""
    limits, tokens, users, pages = rate_limiting(), auth_tokens(), sessions(), api_responses()

    assert (limits.max_entries, limits.max_memory_bytes) == (100_000, 200 * MIB)
    assert (limits.warning_percent, limits.critical_percent) == (70, 85)
    assert (limits.compression, limits.level, limits.threshold_bytes) == (Method.GZIP, 4, 512)
    assert (tokens.ttl_us, tokens.delta_us, tokens.stale_on_error_us) == (1_800_000_000, 100_000, 0)
    assert (users.ttl_us, users.max_memory_bytes, users.warming) == (3_600_000_000, 100 * MIB, WarmingMode.ADAPTIVE)
    assert (pages.ttl_us, pages.threshold_bytes) == (300_000_000, 1_024)
    assert set(PROFILES) == {"rate-limiting", "auth-tokens", "sessions", "api-responses"}
    assert all(settings.engine() is not None for settings in PROFILES.values())


def test_a_manifest_overrides_its_preset_and_keeps_the_rest(tmp_path: Path) -> None:
    """What is not written is the preset's."""
    settings = load_profile(
        written(
            tmp_path,
            """
preset: Sessions
ttl: 1h
staleOnError: 5s
negativeTTL: 1s
earlyRefresh: 20
l1: {maxEntries: 5, maxMemory: 10Mi, warningPercent: 50, criticalPercent: 60, eviction: SIEVE}
compression: {algorithm: Zstd, threshold: 64, dictionary: true}
coherence: {mode: PubSub, maxStaleness: 50ms}
warming: {mode: None, topKeys: 7}
l3: {enabled: true, path: /x, maxSize: 1Gi, encryptionSecretRef: {name: keys}}
""",
        ),
        secrets=Path("/secrets"),
    )

    assert settings.name == "mine"
    assert (settings.ttl_us, settings.stale_on_error_us, settings.negative_ttl_us) == (
        3_600_000_000,
        5_000_000,
        1_000_000,
    )
    assert (settings.max_entries, settings.eviction, settings.early_refresh_percent) == (5, Eviction.SIEVE, 20)
    assert (settings.compression, settings.level, settings.threshold_bytes) == (Method.ZSTD, 3, 64)
    assert (settings.mode, settings.delta_us) == (CoherenceMode.PUB_SUB, 50_000)
    assert (settings.warming, settings.top_keys) == (WarmingMode.NONE, 7)
    assert settings.disk is not None
    assert (settings.disk.path, settings.disk.max_bytes) == (Path("/x"), 1024 * MIB)
    assert settings.disk.key_folder == Path("/secrets/keys")
    assert settings.redis is None


@pytest.mark.parametrize(
    ("algorithm", "level"), [("Gzip", 6), ("Zstd", 3), ("None", 1), ("{algorithm: Gzip, level: 9}", 9)]
)
def test_a_compression_without_a_level_has_its_own_default(tmp_path: Path, algorithm: str, level: int) -> None:
    """A preset's level is for the preset's method."""
    packed = algorithm if algorithm.startswith("{") else f"{{algorithm: {algorithm}}}"
    settings = load_profile(written(tmp_path, f"preset: ApiResponses\ncompression: {packed}"))

    assert settings.level == level
    assert settings.engine().method is settings.compression


@pytest.mark.parametrize(
    ("store", "layout"),
    [
        ("{type: Redis, endpoints: ['r:1'], database: 3, keyPrefix: 'p:'}", Layout.SINGLE),
        ("{type: RedisSentinel, endpoints: ['r:1', 's:2'], masterName: main}", Layout.SENTINEL),
        ("{type: RedisCluster, endpoints: ['r:1', 's:2']}", Layout.CLUSTER),
    ],
)
def test_a_store_with_l2_enabled_is_where_the_level_in_redis_lies(tmp_path: Path, store: str, layout: Layout) -> None:
    """Each kind of Redis."""
    settings = load_profile(written(tmp_path, f"l2: {{enabled: true}}\nstore: {store}"))

    assert settings.redis is not None
    assert (settings.redis.layout, settings.redis.endpoints[0].port) == (layout, 1)


def test_login_and_certificates_come_from_mounted_secrets(tmp_path: Path) -> None:
    """Files, so that a rotated secret needs no restart; each that is missing is told."""
    profile = written(
        tmp_path,
        """
l2: {enabled: true}
store:
  type: Redis
  endpoints: ["r:1"]
  auth: {secretRef: {name: login}}
  timeouts: {connect: 300ms, command: 20ms}
  tls: {mode: Verify, caRef: {name: ca}, clientCertRef: {name: client}, serverName: redis.shop}
""",
    )
    with pytest.raises(InvalidProfile) as missing:
        load_profile(profile, secrets=tmp_path)
    for name in ("login/username", "login/password", "ca/ca.crt", "client/tls.crt", "client/tls.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    settings = load_profile(profile, secrets=tmp_path)

    assert len(missing.value.problems) == 4
    redis = settings.redis
    assert redis is not None
    assert redis.tls is not None
    assert (redis.credentials.user_file, redis.credentials.password_file) == (
        tmp_path / "login/username",
        tmp_path / "login/password",
    )
    assert (redis.tls.ca_file, redis.tls.cert_file, redis.tls.key_file) == (
        tmp_path / "ca/ca.crt",
        tmp_path / "client/tls.crt",
        tmp_path / "client/tls.key",
    )
    assert (redis.tls.server_name, redis.connect_us, redis.command_us) == ("redis.shop", 300_000, 20_000)


def test_a_store_in_memory_and_a_level_that_is_off_mean_no_redis(tmp_path: Path) -> None:
    """L2 needs both."""
    no_store = load_profile(written(tmp_path, "l2: {enabled: true}\nl3: {enabled: false}"))
    no_level = load_profile(written(tmp_path, "store: {type: Redis, endpoints: ['r:1'], tls: {mode: Disable}}"))

    assert (no_store.redis, no_level.redis, no_store.disk) == (None, None, None)


@pytest.mark.parametrize("text", ["spec: 5", HEAD + "  ttl: soon\n", "domain: x\n"])
def test_a_file_that_is_no_valid_profile_is_refused_with_its_problems(tmp_path: Path, text: str) -> None:
    """Wrong YAML, wrong values, another kind of file."""
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InvalidProfile) as caught:
        load_profile(path)

    assert len(caught.value.problems) >= 1


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    """A profile is a name or a file."""
    with pytest.raises(InvalidProfile, match="rate-limiting, auth-tokens, sessions, api-responses"):
        load_profile("session")
