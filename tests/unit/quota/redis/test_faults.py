"""What goes wrong has few names, whoever words it."""

from __future__ import annotations

import ssl

import pytest
from redis import exceptions

from ratelimit_service.quota.redis.faults import (
    LossReason,
    Redirect,
    ScriptError,
    StoreLost,
    loss_of_connection,
    loss_of_reply,
    read_redirect,
    script_error,
)


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", LossReason.OOM),
        ("READONLY You can't write against a read only replica.", "READONLY", LossReason.READONLY),
        ("LOADING Redis is loading the dataset in memory", "LOADING", LossReason.LOADING),
        ("BUSY Redis is busy running a script.", "BUSY", LossReason.BUSY),
        ("NOAUTH Authentication required.", "NOAUTH", LossReason.AUTH),
        ("NOPERM User app has no permissions to run the 'get' command", "NOPERM", LossReason.DENIED),
        ("MISCONF Errors writing to the AOF file", "MISCONF", LossReason.MISCONFIGURED),
        ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", LossReason.MISCONFIGURED),
        ("CLUSTERDOWN The cluster is down", "CLUSTERDOWN", LossReason.CLUSTER_DOWN),
        ("MASTERDOWN Link with MASTER is down", "MASTERDOWN", LossReason.CLUSTER_DOWN),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", LossReason.MOVING),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "TRYAGAIN", LossReason.MOVING),
        ("ERR Error running script (call to f_a): @user_script:1: -OOM command not allowed", "OOM", LossReason.OOM),
        ("NOSCRIPT No matching script.", "NOSCRIPT", None),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE", None),
        ("ERR unknown command 'x'", "ERR", None),
        ("no code at all", "ERR", None),
        ("", "ERR", None),
    ],
)
def test_an_error_reply_is_the_servers_or_the_calls_own(text: str, code: str, reason: LossReason | None) -> None:
    """The first word decides; before Redis 7 the one within a script's error."""
    error = script_error(text)

    assert (error.code, loss_of_reply(error)) == (code, reason)


def test_a_reply_keeps_its_words() -> None:
    """Redirections are read from them."""
    assert script_error("MOVED 3999 127.0.0.1:6381") == ScriptError("MOVED", "3999 127.0.0.1:6381")
    assert script_error("lower case") == ScriptError("ERR", "lower case")


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(3_999, "127.0.0.1", 6_381, asking=False)),
        ("ASK 1 [::1]:7", Redirect(1, "::1", 7, asking=True)),
        ("MOVED 1 :7", Redirect(1, "", 7, asking=False)),
        ("MOVED one host:7", None),
        ("MOVED 1", None),
        ("ERR 1 host:7", None),
    ],
)
def test_a_redirection_says_where_to_go(text: str, redirect: Redirect | None) -> None:
    """What cannot be read is none, and stays an error."""
    assert read_redirect(script_error(text)) == redirect


def chained(outer: Exception, inner: Exception) -> Exception:
    """An error that another one led to."""
    outer.__context__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), LossReason.TIMEOUT),
        (exceptions.TimeoutError("Timeout connecting to server"), LossReason.TIMEOUT),
        (exceptions.AuthenticationError("invalid username-password pair"), LossReason.AUTH),
        (exceptions.BusyLoadingError("Redis is loading"), LossReason.LOADING),
        (exceptions.ResponseError("DB index is out of range"), LossReason.DENIED),
        (exceptions.ConnectionError("max number of clients reached"), LossReason.FULL_OF_CLIENTS),
        (chained(exceptions.ConnectionError("x"), ssl.SSLError("bad certificate")), LossReason.TLS),
        (ssl.SSLCertVerificationError("self-signed"), LossReason.TLS),
        (ConnectionRefusedError("refused"), LossReason.DISCONNECTED),
        (exceptions.ConnectionError("closed"), LossReason.DISCONNECTED),
    ],
)
def test_a_connection_that_fails_has_a_reason(error: Exception, reason: LossReason) -> None:
    """The library's wrapping does not hide it."""
    assert loss_of_connection(error).reason is reason


def test_a_loss_shows_its_reason_first() -> None:
    """The label, then what was said."""
    assert str(StoreLost(LossReason.OOM, "full")) == "oom: full"
    assert str(StoreLost(LossReason.ABSENT)) == "absent"
