"""The simulated pod beside a real Triton and its sidecar: the same requests at the same times.

A model that sleeps for alpha + beta n ms, asked as a Poisson process at several rates, the last of
them more than it can do. The simulation is given what a user has: the service time as Triton's own
statistics tell it, and when each request left. Ratios are printed; asserted is only what a busy
machine cannot spoil.
"""

import asyncio
import json
import random
import time
import urllib.request
from collections.abc import Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from e2e.bench.report import quantile
from e2e.load import HttpTarget
from e2e.models.sleeper.build import MODEL, Times, build
from e2e.native.processes import pod
from tidegate.simulation.pod import Pod, Server

# Latencies beside those of a machine that has nothing else to do.
pytestmark = [pytest.mark.integration, pytest.mark.alone]

TIMES = Times(alpha_ms=20.0, beta_ms=5.0)
"""Full batches of 8 take 60 ms: 133 requests a second at most."""
RATES_HZ = (30.0, 60.0, 90.0, 200.0)
SECONDS = 4.0
MAX_PENDING = 40
"""Requests in the pod; more are refused by the sidecar."""
SEED = 7


class Sent(NamedTuple):
    """A request: when it left, how long it took, whether it was answered well. Seconds."""

    at_s: float
    took_s: float
    good: bool


async def poisson(target: HttpTarget, rate_hz: float, seed: int) -> list[Sent]:
    """Ask at random times for `SECONDS`."""
    chance = random.Random(seed)
    gaps = iter(lambda: chance.expovariate(rate_hz), None)
    due = takewhile(lambda t: t < SECONDS, accumulate(gaps))
    found: list[Sent] = []
    began = time.perf_counter()

    async def one() -> None:
        left = time.perf_counter()
        reply = await target.ask()
        found.append(Sent(left - began, time.perf_counter() - left, not reply.error))

    async with asyncio.TaskGroup() as group:
        for at_s in due:
            await asyncio.sleep(max(0.0, at_s - (time.perf_counter() - began)))
            group.create_task(one())
    return sorted(found)


def batch_ms(address: str) -> dict[int, tuple[int, float]]:
    """By batch size, executions and their time in all, by Triton's own statistics."""
    with urllib.request.urlopen(f"http://{address}/v2/models/{MODEL}/stats") as reply:
        (model,) = json.load(reply)["model_stats"]
    phases = ("compute_input", "compute_infer", "compute_output")
    return {
        int(batch["batch_size"]): (
            int(batch["compute_infer"]["count"]),
            sum(int(batch[phase]["ns"]) for phase in phases) / 1e6,
        )
        for batch in model["batch_stats"]
    }


def fitted(batches: dict[int, tuple[int, float]]) -> tuple[float, float]:
    """Alpha and beta in ms: weighted least squares over the means."""
    weight = sum(count for count, _ in batches.values())
    size = sum(n * count for n, (count, _) in batches.items()) / weight
    time_ms = sum(ms for _, ms in batches.values()) / weight
    above = sum((n - size) * (ms - time_ms * count) for n, (count, ms) in batches.items())
    beta = above / sum(count * (n - size) ** 2 for n, (count, _) in batches.items())
    return time_ms - beta * size, beta


def simulated(server: Server, sent: Sequence[Sent]) -> list[Sent]:
    """The same requests at a simulated pod."""
    simulated_pod = Pod("pod", server, (1.0,), SEED, 0.0, 0.0)
    simulated_pod.ended = []
    simulated_pod.queue.extend(each.at_s for each in sent)
    simulated_pod.advance(SECONDS + 60.0)
    return sorted(
        Sent(came, ended.at_s - came, ended.served)
        for ended in simulated_pod.ended
        for came in ended.came
    )


def throughput(requests: Sequence[Sent]) -> float:
    """Answered well, a second."""
    good = [each for each in requests if each.good]
    return len(good) / max(each.at_s + each.took_s for each in good)


async def test_latency_and_throughput_as_simulated(tmp_path: Path) -> None:
    repository = build(tmp_path / "models", TIMES)
    measured: dict[float, list[Sent]] = {}
    with pod(repository, latency_target_ms=200, max_pending=MAX_PENDING) as running:
        async with HttpTarget(f"127.0.0.1:{running.ports.serving}", MODEL, b"x") as target:
            await asyncio.gather(*(target.ask() for _ in range(20)))
            for i, rate_hz in enumerate(RATES_HZ):
                measured[rate_hz] = await poisson(target, rate_hz, SEED + i)
        batches = batch_ms(f"127.0.0.1:{running.ports.triton_http}")
    alpha_ms, beta_ms = fitted(batches)
    server = Server(
        alpha_ms / 1000,
        beta_ms / 1000,
        max_batch=TIMES.batch,
        queue=MAX_PENDING - TIMES.batch,
        target_s=0.2,
    )
    print(f"\nservice time by Triton's statistics: {alpha_ms:.2f} + {beta_ms:.3f} n ms")
    for rate_hz, sent in measured.items():
        played = simulated(server, sent)
        said = []
        took: dict[float, list[float]] = {}
        for q in (0.5, 0.99):
            took[q] = [
                1000 * quantile([each.took_s for each in side if each.good], q)
                for side in (sent, played)
            ]
            real_ms, played_ms = took[q]
            said.append(
                f"p{100 * q:g} {real_ms:.1f} / {played_ms:.1f} ms = {real_ms / played_ms:.2f}"
            )
        per_s = throughput(sent), throughput(played)
        refused = [sum(not each.good for each in side) / len(side) for side in (sent, played)]
        print(
            f"{rate_hz:g}/s, measured / simulated: {', '.join(said)}; answered {per_s[0]:.1f} / "
            f"{per_s[1]:.1f} a second = {per_s[0] / per_s[1]:.2f}; refused {refused[0]:.1%} / "
            f"{refused[1]:.1%}"
        )
        # A real pod is hardly ever quicker than one that does nothing but wait and sleep.
        assert took[0.5][0] > 0.5 * took[0.5][1]
        assert took[0.99][0] > 0.4 * took[0.99][1]
        # And, a busy machine granted, not of another kind.
        assert took[0.5][0] < 5.0 * took[0.5][1]
        assert 0.5 < per_s[0] / per_s[1] < 1.3
    assert any(not each.good for each in measured[RATES_HZ[-1]])
