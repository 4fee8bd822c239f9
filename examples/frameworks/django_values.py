"""Django's cache on a profile of this project: `python examples/frameworks/django_values.py`."""

from __future__ import annotations

from django.conf import settings
from django.core.cache import cache

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "ratelimit_service.integrations.django_cache.TidegateCache",
            # A profile that ships, or the path of a CacheProfile that has Redis and a disk.
            "LOCATION": "sessions",
            "TIMEOUT": 600,
        }
    }
)


def load_basket() -> dict[str, int]:
    """What takes long."""
    print("loading")
    return {"apples": 3}


def main() -> None:
    """Use it as any Django cache, and see how it is."""
    for _ in range(2):
        print(cache.get_or_set("basket:42", load_basket))
    print("added:", cache.add("lock", 1), cache.add("lock", 1))
    print(cache.service.health().status.value)
    cache.clear()
    print(cache.get("basket:42"))


if __name__ == "__main__":
    main()
