"""A short load of golden requests on one pod: does it keep the objective at a stated rate?

Open loop: requests are due at even times whatever the pod does, and an answer's time counts from
when its request was due. So a pod that falls behind is slow, not asked less.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

from tidegate.actions import ShortLoad

IN_FLIGHT: Final = 64
"""At once to one pod; what is due beyond that waits, and its time runs."""


async def short_load(
    send: Callable[[int], Awaitable[bool]],
    load: ShortLoad,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[bool, str]:
    """Send; whether it went well, and what to say. Ends early once it cannot go well any more.

    Args:
        send: sends the n-th request; whether it was answered without an error.
        load: how many, how often, and what is allowed.
        clock: monotonic, seconds.
        sleep: waits so many seconds of `clock`.

    Raises:
        Exception: what `send` raised; nothing is known then.
    """
    total = max(1, round(load.rate_per_s * load.duration_s))
    allowed_failed = math.ceil(total * load.max_error_rate)
    allowed_slow = math.ceil(total * load.slow_share)
    failed = slow = sent = 0
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(number: int, due: float) -> None:
        nonlocal failed, slow
        async with room:
            fine = await send(number)
        if not fine:
            failed += 1
        elif load.latency_target_ms is not None:
            slow += (clock() - due) * 1000.0 >= load.latency_target_ms

    began = clock()
    tasks: list[asyncio.Task[None]] = []
    try:
        for number in range(total):
            due = began + number / load.rate_per_s
            await sleep(max(0.0, due - clock()))
            over = failed > allowed_failed or slow > allowed_slow
            if over or any(t.done() and t.exception() is not None for t in tasks[-IN_FLIGHT:]):
                break
            sent += 1
            tasks.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    passed = failed <= allowed_failed and slow <= allowed_slow
    parts = [f"{failed} failed ({allowed_failed} allowed)"]
    if load.latency_target_ms is not None:
        parts.append(f"{slow} not within {load.latency_target_ms} ms ({allowed_slow} allowed)")
    return passed, f"load test, {sent} of {total} requests at {load.rate_per_s} a second: " + (
        ", ".join(parts)
    )
