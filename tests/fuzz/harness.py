"""One target under atheris, started by `tests.fuzz.run`: `python -m fuzz.harness TARGET [ARGUMENT …]`.

The arguments are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris

FUZZED = (
    "ratelimit_service.wire",
    "ratelimit_service.cache.envelope",
    "ratelimit_service.cache.compression",
    "ratelimit_service.cache.serialisers",
    "ratelimit_service.cache.l3.record",
)

with atheris.instrument_imports(include=list(FUZZED), enable_loader_override=False):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    # libFuzzer starts itself anew by its first argument when it merges.
    atheris.Setup([f"{sys.executable} -m {__spec__.name} {name}", *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
