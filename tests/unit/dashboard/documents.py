"""ModelDeployments and pods as the API server has them."""

from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]
STABLE = "3mhje2qa4x"
CANARY = "b7kd02nnq1"


def ago(seconds: float) -> str:
    """RFC 3339, so many seconds ago."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str, reason: str, message: str = "") -> Document:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(95),
        "observedGeneration": 3,
    }


def revision(hash_: str, version: str, pods: int = 2, **more: Any) -> Document:
    return {
        "name": f"magika-{hash_}",
        "hash": hash_,
        "source": f"s3://models/magika/{version}",
        "image": "nvidia/tritonserver:24.10-py3",
        "replicas": pods,
        "readyReplicas": pods,
        "state": "Ready",
        "created": ago(4000),
        **more,
    }


def ready(name: str = "magika", namespace: str = "team-a") -> Document:
    """All of the traffic on stable."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "generation": 3,
            "creationTimestamp": ago(500_000),
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        },
        "spec": {
            "model": {"source": {"uri": "s3://models/magika/v3"}},
            "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 2,
            "readyReplicas": 2,
            "conditions": [
                condition("Available", "True", "Serving"),
                condition("Ready", "True", "Live"),
                condition("Reconciling", "False", "Live"),
                condition("Stalled", "False", "Live"),
            ],
            "revisions": {"stable": revision(STABLE, "v2"), "failed": []},
            "traffic": [{"revision": STABLE, "weight": 100, "observedShare": "100%"}],
            "rollout": {"phase": "Promoted", "since": ago(90_000), "started": ago(90_600)},
            "scaling": {"desired": 2, "reason": "Fixed: spec.replicas is 2"},
            "url": f"http://{name}.{namespace}.svc:8000",
            "history": [
                {
                    "revision": STABLE,
                    "outcome": "Promoted",
                    "reason": "keeps the objective: 4 of 4,010 requests failed (0.1%), limit 1%",
                    "time": ago(90_000),
                }
            ],
        },
    }


def test_status(test: str, counts: str, observed: str, **more: Any) -> Document:
    return {
        "test": test,
        "observed": observed,
        "bound": "1%",
        "canary": counts,
        "evidence": "2.1",
        "needed": "2000",
        "verdict": "Clear",
        **more,
    }


test_status.__test__ = False  # type: ignore[attr-defined]


def rolling(
    name: str = "magika", namespace: str = "team-a", weight: int = 5, requests: int = 640
) -> Document:
    """A canary on trial, in its second step."""
    found = ready(name, namespace)
    status = found["status"]
    status["replicas"], status["readyReplicas"] = 3, 3
    status["conditions"] = [
        condition("Available", "True", "Serving"),
        condition("Ready", "False", "InRollout"),
        condition("Reconciling", "True", "InRollout"),
        condition("Stalled", "False", "InRollout"),
    ]
    status["revisions"]["canary"] = revision(CANARY, "v3", 1, created=ago(140))
    status["traffic"] = [
        {"revision": STABLE, "weight": 100 - weight, "observedShare": f"{100 - weight - 0.2}%"},
        {"revision": CANARY, "weight": weight, "observedShare": f"{weight + 0.2}%"},
    ]
    status["rollout"] = {
        "phase": "Canary",
        "weight": f"{weight}%",
        "step": 1,
        "steps": 4,
        "started": ago(131),
        "since": ago(48),
        "nextDecision": "when 740 more requests are seen",
        "message": "the evidence does not carry the next step yet",
        "evidence": {
            "verdict": "NotYet",
            "requests": requests,
            "requestsNeeded": 740,
            "secondsNeeded": 72,
            "time": ago(4),
            "tests": [
                test_status("errors", f"2/{requests}", "0.31%", evidence="3.4"),
                test_status(
                    "errorsAgainstStable",
                    f"2/{requests}",
                    "0.31%",
                    stable="14/12160",
                    evidence="1.8",
                    bound="0.5%",
                ),
                test_status("latency", f"4/{requests}", "0.63%", evidence="6.2"),
                test_status(
                    "latencyAgainstStable",
                    f"31/{requests}",
                    "4.8%",
                    stable="480/12160",
                    evidence="9.7",
                    bound="50ms",
                ),
                test_status("clientErrors", f"1/{requests}", "0.16%", stable="16/12160"),
            ],
        },
    }
    return found


def rolled_back(name: str = "magika", namespace: str = "team-a") -> Document:
    """The canary failed, and stable has the traffic."""
    found = ready(name, namespace)
    status = found["status"]
    message = "15 of 200 requests failed (7.5%), the limit is 1%"
    status["conditions"] = [
        condition("Available", "True", "Serving"),
        condition("Ready", "False", "RolledBack", message),
        condition("Reconciling", "False", "RolledBack"),
        condition("Stalled", "True", "RolledBack", message),
    ]
    status["revisions"]["failed"] = [
        {
            "hash": CANARY,
            "reason": "ErrorRateExceeded",
            "message": message,
            "time": ago(65),
            "evidence": "errors: 15/200 (7.5%) against 1%; e-value 4.01e+03, needed 2e+03",
        }
    ]
    status["rollout"] = {
        "phase": "RolledBack",
        "since": ago(65),
        "started": ago(131),
        "message": message,
    }
    status["history"].insert(
        0, {"revision": CANARY, "outcome": "RolledBack", "reason": message, "time": ago(65)}
    )
    return found


def pod(name: str, hash_: str, deployment: str = "magika", **more: Any) -> Document:
    """A pod that is ready, or (`starting=True`) fetches its model."""
    starting = more.pop("starting", False)
    age_s = more.pop("age_s", 900)
    status: Document = {
        "phase": "Pending" if starting else "Running",
        "podIP": more.pop("ip", ""),
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(age_s - 1)},
            {
                "type": "Ready",
                "status": "False" if starting else "True",
                "lastTransitionTime": ago(age_s - 31),
            },
        ],
        "initContainerStatuses": [
            {
                "name": "fetch",
                "restartCount": 0,
                "state": {"running": {"startedAt": ago(age_s - 5)}}
                if starting
                else {
                    "terminated": {
                        "exitCode": 0,
                        "startedAt": ago(age_s - 5),
                        "finishedAt": ago(age_s - 17),
                    }
                },
            }
        ],
        "containerStatuses": []
        if starting
        else [
            {
                "name": "triton",
                "restartCount": 0,
                "state": {"running": {"startedAt": ago(age_s - 18)}},
            }
        ],
    }
    return {
        "metadata": {
            "name": name,
            "namespace": more.pop("namespace", "team-a"),
            "uid": f"uid-{name}",
            "creationTimestamp": ago(age_s),
            "labels": {
                "tidegate.dev/deployment": deployment,
                "tidegate.dev/revision": hash_,
                "tidegate.dev/serving": "true",
            },
        },
        "spec": {"nodeName": "gpu-node-1", **more},
        "status": status,
    }


def event(reason: str, message: str, seconds: float, deployment: str = "magika") -> Document:
    return {
        "metadata": {"name": f"{deployment}.{reason}{seconds:.0f}", "namespace": "team-a"},
        "involvedObject": {
            "kind": "ModelDeployment",
            "name": deployment,
            "uid": f"uid-team-a-{deployment}",
        },
        "type": "Normal",
        "reason": reason,
        "message": message,
        "lastTimestamp": ago(seconds),
        "count": 1,
    }
