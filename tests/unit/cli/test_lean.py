"""A service carries no library along that it does not use."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from ratelimit_service import __version__


def run(script: str) -> str:
    """What a new interpreter prints: modules are imported once in a process."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_serving_imports_no_drawing_library() -> None:
    """Neither directly nor by structlog, which takes one wherever it is installed."""
    script = (
        "import sys, click\n"
        "from ratelimit_service.cli.main import main\n"
        "main.get_command(click.Context(main), 'serve')\n"
        "print('structlog' in sys.modules, sorted({'rich', 'colorama', 'pygments'} & set(sys.modules)))"
    )
    assert run(script) == "True []"


@pytest.mark.parametrize("first", ["", "import rich; "])
def test_what_was_hidden_can_be_imported_afterwards(first: str) -> None:
    """A program that uses the package may draw, before and after."""
    use = "from ratelimit_service.cli import lean; lean.import_structlog(); import rich, structlog"
    assert run(f"{first}{use}; print(rich.__name__)") == "rich"


def test_the_process_that_serves_asks_for_nothing_that_is_installed() -> None:
    """Neither for its version nor for commands of other packages: it brings archives and mail along."""
    script = (
        "import sys, click\n"
        "from ratelimit_service.cli.main import main\n"
        "main.get_command(click.Context(main), 'serve')\n"
        "import ratelimit_service.transport.native\n"
        "print(sorted({'importlib.metadata', 'zipfile', 'email.parser'} & set(sys.modules)))"
    )
    assert run(script) == "[]"


def test_the_version_is_that_of_the_distribution() -> None:
    """It is said twice."""
    assert __version__ == metadata.version("tidegate")


def test_the_process_that_serves_does_without_the_compiler() -> None:
    """YAML, the schema and the compiler are in the process that reads policies, and nowhere else."""
    said = run(
        "import sys; import ratelimit_service.cli.serve, ratelimit_service.transport.native;"
        "print(sorted(name for name in sys.modules if name.startswith(("
        "'yaml', 'ratelimit_service.policy.compile', 'ratelimit_service.policy.decode', "
        "'ratelimit_service.policy.documents', 'ratelimit_service.policy.schema'))))"
    )

    assert said == "[]"
