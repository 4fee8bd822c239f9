"""Start everything, play the scenes, say whether each went as it should, and end."""

from __future__ import annotations

import http.client
import sys
import time
import urllib.request
from typing import Final

from examples.demo.scenes import SCENES, Scene
from examples.demo.screen import Screen, Shown, screen
from examples.demo.stage import DemoError, Stage, stage

_PREFIX: Final = "x-ratelimit-"
_WARM_UP_S: Final = 5.0


def main() -> int:
    """Run the demo; 0 when every request was answered as the policies say."""
    print("starting Tidegate, an upstream and Envoy on loopback …", flush=True)
    try:
        with stage() as played, screen() as shown:
            _warm_up(played)
            surprises = [scene for scene in SCENES if _play(scene, played, shown) != scene.expected]
            counted = _decisions(played)
    except DemoError as error:
        print(f"the demo could not start: {error}", file=sys.stderr)
        return 1
    print("\nwhat the service counted (/metrics):")
    print(counted)
    for scene in surprises:
        print(f"not as expected: {scene.title}: expected {scene.expected}", file=sys.stderr)
    print("done: limits held" if not surprises else "done: limits did not hold as expected")
    return 1 if surprises else 0


def _play(scene: Scene, played: Stage, shown: Screen) -> tuple[int, ...]:
    shown.title(scene.title)
    statuses = []
    for _ in range(scene.count):
        answer = _ask(scene, played.envoy_port)
        shown.request(answer)
        statuses.append(answer.status)
        time.sleep(scene.pause_s)
    return tuple(statuses)


def _ask(scene: Scene, port: int) -> Shown:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", scene.path, headers=dict(scene.headers))
        response = connection.getresponse()
        response.read()
    finally:
        connection.close()
    limits = {
        name.lower().removeprefix(_PREFIX): value
        for name, value in response.getheaders()
        if name.lower().startswith(_PREFIX)
    }
    sent = " ".join(f"{name}={value}" for name, value in scene.headers.items())
    return Shown(f"GET {scene.path} {sent}".rstrip(), response.status, limits)


def _warm_up(played: Stage) -> None:
    """Let Envoy connect to the service: /internal/ is denied as soon as it asks."""
    closed = Scene("", "/internal/", {}, count=1, expected=(429,))
    deadline = time.monotonic() + _WARM_UP_S
    while _ask(closed, played.envoy_port).status != 429:
        if time.monotonic() > deadline:
            raise DemoError("Envoy does not reach the service")
        time.sleep(0.05)


def _decisions(played: Stage) -> str:
    with urllib.request.urlopen(f"http://{played.admin}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return "\n".join(f"  {line}" for line in lines if line.startswith("tidegate_decisions_total{"))


if __name__ == "__main__":
    sys.exit(main())
