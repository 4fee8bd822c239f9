"""Every state that a model can reach, nearest first, until one breaks what it promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

State = TypeVar("State", bound=Hashable)


class Explored(NamedTuple):
    """What an exploration found.

    Attributes:
        states: How many different states were reached.
        schedule: The shortest way to a state that breaks the promise; None: there is no such state.
        breach: What that state breaks.
    """

    states: int
    schedule: tuple[str, ...] | None = None
    breach: str = ""


def explore(
    initial: State,
    steps: Callable[[State], Iterable[tuple[str, State]]],
    breach: Callable[[State], str],
    most: int = 1_000_000,
) -> Explored:
    """Explore breadth first.

    Args:
        initial: Where to begin.
        steps: What may happen next: a name, and the state after it.
        breach: What a state breaks, empty for nothing; asked once of each.
        most: Give up beyond as many states: a model that grew by accident must not pass for explored.

    Raises:
        OverflowError: There are more than `most` states.
    """
    came_from: dict[State, tuple[str, State] | None] = {initial: None}
    waiting = deque([initial])
    while waiting:
        state = waiting.popleft()
        for name, after in steps(state):
            if after in came_from:
                continue
            came_from[after] = (name, state)
            broken = breach(after)
            if broken:
                return Explored(len(came_from), _schedule(came_from, after), broken)
            waiting.append(after)
        if len(came_from) > most:
            raise OverflowError(f"more than {most} states")
    return Explored(len(came_from))


def _schedule(came_from: dict[State, tuple[str, State] | None], state: State) -> tuple[str, ...]:
    names = []
    came = came_from[state]
    while came is not None:
        names.append(came[0])
        came = came_from[came[1]]
    return tuple(reversed(names))
