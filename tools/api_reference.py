"""The references of the library, from its docstrings: `docs/reference/python-api.md` and `python-cache-api.md`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from ratelimit_service import adapter, cache, migration, sync_adapter
from ratelimit_service.cache import prometheus
from ratelimit_service.integrations import asgi_limits, asgi_responses, django_cache

LIMITER: dict[str, ModuleType] = {
    "ratelimit_service.adapter": adapter,
    "ratelimit_service.sync_adapter": sync_adapter,
    "ratelimit_service.migration": migration,
}
CACHE: dict[str, ModuleType] = {
    "ratelimit_service.cache": cache,
    "ratelimit_service.cache.prometheus": prometheus,
    "ratelimit_service.integrations.asgi_responses": asgi_responses,
    "ratelimit_service.integrations.asgi_limits": asgi_limits,
    "ratelimit_service.integrations.django_cache": django_cache,
}
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns):$")
_FIELD = re.compile(r"^    (\w[\w, ]*): (.*)$")
_ANNOTATION = re.compile(r"(: |-> )'([^']*)'")
_NOISE = re.compile(r"ratelimit_service\.[\w.]+\.")
_ADDRESS = re.compile(r"<(?:function (\w+)|[\w. ]+) at 0x[0-9a-f]+>")


def render_api_reference() -> str:
    """The page of the limiter."""
    intro = (
        "The tutorial is [Limit calls in your program](../tutorials/limit-in-a-program.md).",
        "The cache has a page of its own: [Python API of the cache](python-cache-api.md).",
    )
    return _page("Python API of the limiter", intro, LIMITER)


def render_cache_api_reference() -> str:
    """The page of the cache, and of what brings it into frameworks."""
    intro = (
        "The tutorial is [Cache your first slow call](../tutorials/first-cache.md).",
        "The limiter has a page of its own: [Python API of the limiter](python-api.md).",
    )
    return _page("Python API of the cache", intro, CACHE)


def _page(title: str, intro: tuple[str, ...], modules: dict[str, ModuleType]) -> str:
    lines = [f"# {title}", "", "Made from the docstrings by `make generate`.", *intro]
    for name, module in modules.items():
        lines += ["", f"## `{name}`", ""]
        lines += _text((inspect.getdoc(module) or "").split("\n\n")[0])
        for public in sorted(module.__all__):
            lines += _entry(public, getattr(module, public))
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, value: object) -> Iterator[str]:
    yield ""
    if inspect.isclass(value):
        yield f"### `{name}`"
        yield ""
        yield from _signature(name, value)
        yield from _text(inspect.getdoc(value) or "")
        for method, function in _methods(value):
            yield ""
            yield f"#### `{name}.{method}`"
            yield ""
            yield from _signature(method, function)
            yield from _text(inspect.getdoc(function) or "")
    elif inspect.isfunction(value):
        yield f"### `{name}`"
        yield ""
        yield from _signature(name, value)
        yield from _text(inspect.getdoc(value) or "")
    else:
        yield f"### `{name}`"
        yield ""
        keys = f"A mapping with the keys {', '.join(f'`{key}`' for key in value)}." if isinstance(value, dict) else ""
        yield keys or f"The constant {value!r}."


def _methods(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods in the order of their definition, those of bases of ours after them."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("ratelimit_service"):
            continue
        for name, member in vars(base).items():
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not name.startswith("_") and inspect.isfunction(function) and name not in seen:
                seen.add(name)
                yield name, function


def _signature(name: str, function: object) -> Iterator[str]:
    """How it is called, without `self` and `cls`."""
    if inspect.isclass(function) and issubclass(function, Exception | tuple | dict):
        return
    signature = inspect.signature(function)  # type: ignore[arg-type]  # a class or a function
    kept = [each for each in signature.parameters.values() if each.name not in {"self", "cls"}]
    text = str(signature.replace(parameters=kept))
    text = _ANNOTATION.sub(r"\1\2", _NOISE.sub("", text))
    text = re.sub(r"<(\w+)\.(\w+): \w+>", r"\1.\2", text)
    # A default is shown by its name; where it lies in memory differs from run to run.
    text = _ADDRESS.sub(lambda found: found[1] or "…", text)
    prefix = "await " if inspect.iscoroutinefunction(function) else ""
    if inspect.isclass(function):
        text = text.removesuffix(" -> None")
    yield f"`{prefix}{name}{text}`"
    yield ""


def _text(docstring: str) -> Iterator[str]:
    """A docstring as Markdown: sections of arguments become lists, indented programs stay."""
    section = ""
    for line in docstring.splitlines():
        heading = _SECTION.match(line)
        if heading:
            section = heading.group(1)
            yield f"{section}:"
            yield ""
            continue
        field = _FIELD.match(line) if section else None
        if field:
            names = ", ".join(f"`{each.strip()}`" for each in field.group(1).split(","))
            yield f"- {names}: {field.group(2)}"
        elif section and line.startswith("        "):
            yield f"  {line.strip()}"
        elif section and line.startswith("    "):
            yield f"- {line.strip()}"
        else:
            section = section if not line else ""
            yield line


if __name__ == "__main__":
    print(render_api_reference(), end="")
