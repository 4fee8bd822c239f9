"""Background slices: they come again and again, survive an error, and end with `close`."""

from __future__ import annotations

import asyncio

from ratelimit_service.quota.memory.sweeper import Sweeper


def test_work_is_called_again_and_again_until_closed() -> None:
    """Each call schedules the next one; closing ends it, and may be done twice."""
    calls: list[int] = []

    async def run() -> None:
        ticks = asyncio.Semaphore(0)

        def work() -> None:
            calls.append(len(calls))
            ticks.release()

        sweeper = Sweeper(work, interval_s=0)
        sweeper.start()
        sweeper.start()
        for _ in range(3):
            await ticks.acquire()
        sweeper.close()
        sweeper.close()
        calls.append(-1)
        await asyncio.sleep(0)

    asyncio.run(run())

    assert calls[:3] == [0, 1, 2]
    assert calls[-1] == -1


def test_an_error_reaches_the_loop_and_does_not_end_the_work() -> None:
    """A slice that fails is reported by the loop, and the next one comes."""
    reported: list[type[object]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(type(context["exception"])))
        ticks = asyncio.Semaphore(0)

        def work() -> None:
            ticks.release()
            raise ArithmeticError

        sweeper = Sweeper(work, interval_s=0)
        sweeper.start()
        for _ in range(2):
            await ticks.acquire()
        sweeper.close()

    asyncio.run(run())

    assert reported[:2] == [ArithmeticError, ArithmeticError]
