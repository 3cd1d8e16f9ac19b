"""Each faulty version does, in a real Triton behind the real sidecar, what its name says."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from e2e.models.faulty.build import SERVED_BY, build
from e2e.models.faulty.fault import EXIT, RAISE, Fault
from e2e.models.faulty.versions import LONG_MS, NAMES, SERVICE_MS, version
from e2e.models.magika import build as magika
from e2e.native.processes import Pod, pod

pytestmark = pytest.mark.integration

TEXT = "import os\n\n\ndef main() -> None:\n    print(os.getcwd())\n" * 4
CLIENT = httpx.Client(trust_env=False, timeout=30.0)
LOADED = tuple(name for name in NAMES if not version(name).load)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return magika.build(tmp_path_factory.mktemp("good"))["v3"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, good: Path) -> Iterator[Pod]:
    """All versions that can be loaded, as models of one server, each by its name."""
    folder = tmp_path_factory.mktemp("versions")
    # So small that the test need not fill its memory, or wait for the 200th request.
    special = {"leaks": Fault(says="leaks", leak_mib=2), "hangs": Fault(says="hangs", hang_after=5)}
    for name in LOADED:
        built = build(folder / "built", special.get(name) or version(name), good)
        shutil.move(built / magika.MODEL, folder / "models" / name)
    # One of them hangs in the end: nothing to wait for.
    with pod(folder / "models", exit_timeout_s=1) as started:
        yield started


@dataclass(frozen=True)
class Reply:
    """One answer over HTTP."""

    status: int
    text: str
    took_ms: float
    outputs: dict[str, Any]


def ask(running: Pod, name: str, timeout_s: float = 30.0) -> Reply:
    tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [TEXT]}
    url = f"{running.serving}/v2/models/{name}/infer"
    reply = CLIENT.post(url, json={"inputs": [tensor]}, timeout=timeout_s)
    outputs = {}
    if reply.status_code == 200:
        outputs = {o["name"]: o["data"][0] for o in reply.json()["outputs"]}
    return Reply(reply.status_code, reply.text, reply.elapsed.total_seconds() * 1000, outputs)


def ask_many(running: Pod, name: str, count: int, at_once: int = 8) -> list[Reply]:
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(lambda _: ask(running, name), range(count)))


@pytest.mark.parametrize(
    "name", ["plain", "same", "background", "nearly-slow", "10-percent-slower", "leaks"]
)
def test_answers_as_the_model_does_and_says_who_it_is(running: Pod, name: str) -> None:
    reply = ask(running, name)
    assert reply.status == 200
    assert (reply.outputs["label"], reply.outputs[SERVED_BY]) == ("python", name)


@pytest.mark.parametrize("name", ["fails-all", "fails-20", "fails-5", "fails-2", "background"])
def test_fails_the_drawn_share_with_its_name(running: Pod, name: str) -> None:
    fault, count = version(name), 120
    asked = succeeded_and_failed(running, name)
    replies = ask_many(running, name, count)
    # Which connection gets which number is open, their count is not.
    expected = sum(fault.fails(n) for n in range(asked, asked + count))
    failed = [r for r in replies if r.status != 200]
    assert len(failed) == expected
    assert {r.status for r in failed} <= {500}
    assert all(f"{name}: request" in r.text for r in failed)


def succeeded_and_failed(running: Pod, name: str) -> int:
    """Requests that Triton itself has seen of a model."""
    stats = CLIENT.get(f"{running.internal}/v2/models/{name}/stats").json()
    [found] = stats["model_stats"]
    counts = found["inference_stats"]
    return int(counts["success"]["count"]) + int(counts["fail"]["count"])


def test_triton_counts_an_error_response_as_success_but_not_an_exception(running: Pod) -> None:
    assert {r.status for r in ask_many(running, "error-responses", 5)} == {500}
    ask(running, "fails-all")
    lines = CLIENT.get(f"{running.internal}/metrics").text.splitlines()

    def count(metric: str, name: str) -> float:
        found = (x for x in lines if x.startswith(f"{metric}{{") and f'model="{name}"' in x)
        return sum(float(x.rsplit(" ", 1)[1]) for x in found)

    assert count("nv_inference_request_success", "error-responses") >= 5
    assert count("nv_inference_request_failure", "error-responses") == 0
    assert count("nv_inference_request_failure", "fails-all") >= 1


def test_triton_refuses_what_the_other_input_makes_wrong(running: Pod) -> None:
    reply = ask(running, "refuses-all")
    assert reply.status == 400
    assert "content" in reply.text
    content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
    content.set_data_from_numpy(np.array([[TEXT.encode()]], dtype=object))
    with (
        tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client,
        pytest.raises(InferenceServerException) as refused,
    ):
        client.infer("refuses-all", [content])
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("name", "least_ms"),
    [
        ("plain", SERVICE_MS),
        ("1.3x-slower", 1.3 * SERVICE_MS),
        ("2x-slower", 2 * SERVICE_MS),
        ("long", LONG_MS),
    ],
)
def test_takes_as_long_as_it_says(running: Pod, name: str, least_ms: float) -> None:
    # Never less; how much more is the machine's.
    assert min(r.took_ms for r in ask_many(running, name, 10)) >= least_ms


def test_the_first_50_and_the_tail_are_slow(running: Pod) -> None:
    first = ask_many(running, "slow-first-50", 50)
    assert min(r.took_ms for r in first) >= version("slow-first-50").slow_ms
    assert min(r.took_ms for r in ask_many(running, "slow-first-50", 5)) < 900
    tail = version("slow-tail")
    expected = sum(tail.takes_s(n) > 0.1 for n in range(60))
    took = [r.took_ms for r in ask_many(running, "slow-tail", 60)]
    assert sum(ms >= tail.slow_ms for ms in took) >= expected > 0


def test_waiting_requests_do_not_hold_up_one_another(running: Pod) -> None:
    began = CLIENT.get(f"{running.internal}/v2/models/long/stats")
    assert began.status_code == 200
    replies = ask_many(running, "long", 16, at_once=16)
    assert {r.status for r in replies} == {200}
    # One after the other the last would have waited for 15 others.
    assert max(r.took_ms for r in replies) < 8 * LONG_MS


def test_is_good_until_eight_are_under_way(running: Pod) -> None:
    assert {r.status for r in ask_many(running, "good-until-8", 12, at_once=6)} == {200}
    replies = ask_many(running, "good-until-8", 24, at_once=24)
    failed = [r for r in replies if r.status != 200]
    assert 0 < len(failed) < 24
    assert all("8 requests are under way" in r.text for r in failed)


def test_the_wrong_one_answers_another_label(running: Pod) -> None:
    reply = ask(running, "wrong")
    assert reply.status == 200
    assert reply.outputs["label"] not in ("python", "txt", "unknown")


def test_hangs_after_so_many(running: Pod) -> None:
    assert [ask(running, "hangs").status for _ in range(5)] == [200] * 5
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            ask(running, "hangs", timeout_s=0.5)
    # Triton itself knows nothing of it.
    ready = CLIENT.get(f"{running.internal}/v2/health/ready")
    assert ready.status_code == 200


@pytest.mark.parametrize(
    ("load", "words"), [(RAISE, "the weights do not fit"), (EXIT, "Stub process")]
)
def test_is_not_loaded(tmp_path: Path, good: Path, load: str, words: str) -> None:
    repository = build(tmp_path / "repository", Fault(says="bad", load=load), good)
    with pod(repository, ready=False) as started:
        index = CLIENT.post(f"{started.internal}/v2/repository/index").json()
        [model] = index
        assert model["state"] == "UNAVAILABLE"
        assert words in model["reason"]
