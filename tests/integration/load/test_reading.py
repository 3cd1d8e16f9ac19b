"""What the operator makes of a real Triton's load, behind the sidecar and without it.

The load is more than the pod can take, the case in which completions lie: the sidecar refuses what
is too much, and without it Triton's queue grows.
"""

import asyncio
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.load import HttpTarget, Request, open_loop
from e2e.native.processes import Pod, pod
from tidegate.actions import Load
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import parse
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand, Source
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW
from tidegate.resources.pod import ENVOY
from tidegate.runtime import load_source
from tidegate.runtime.cache import Key
from tidegate.runtime.load import LoadReader
from tidegate.runtime.load_source import LoadPages, LoadPod
from tidegate.runtime.queue import KeyedQueue

# A rate within 5 %, a service time within 10 %.
pytestmark = [pytest.mark.integration, pytest.mark.alone]

MODELS = Path(__file__).parent / "models"
KEY = Key("models", "paced")
TARGET_MS = 500
LARGEST = 8
OVERLOAD_HZ = 165.0
"""A pod holds some 130: batches of 8 in 20 + 5 * 8 ms."""
COURSE = ((3.0, 15.0), (13.0, 110.0), (1.0, OVERLOAD_HZ), (22.0, OVERLOAD_HZ))
"""Up slowly, so that batches of every size are seen; then too much, for longer than the window."""
WINDOW_S = 20.0
ENOUGH = 10
QUICK = replace(LAW, long_s=WINDOW_S, least_s=WINDOW_S)
SPEC = parse(
    {
        "model": {"source": {"uri": "s3://models/paced/1"}},
        "slo": {"latency": {"quantile": "0.99", "target": f"{TARGET_MS}ms"}},
    }
)


class Here(LoadPages):
    """Reads one native pod."""

    def __init__(self, running: Pod) -> None:
        super().__init__()
        self._address = f"127.0.0.1:{running.ports.internal}"

    async def look(self, pod: LoadPod, model: str, at_s: Callable[[], float]) -> Look:
        return await super().look(self._here(pod), model, at_s)

    async def config(self, pod: LoadPod, model: str) -> Mapping[str, Any]:
        return await super().config(self._here(pod), model)

    def _here(self, pod: LoadPod) -> LoadPod:
        return pod._replace(at=pod.at._replace(address=self._address))


def the_pod(*, sidecar: bool) -> dict[str, Any]:
    return {
        "metadata": {"uid": "uid", "name": "pod", "labels": {REVISION_LABEL: "r1"}},
        "spec": {"initContainers": [{"name": ENVOY}] if sidecar else []},
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


async def tritons_ms(source: Here) -> dict[int, float]:
    """By batch size, what Triton itself says of all batches in the mean: the way there and back.

    Of sizes that were seen `ENOUGH` times.
    """
    [at] = load_source.load_pods([the_pod(sidecar=True)])
    look = await source.look(at, "paced", time.time)
    assert look.triton is not None
    return {
        batch.size: batch.busy_ms / batch.count
        for batch in look.triton.batches
        if batch.count >= ENOUGH
    }


def really_took_ms(requests: list[Request]) -> dict[int, float]:
    """By batch size, what the model itself says it took, in the mean of all batches of that size.

    Answers of one batch say the same, so each batch is counted once.
    """
    batches = {(r.answer["items"], r.answer["took_ms"]) for r in requests if r.answer}
    by_size = defaultdict(list)
    for items, took_ms in batches:
        by_size[items].append(took_ms)
    return {items: sum(took) / len(took) for items, took in sorted(by_size.items())}


@pytest.mark.parametrize("sidecar", [True, False], ids=["sidecar", "triton alone"])
async def test_arrivals_and_service_time_under_overload(
    sidecar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pod(MODELS, latency_target_ms=TARGET_MS, max_pending=64) as running:
        monkeypatch.setattr(load_source, "TRITON_HTTP_PORT", running.ports.triton_http)
        monkeypatch.setattr(load_source, "TRITON_METRICS_PORT", running.ports.triton_metrics)
        source = Here(running)
        reader = LoadReader(
            KeyedQueue(),
            source,
            watchers=functools.partial(_observer, Capacities()),
            refill=lambda: None,
            draw=lambda: 0.0,
        )
        reader.want(KEY, Load(SPEC, "paced", {"r1": SPEC}), [the_pod(sidecar=sidecar)])
        port = running.ports.serving if sidecar else running.ports.triton_http
        async with HttpTarget(f"127.0.0.1:{port}", "paced", b"x") as target:
            began_s = time.time()
            sending = asyncio.create_task(open_loop(target.ask, course=COURSE, in_flight=5000))
            end_s = began_s + sum(seconds for seconds, _ in COURSE)
            demand: Demand | None = None
            in_flight: Mapping[str, int] = {}
            while time.time() < end_s:
                demand = reader.demands(KEY).get("r1", demand)
                in_flight = reader.in_flight(KEY)
                await asyncio.sleep(0.2)
            requests = await sending
        triton_ms = await tritons_ms(source)
        attained = reader.attained(KEY)
        await reader.stop()
    assert demand is not None
    window = (demand.at_s - WINDOW_S - began_s, demand.at_s - began_s)
    sent_per_s = sum(window[0] < r.at_s <= window[1] for r in requests) / WINDOW_S
    ended_per_s = sum(bool(r.answer) and window[0] < r.end_s <= window[1] for r in requests)
    arrivals_error = demand.long_per_s / sent_per_s - 1
    took_ms = really_took_ms(requests)
    assert demand.service is not None
    errors = {n: demand.service.of(n) / ms - 1 for n, ms in triton_ms.items()}
    errors_asleep = {n: demand.service.of(n) / ms - 1 for n, ms in took_ms.items()}
    print(
        f"\n{demand.source}: arrivals {demand.long_per_s:.2f}/s, really {sent_per_s:.2f}/s "
        f"({arrivals_error:+.2%}), answered {ended_per_s / WINDOW_S:.1f}/s; s(n) = "
        f"{demand.service.alpha_ms:.2f} + {demand.service.beta_ms:.3f} n ms, errors against "
        f"Triton's means {_percent(errors)}, against the model's own {_percent(errors_asleep)}; "
        f"in flight {in_flight['uid']}"
    )
    assert demand.source is (Source.SIDECAR if sidecar else Source.FLOW_BALANCE)
    assert abs(arrivals_error) < 0.05
    # Completions would lie: the pod cannot do so much.
    assert ended_per_s / WINDOW_S < 0.9 * sent_per_s
    # The model's own time lacks what Triton needs to reach it: some tenths of a millisecond, more
    # where both wait for a processor.
    assert len(took_ms) >= 4
    assert abs(errors[LARGEST]) < 0.1
    assert abs(errors_asleep[LARGEST]) < 0.3
    assert in_flight["uid"] >= LARGEST
    if sidecar:
        assert attained is not None
        assert attained.shed > 0
        assert attained.errors_met is False
    else:
        assert attained is None or attained.answered == 0


def _percent(errors: Mapping[int, float]) -> str:
    return ", ".join(f"n={n} {error:+.2%}" for n, error in sorted(errors.items()))


def _observer(capacities: Capacities, model: Any, _: Any) -> Observer:
    assert model.max_batch == LARGEST or model.max_batch == 1  # before Triton was asked
    return Observer(model, capacities, QUICK)
