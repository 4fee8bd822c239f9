"""One target under atheris, started by `tests.fuzz.run`: `python -m fuzz.harness TARGET [ARGUMENT …]`.

The arguments are libFuzzer's.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ratelimit_service.wire"], enable_loader_override=False):
    from fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    # libFuzzer starts itself anew by its first argument when it merges.
    atheris.Setup([f"{sys.executable} -m {__spec__.name} {name}", *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
