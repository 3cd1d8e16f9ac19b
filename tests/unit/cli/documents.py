"""ModelDeployments as an API server returns them, in every state that the command line tells of."""

from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]

NOW = datetime(2026, 3, 6, 17, 30, tzinfo=UTC)
STABLE, CANARY, OLDER = "7f3c1a2b9d", "9ab14c2d3e", "51d0aa77b2"
TARGET = "100ms"


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(type_: str, status: str, reason: str, message: str = "") -> Document:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(minutes=3),
        "observedGeneration": 4,
    }


def conditions(
    *,
    available: str = "True",
    ready: tuple[str, str, str] = ("True", "Ready", f"revision {STABLE} serves, as the spec asks"),
    reconciling: tuple[str, str, str] = ("False", "Ready", ""),
    stalled: tuple[str, str, str] = ("False", "Ready", ""),
) -> list[Document]:
    return [
        condition("Available", available, "Serving" if available == "True" else "Loading"),
        condition("Ready", *ready),
        condition("Reconciling", *reconciling),
        condition("Stalled", *stalled),
        condition("WaitingForGPU", "False", "NotWaiting"),
        condition("MetricsAvailable", "True", "Measured"),
    ]


def revision(hash_: str, *, ready: int = 3, replicas: int = 3, **more: Any) -> Document:
    return {
        "name": f"magika-{hash_}",
        "hash": hash_,
        "digest": "sha256:" + "ab" * 32,
        "source": "s3://models/magika/v3",
        "image": "nvidia/tritonserver:26.09-py3",
        "replicas": replicas,
        "readyReplicas": ready,
        "state": "Ready",
        "created": ago(days=2),
        **more,
    }


def test(name: str, observed: str, bound: str, canary: str, **more: Any) -> Document:
    return {
        "test": name,
        "observed": observed,
        "bound": bound,
        "canary": canary,
        "evidence": "0.31",
        "needed": "2000",
        "verdict": "Clear",
        **more,
    }


ERRORS_CLEAR = test("errors", "0.48%", "1%", "2/420")
LATENCY_CLEAR = test("latency", "0.24%", "1%", "1/420", evidence="0.12", needed="8000")
ERRORS_BAD = test("errors", "7.5%", "1%", "15/200", evidence="4006", verdict="Bad")
AGAINST_CLEAR = test(
    "errorsAgainstStable",
    "7.5%",
    "0.079%",
    "15/200",
    stable="3/3800",
    evidence="5210",
    needed="8000",
)
LATENCY_WORSE = test(
    "latencyAgainstStable",
    "0.9%",
    "0.3%",
    "18/2000",
    stable="24/8000",
    evidence="8100",
    needed="8000",
    verdict="Worse",
)
CLIENT_BAD = test(
    "clientErrors",
    "100%",
    "0.079%",
    "200/200",
    stable="3/3800",
    evidence="9.1e+30",
    needed="8000",
    verdict="Bad",
)


def deployment(
    status: Document | None,
    *,
    name: str = "magika",
    namespace: str = "models",
    generation: int = 4,
    spec: Document | None = None,
    **meta: Any,
) -> Document:
    found: Document = {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "generation": generation,
            "creationTimestamp": ago(days=9),
            "resourceVersion": "1",
            **meta,
        },
        "spec": {
            "model": {"source": {"uri": "s3://models/magika/v3"}},
            "slo": {"latency": {"quantile": "0.99", "target": TARGET}, "maxErrorRate": "1%"},
            **(spec or {}),
        },
    }
    return found if status is None else found | {"status": {"observedGeneration": 4, **status}}


HISTORY = [
    {
        "revision": STABLE,
        "outcome": "Promoted",
        "reason": "1 of 1,900 requests failed (0.053 %), the limit is 1 %",
        "time": ago(days=2),
    },
    {"revision": OLDER, "outcome": "Replaced", "reason": "", "time": ago(days=5)},
]


def rolling(phase: str, *, weight: int = 0, hold: str | None = None, **more: Any) -> Document:
    """In a rollout; `more` goes to status.rollout."""
    message = more.pop("message", "")
    return deployment(
        {
            "replicas": 4,
            "readyReplicas": 4,
            "conditions": conditions(
                ready=("False", hold or phase, message),
                reconciling=("True", hold or phase, message),
                stalled=("False", "Progressing", ""),
            ),
            "revisions": {
                "stable": revision(STABLE),
                "canary": revision(CANARY, ready=1, replicas=1, source="s3://models/magika/v4"),
            },
            "traffic": [
                {
                    "revision": STABLE,
                    "weight": 100 - weight,
                    "observedShare": f"{100.2 - weight:.1f}%" if weight else None,
                },
                {
                    "revision": CANARY,
                    "weight": weight,
                    "observedShare": f"{weight - 0.2:.1f}%" if weight else None,
                },
            ],
            "rollout": {
                "phase": phase,
                "weight": f"{weight}%",
                "steps": 4,
                "started": ago(minutes=9),
                "since": ago(minutes=3, seconds=12),
                **({"hold": hold} if hold else {}),
                **({"message": message} if message else {}),
                **more,
            },
            "url": "http://magika.models.svc:8000",
            "history": HISTORY,
        }
    )


def evidence(verdict: str = "NotYet", *tests: Document, **more: Any) -> Document:
    return {
        "verdict": verdict,
        "requests": 420,
        "tests": list(tests) or [ERRORS_CLEAR, LATENCY_CLEAR],
        "state": "v1:...",
        **more,
    }


NEEDS: dict[str, Any] = {"requestsNeeded": 180, "secondsNeeded": 72}

NEW = deployment(None)
STEADY = deployment(
    {
        "replicas": 3,
        "readyReplicas": 3,
        "conditions": conditions(),
        "revisions": {"stable": revision(STABLE)},
        "traffic": [{"revision": STABLE, "weight": 100}],
        "rollout": {
            "phase": "Promoted",
            "since": ago(days=2),
            "weight": "100%",
            "evidence": evidence("Good", ERRORS_CLEAR),
        },
        "url": "http://magika.models.svc:8000",
        "history": HISTORY,
    }
)
FIRST = deployment(
    {
        "replicas": 1,
        "readyReplicas": 0,
        "conditions": conditions(
            available="False",
            ready=("False", "Loading", "Triton loads the model"),
            reconciling=("True", "Loading", "Triton loads the model"),
            stalled=("False", "Progressing", ""),
        ),
        "revisions": {
            "canary": revision(CANARY, ready=0, replicas=1, state="Loading"),
        },
        "rollout": {"phase": "Preparing", "since": ago(seconds=40), "started": ago(seconds=40)},
    }
)
PREPARING = rolling("Preparing")
VERIFYING = rolling("Verifying", message="golden requests: 3 of 5 answered as expected")
MIRRORING = rolling("Mirroring", mirror="20%", evidence=evidence(**NEEDS))
STEP = rolling("Canary", weight=5, step=1, evidence=evidence(**NEEDS), nextDecision=ago(seconds=-9))
NEEDS_MORE = rolling(
    "Canary",
    weight=5,
    step=1,
    hold="NeedsMoreRequests",
    message="180 more requests of the canary are needed for 25 %",
    evidence=evidence(**NEEDS),
)
PAUSED = rolling("Canary", weight=5, step=1, hold="Paused", message="paused by ada")
METRICS = rolling(
    "Canary",
    weight=5,
    step=1,
    hold="MetricsUnavailable",
    message="magika-9ab14c2d3e-x7k2p: port 9091 does not answer for 40 s",
)
GPU = rolling(
    "Preparing", hold="WaitingForGPU", message="0/3 nodes are available: 3 Insufficient gpu"
)
STABLE_SHORT = rolling("Canary", weight=5, step=1, hold="StableShort", message="1 of 3 pods ready")
STABLE_FAILING = rolling(
    "Canary", weight=5, step=1, hold="StableFailing", message="stable fails 4 %, the limit is 1 %"
)
WORSE = rolling(
    "Canary",
    weight=25,
    step=2,
    hold="WorseThanStable",
    message="18 of 2,000 are slow, on stable 24 of 8,000",
    evidence=evidence("NotYet", ERRORS_CLEAR, LATENCY_WORSE),
)
CLUSTERS = rolling(
    "Canary",
    weight=5,
    step=1,
    evidence=evidence(
        "NotYet",
        AGAINST_CLEAR | {"clusters": "4/2.5"},
        ERRORS_CLEAR | {"clusters": "4/2.5", "seen": f"{ago(minutes=2)}/{ago(seconds=20)}"},
        LATENCY_CLEAR,
        **NEEDS,
    ),
)
WEIGHT = rolling(
    "Canary", weight=25, step=2, hold="WeightNotObserved", message="25 % asked for, 0.2 % arrive"
)
GATES = rolling("Canary", weight=50, step=3, hold="WaitingForGates", message="Approved is Unknown")
GATES["spec"]["rollout"] = {"gates": ["Approved"]}
ROUTE = rolling("Canary", weight=5, step=1, hold="WaitingForRoute", message="not accepted yet")
BAKING = rolling("Baking", weight=100, evidence=evidence("Good"))

ROLLED_BACK = deployment(
    {
        "replicas": 3,
        "readyReplicas": 3,
        "conditions": conditions(
            ready=("False", "RolledBack", f"revision {CANARY} was rolled back"),
            reconciling=("False", "RolledBack", ""),
            stalled=(
                "True",
                "RolledBack",
                "15 of 200 requests failed (7.5 %), the limit is 1 %",
            ),
        ),
        "revisions": {
            "stable": revision(STABLE),
            "failed": [
                {
                    "hash": CANARY,
                    "reason": "ErrorRate",
                    "message": "15 of 200 requests failed (7.5 %), the limit is 1 %",
                    "time": ago(minutes=3),
                    "evidence": "errors: 15/200 (7.5%) against 1%; e-value 4.01e+03, needed 2e+03",
                },
                {
                    "hash": "00aa11bb22",
                    "reason": "ModelNotLoaded",
                    "message": "Triton: failed to load 'magika' version 1: Internal: no such file",
                    "time": ago(days=1),
                },
            ],
        },
        "traffic": [{"revision": STABLE, "weight": 100}],
        "rollout": {
            "phase": "RolledBack",
            "hold": "RolledBack",
            "message": "15 of 200 requests failed (7.5 %), the limit is 1 %. Mend it.",
            "since": ago(minutes=3),
            "started": ago(minutes=9),
        },
        "history": [
            {
                "revision": CANARY,
                "outcome": "RolledBack",
                "reason": "ErrorRate: 15 of 200 requests failed (7.5 %), the limit is 1 %",
                "time": ago(minutes=3),
            },
            *HISTORY,
        ],
        "lastRequest": "abc123",
    }
)
SUPERSEDED = deployment(
    {
        "replicas": 3,
        "readyReplicas": 3,
        "conditions": conditions(),
        "revisions": {"stable": revision(STABLE)},
        "traffic": [{"revision": STABLE, "weight": 100}],
        "rollout": {
            "phase": "Superseded",
            "since": ago(minutes=1),
            "message": f"{CANARY} is no longer asked for",
        },
        "history": [
            {
                "revision": CANARY,
                "outcome": "Superseded",
                "reason": "the spec asks for another revision",
                "time": ago(minutes=1),
            },
            *HISTORY,
        ],
    }
)
STALLED = deployment(
    {
        "replicas": 1,
        "readyReplicas": 0,
        "conditions": conditions(
            available="False",
            ready=("False", "SourceNotFound", "nothing lies at s3://models/magika/v3"),
            reconciling=("False", "SourceNotFound", ""),
            stalled=("True", "SourceNotFound", "nothing lies at s3://models/magika/v3"),
        ),
        "revisions": {
            "canary": revision(
                CANARY,
                ready=0,
                replicas=1,
                state="Failed",
                reason="SourceNotFound",
                message="nothing lies at s3://models/magika/v3",
            )
        },
        "rollout": {"phase": "Preparing", "since": ago(minutes=40)},
    }
)
OUTDATED = {**STEADY, "metadata": {**STEADY["metadata"], "generation": 5}}

ALL: dict[str, Document] = {
    "new": NEW,
    "first": FIRST,
    "steady": STEADY,
    "preparing": PREPARING,
    "verifying": VERIFYING,
    "mirroring": MIRRORING,
    "step": STEP,
    "needs-more": NEEDS_MORE,
    "paused": PAUSED,
    "metrics": METRICS,
    "gpu": GPU,
    "stable-short": STABLE_SHORT,
    "stable-failing": STABLE_FAILING,
    "worse": WORSE,
    "clusters": CLUSTERS,
    "weight": WEIGHT,
    "gates": GATES,
    "route": ROUTE,
    "baking": BAKING,
    "rolled-back": ROLLED_BACK,
    "superseded": SUPERSEDED,
    "stalled": STALLED,
    "outdated": OUTDATED,
}


def pod(name: str, hash_: str, *, ready: bool = True, **status: Any) -> Document:
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": ago(minutes=8),
            "labels": {
                "tidegate.dev/deployment": "magika",
                "tidegate.dev/revision": hash_,
                "tidegate.dev/serving": "true",
            },
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            **status,
        },
    }


PODS = [
    *(pod(f"magika-{STABLE}-{i}", STABLE) for i in "abc"),
    pod(
        f"magika-{CANARY}-x",
        CANARY,
        ready=False,
        containerStatuses=[
            {"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
        ],
    ),
]
