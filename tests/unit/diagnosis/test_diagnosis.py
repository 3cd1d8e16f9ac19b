"""What pods say, in one reason and one message."""

import json
from typing import Any

import pytest

from tidegate.diagnosis import (
    READY,
    Severity,
    diagnose_pod,
    diagnose_revision,
    fetch_result,
    is_loading,
)


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "uid": "p"}, "status": status}


def scheduled(message: str, reason: str = "Unschedulable") -> dict[str, Any]:
    return pod(
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        ]
    )


def container(name: str, *, init: bool = False, **status: Any) -> dict[str, Any]:
    key = "initContainerStatuses" if init else "containerStatuses"
    return pod(**{key: [{"name": name, **status}]})


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


def report(reason: str) -> str:
    return json.dumps({"reason": reason, "message": f"about {reason}"})


CASES: list[tuple[dict[str, Any], str, Severity, str]] = [
    (
        scheduled("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."),
        *("WaitingForGPU", Severity.WAITING, "no node has nvidia.com/gpu free"),
    ),
    (
        scheduled("0/2 nodes are available: 2 Insufficient nvidia.com/mig-1g.10gb."),
        *("WaitingForGPU", Severity.WAITING, "nvidia.com/mig-1g.10gb"),
    ),
    (
        scheduled("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        *("NoMatchingNode", Severity.WAITING, "runtime.gpu.products"),
    ),
    (
        scheduled('persistentvolumeclaim "models" not found'),
        *("ClaimNotFound", Severity.WAITING, '"models"'),
    ),
    (
        scheduled("0/1 nodes are available: cannot allocate all claims."),
        *("WaitingForGPU", Severity.WAITING, "no device satisfies"),
    ),
    (scheduled("", "SchedulingGated"), "WaitingForQuota", Severity.WAITING, "Kueue"),
    (
        container("fetch", init=True, state=ended(1, report("ChecksumMismatch"))),
        *("ChecksumMismatch", Severity.FAILING, "about ChecksumMismatch"),
    ),
    (
        container("fetch", init=True, state=ended(1, report("SourceUnreachable"))),
        *("SourceUnreachable", Severity.WAITING, "about SourceUnreachable"),
    ),
    (
        container("fetch", init=True, state=ended(1, report("FetchFailed"))),
        *("FetchFailed", Severity.WAITING, "about FetchFailed"),
    ),
    (
        container(
            "fetch",
            init=True,
            state={"waiting": {"reason": "CrashLoopBackOff"}},
            lastState=ended(1, report("SourceMoved")),
        ),
        *("SourceMoved", Severity.FAILING, "about SourceMoved"),
    ),
    (
        container("fetch", init=True, state=ended(137, "", "OOMKilled")),
        *("FetchFailed", Severity.FAILING, "killed for memory"),
    ),
    (
        container("fetch", init=True, state=ended(2, "Traceback: boom")),
        *("FetchFailed", Severity.FAILING, "code 2: Traceback: boom"),
    ),
    (
        container("copy-model", init=True, state=ended(1, "cp: cannot stat '/x'")),
        *("SourceNotFound", Severity.FAILING, "cannot stat"),
    ),
    (
        container(
            "triton",
            image="a/b:1",
            state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        ),
        *("ImageUnavailable", Severity.WAITING, "image a/b:1 cannot be had: no such image"),
    ),
    (
        container("triton", restartCount=3, state={}, lastState=ended(137, "", "OOMKilled")),
        *("OutOfMemory", Severity.FAILING, "runtime.resources.memory"),
    ),
    (
        container("triton", restartCount=2, state={}, lastState=ended(139, "segfault")),
        *("Crashing", Severity.FAILING, "code 139 (restarts: 2): segfault"),
    ),
    (
        container("triton", state={"running": {}}),
        *("Loading", Severity.PROGRESSING, "loads the model"),
    ),
    (
        container("fetch", init=True, state={"running": {}}),
        *("Fetching", Severity.PROGRESSING, "being fetched"),
    ),
    (pod(), "Starting", Severity.PROGRESSING, "being started"),
]


@pytest.mark.parametrize(("found", "reason", "severity", "words"), CASES)
def test_one_pod(found: dict[str, Any], reason: str, severity: Severity, words: str) -> None:
    finding = diagnose_pod(found)
    assert (finding.reason, finding.severity) == (reason, severity)
    assert words in finding.message


def test_a_missing_secret_is_told_by_events() -> None:
    event = {
        "type": "Warning",
        "reason": "FailedMount",
        "involvedObject": {"uid": "p"},
        "message": 'MountVolume.SetUp failed for volume "credentials" : secret "s3" not found',
    }
    finding = diagnose_pod(pod(), [event])
    assert (finding.reason, finding.severity) == ("SecretNotFound", Severity.WAITING)
    assert '"s3" not found. Create it' in finding.message
    elsewhere = {**event, "involvedObject": {"uid": "q"}}
    assert diagnose_pod(pod(), [elsewhere]).reason == "Starting"


def test_tritons_reason_speaks_before_loading() -> None:
    found = container("triton", state={"running": {}})
    assert diagnose_pod(found, model="m version 1: no").reason == "ModelNotLoaded"


def deployment(message: str = "") -> dict[str, Any]:
    conditions = []
    if message:
        conditions = [{"type": "ReplicaFailure", "status": "True", "message": message}]
    return {"metadata": {"name": "d"}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "p" is forbidden: exceeded quota: gpus', "QuotaExceeded"),
        ('pods "p" is forbidden: violates PodSecurity "restricted:latest"', "PodRefused"),
        ("", "Creating"),
    ],
)
def test_pods_that_are_not_made(message: str, reason: str) -> None:
    assert diagnose_revision(deployment(message), [], 1).reason == reason


def test_the_worst_pod_speaks_and_enough_ready_ones_are_enough() -> None:
    good = pod(conditions=[{"type": "Ready", "status": "True"}])
    bad = container("fetch", init=True, state=ended(1, report("ArtifactEmpty")))
    slow = container("triton", state={"running": {}})
    assert diagnose_revision(deployment(), [good, slow, bad], 3).reason == "ArtifactEmpty"
    assert diagnose_revision(deployment(), [good, bad], 1) is READY
    assert diagnose_revision(None, [], 1).severity is Severity.PROGRESSING


def test_a_fetch_counts_only_with_a_digest() -> None:
    good = json.dumps({"digest": "sha256:a", "seconds": 2, "cached": True})
    found = fetch_result(container("fetch", init=True, state=ended(0, good)))
    assert found is not None
    assert (found.digest, found.seconds, found.cached) == ("sha256:a", 2.0, True)
    for text in ("", "not json", "[]", '{"digest": 3}'):
        assert fetch_result(container("fetch", init=True, state=ended(0, text))) is None
    assert fetch_result(container("fetch", init=True, state=ended(1, good))) is None


def test_only_a_running_triton_that_is_not_ready_is_asked() -> None:
    loading = container("triton", state={"running": {}})
    assert not is_loading(loading), "it has no address"
    loading["status"]["podIP"] = "10.0.0.1"
    assert is_loading(loading)
    loading["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert not is_loading(loading)
