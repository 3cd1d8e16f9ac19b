"""One ModelDeployment behind the gateway, and one rollout of it under load, watched."""

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from e2e.cluster import paths
from e2e.cluster.kube import KubeError, Object
from e2e.load import Load, Orders, Request
from e2e.models.faulty.build import SERVED_BY, build
from e2e.models.faulty.versions import version
from e2e.models.magika import build as magika
from e2e.rollouts.scenarios import Outcome, Scenario
from e2e.tests import artefacts
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import (
    API,
    KIND,
    SECRET,
    SETTINGS,
    Space,
    condition,
    is_current,
    merged,
    stable,
)

TEXT: Final = (
    "import os\nimport sys\n\n\ndef main() -> None:\n    print(os.getcwd(), sys.argv)\n" * 4
)
LABEL: Final = "python"
"""What Magika says of it."""
GOLDEN: Final = "golden"
REQUEST: Final = "tidegate.dev/request"
POLL_S: Final = 0.1
BEFORE: Final = 25
"""Requests of each client before the change: there is something to compare with."""
AFTER_S: Final = 2.0
"""The load goes on for so long after the outcome: were the last failures really the last?"""
SAME_AS: Final = {"same": "plain", "background-too": "background", "nearly-slow-too": "nearly-slow"}
"""Versions that behave as a stable one: once promoted they may stay."""
PHASES: Final = ("Preparing", "Verifying", "Mirroring", "Canary", "Baking")
_numbers = itertools.count(int(time.time()))


def artefact(name: str, seed: int) -> str:
    """Put a version into S3; returns its URI."""
    good = paths.CACHE / "magika" / "repositories"
    repository = good / "v3"
    if not repository.exists():
        magika.build(good)
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder) / "repository", version(name, seed), repository)
        files = {
            p.relative_to(built).as_posix(): p.read_bytes()
            for p in sorted(built.rglob("*"))
            if p.is_file()
        }
    return artefacts.put(f"rollouts/{name}-{seed}", files)


def golden_requests() -> Object:
    """A ConfigMap with one request and what Magika must say of it."""
    tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [TEXT]}
    request = {
        "inputs": [tensor],
        "expected": {"outputs": [{"name": "label", "data": [LABEL]}]},
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": GOLDEN},
        "data": {"python.json": json.dumps(request)},
    }


def gateway_address(space: Space) -> str:
    """``host:port`` of the Gateway of the cluster."""
    gateway = space.kube.get(
        "gateway.networking.k8s.io/v1", "Gateway", "public", SETTINGS.infra_namespace
    )
    assert gateway is not None
    return f"{gateway['status']['addresses'][0]['value']}:80"


@dataclass
class Stage:
    """A ModelDeployment whose stable version serves.

    Attributes:
        space: its namespace.
        scenario: the one that it was last set up for.
        name: of the ModelDeployment.
        stable_uri: of the version that serves.
        stable_hash: of its revision.
    """

    space: Space
    scenario: Scenario
    name: str = ""
    stable_uri: str = ""
    stable_hash: str = ""

    @property
    def host(self) -> str:
        """Its name at the gateway."""
        return f"{self.name}.rollouts.example"

    def spec(self, uri: str, canary: bool) -> dict[str, Any]:
        """The whole spec with that source."""
        scenario = self.scenario
        source = {"uri": uri, "endpoint": SETTINGS.s3_endpoint, "secretName": SECRET}
        runtime = merged(
            {"gpu": {"count": 0}, "resources": {"cpu": "200m", "memory": "1Gi"}}, scenario.runtime
        )
        if canary:
            runtime = merged(runtime, scenario.canary_runtime)
        rollout: dict[str, Any] = {"mirror": {"mode": "Off"}, "bake": "3s"}
        if scenario.steps:
            rollout["steps"] = [{"weight": weight, "hold": "1s"} for weight in scenario.steps]
        if not scenario.gap:
            rollout["surgeWait"] = "5s"
        return {
            "model": {"name": magika.MODEL, "source": source},
            "runtime": runtime,
            "scaling": {"mode": "Fixed"},
            "replicas": scenario.replicas,
            "slo": dict(scenario.slo),
            "rollout": merged(rollout, scenario.rollout),
            "traffic": {
                "gateway": {
                    "parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}],
                    "hostnames": [self.host],
                }
            },
            **({"goldenRequests": {"configMapName": GOLDEN}} if scenario.golden else {}),
        }

    def _apply(self, uri: str, canary: bool = False) -> Object:
        return self.space.apply(
            {
                "apiVersion": API,
                "kind": KIND,
                "metadata": {"name": self.name},
                "spec": self.spec(uri, canary),
            }
        )

    def prepare(self, scenario: Scenario) -> None:
        """See to it that the scenario's stable version serves, and nothing else.

        A ModelDeployment whose stable version is still the wanted one, or one that behaves the
        same, is kept: its canary, failed or not, is no longer asked for.

        Raises:
            NotReached: it did not become ready.
        """
        before, self.scenario = self.scenario, scenario
        if self.name and before.stage == scenario.stage and self._serves_stable():
            self._apply(self.stable_uri)
            self.space.ready(self.name)
            return
        self.close()
        self.space.apply(golden_requests())
        self.name = f"{scenario.stable}-{next(_numbers) % 1_000_000}"
        self.stable_uri = artefact(scenario.stable, 0)
        self._apply(self.stable_uri)
        self.stable_hash = str(stable(self.space.ready(self.name))["hash"])
        address = gateway_address(self.space)
        await_answer(
            lambda: ask_http(address, magika.MODEL, TEXT, self.host),
            f"{self.host} through the gateway",
            lambda: self.space.told(self.name),
        )

    def _serves_stable(self) -> bool:
        """Whether what serves behaves as the stable version; takes note of which it is."""
        found = self.space.get(API, KIND, self.name)
        if found is None or _in_rollout(found):
            return found is not None and stable(found).get("hash") == self.stable_hash
        serves = stable(found)
        if serves.get("hash") == self.stable_hash:
            return True
        named = str(serves.get("source")).rpartition("/")[2].rpartition("-")[0]
        if SAME_AS.get(named) != self.scenario.stable:
            return False
        self.stable_uri, self.stable_hash = serves["source"], serves["hash"]
        return True

    def close(self) -> None:
        """Begin to delete the ModelDeployment."""
        if self.name:
            self.space.kube.delete(API, KIND, self.name, self.space.name)
        self.name = ""

    def change_to(self, name: str, seed: int) -> str:
        """Ask for another version; returns its URI."""
        uri = artefact(name, seed)
        self._apply(uri, canary=True)
        return uri

    def revert(self) -> None:
        """Ask for the stable version."""
        self._apply(self.stable_uri)

    def request(self, verb: str, revision: str = "") -> None:
        """Ask for a verb, as a person does."""
        review = self.space.kube.request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
        user = review["status"]["userInfo"]["username"]
        value = f"e2e-{next(_numbers)}/{verb}/{revision}/{user}"
        self.space.kube.request(
            "PATCH",
            self.space.kube.path(API, KIND, self.space.name, self.name),
            body={"metadata": {"annotations": {REQUEST: value}}},
            content_type="application/merge-patch+json",
        )


@dataclass(frozen=True)
class Seen:
    """What status said from then on.

    Attributes:
        at_s: seconds since the change of the spec.
        said: phase, weight, hold, verdict, message.
    """

    at_s: float
    said: Mapping[str, Any]


@dataclass
class Run:
    """One rollout, from the change of the spec to its outcome.

    Attributes:
        stage: where.
        scenario: what.
        seed: of the canary's version.
        canary_hash: of its revision; empty while it is unknown.
        seen: each new thing that status said.
        disturbed_s: when the disturbance happened, since the change; None: not yet.
    """

    stage: Stage
    scenario: Scenario
    seed: int
    canary_hash: str = ""
    seen: list[Seen] = field(default_factory=list)
    disturbed_s: float | None = None
    _uri: str = ""
    _began: float = 0.0
    _held_since: float | None = None
    _last: Mapping[str, Any] = field(default_factory=dict)

    def begin(self) -> None:
        """Ask for the canary; its clock starts."""
        if self.scenario.undo:
            # A good version goes live first, by an operator's word; then back from it.
            self._promote_another()
            self.canary_hash = self.stage.stable_hash
            self._began = time.time()
            self.stage.request("undo", self.canary_hash)
            return
        uri = artefact(self.scenario.canary, self.seed)
        self._uri = uri
        self._began = time.time()
        self.stage._apply(uri, canary=True)

    def _promote_another(self) -> None:
        uri = self.stage.change_to("same", self.seed)
        space, name = self.stage.space, self.stage.name
        space.until(
            name,
            lambda f: (f["status"].get("rollout") or {}).get("phase") in ("Mirroring", "Canary"),
            "a rollout under way",
        )
        self.stage.request("promote")
        space.until(
            name,
            lambda f: stable(f).get("source") == uri and not _in_rollout(f),
            "promoted by request",
        )

    @property
    def now_s(self) -> float:
        """Seconds since the change."""
        return time.time() - self._began

    @property
    def _held_for_s(self) -> float:
        return self.now_s - self._held_since if self._held_since is not None else 0.0

    @property
    def began(self) -> float:
        """When the spec was changed, seconds since the epoch."""
        return self._began

    def look(self) -> Outcome:
        """Read status once; disturbs where it is time to.

        Returns:
            What became of the canary; `Outcome.UNDECIDED`: nothing yet.
        """
        try:
            found = self.stage.space.live(self.stage.name)
        except (httpx.TransportError, KubeError):
            return Outcome.UNDECIDED
        self._keep(found)
        status = found.get("status") or {}
        rollout = status.get("rollout") or {}
        disturbance = self.scenario.disturbance
        if disturbance and self.disturbed_s is None and _reached(rollout, disturbance.phase):
            self.disturbed_s = self.now_s
            disturbance.happen(self)
            return Outcome.UNDECIDED
        return self._outcome(found, status, rollout)

    def _outcome(
        self, found: Object, status: Mapping[str, Any], rollout: Mapping[str, Any]
    ) -> Outcome:
        for entry in status.get("history") or ():
            if entry["revision"] == self.canary_hash and self._is_ours(entry):
                return Outcome(entry["outcome"])
        if any(f["hash"] == self.canary_hash for f in _failed(status)):
            return Outcome.ROLLED_BACK
        hold = rollout.get("hold")
        expected = self.scenario.expected is Outcome.HELD and self.scenario.words
        if not hold or (expected and hold not in expected):
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self.now_s
        elif self.scenario.expected is Outcome.HELD and self._held_for_s >= self.scenario.held_s:
            return Outcome.HELD
        return Outcome.UNDECIDED

    def _is_ours(self, entry: Mapping[str, Any]) -> bool:
        """Whether a history entry is of this run and not of an earlier one (``undo``)."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self._began))
        return bool(entry["time"] >= stamp and entry["outcome"] in list(Outcome))

    def _keep(self, found: Object) -> None:
        status = found.get("status") or {}
        revisions = status.get("revisions") or {}
        if not self.canary_hash:
            for name in ("canary", "stable"):
                if (revisions.get(name) or {}).get("source") == self._uri:
                    self.canary_hash = revisions[name]["hash"]
        rollout = status.get("rollout") or {}
        evidence = rollout.get("evidence") or {}
        ready = condition(found, "Ready")
        said = {
            **{k: rollout.get(k) for k in ("phase", "weight", "mirror", "hold", "message")},
            "verdict": evidence.get("verdict"),
            "ready": f"{ready.get('status')} {ready.get('reason')}",
            "pods": self._pods() if self.scenario.gap else None,
        }
        if is_current(found) and said != self._last:
            self._last = said
            self.seen.append(Seen(round(self.now_s, 3), {k: v for k, v in said.items() if v}))

    def _pods(self) -> str:
        """How many of each revision there are, those that are Ready or on their way out apart."""
        space, name = self.stage.space, self.stage.name
        counts = {"stable": Counter[str](), "canary": Counter[str]()}
        for pod in space.kube.list("v1", "Pod", space.name, f"tidegate.dev/deployment={name}"):
            mark = pod["metadata"]["labels"]["tidegate.dev/revision"]
            state = "there"
            if "deletionTimestamp" in pod["metadata"]:
                state = "leaving"
            elif condition(pod, "Ready").get("status") == "True":
                state = "ready"
            counts["stable" if mark == self.stage.stable_hash else "canary"][state] += 1
        said = {
            role: ", ".join(f"{number} {state}" for state, number in found.items()) or "none"
            for role, found in counts.items()
        }
        return "; ".join(f"{role}: {text}" for role, text in said.items())

    def explanation(self) -> str:
        """What status says of the outcome, for people."""
        found = self.stage.space.live(self.stage.name)
        status = found.get("status") or {}
        for failed in _failed(status):
            if failed["hash"] == self.canary_hash:
                return f"{failed['reason']}: {failed['message']}"
        rollout = status.get("rollout") or {}
        if self.scenario.expected is Outcome.HELD and rollout.get("hold"):
            return f"{rollout['hold']}: {rollout.get('message', '')}"
        for entry in status.get("history") or ():
            if entry["revision"] == self.canary_hash:
                return str(entry["reason"])
        ready = condition(found, "Ready")
        return f"{ready.get('reason')}: {ready.get('message')}"


def _reached(rollout: Mapping[str, Any], phase: str) -> bool:
    """Whether a rollout has come to that phase; a short one may pass between two looks."""
    now = rollout.get("phase")
    return now in PHASES and PHASES.index(now) >= PHASES.index(phase)


def _failed(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((status.get("revisions") or {}).get("failed") or ())


def _in_rollout(found: Object) -> bool:
    rollout = (found.get("status") or {}).get("rollout") or {}
    return rollout.get("phase") not in (None, "Promoted", "RolledBack", "Superseded")


@dataclass(frozen=True)
class Result:
    """What became of one scenario. Times are seconds since the change of the spec.

    Attributes:
        scenario: its name.
        outcome: what became of the canary.
        explanation: what status said of it.
        good: it is what was expected, with the words expected and no more failures than allowed.
        problem: what is not; empty if `good`.
        sent: requests of the client from the change on.
        failed: those of them that failed.
        by_canary: answers that the canary gave, those that say who it was.
        first_failed_s: when the first failing response came; None: none did.
        last_failed_s: the last.
        live_s: when the canary got its first client request, by status; None: never.
        decided_s: when status first told the outcome.
        failed_before: requests that failed before the change: the machine's, or stable's own.
        errors: the first words of failures, with their counts.
        seen: the course of status.
        told: what else there is to say if it is not `good`.
        unanswered_s: the longest time without a good answer.
    """

    scenario: str
    outcome: Outcome
    explanation: str
    good: bool
    problem: str
    sent: int
    failed: int
    by_canary: int
    first_failed_s: float | None
    last_failed_s: float | None
    live_s: float | None
    decided_s: float
    failed_before: int
    errors: Mapping[str, int]
    seen: tuple[Seen, ...]
    told: str = ""
    unanswered_s: float | None = None

    @property
    def window_s(self) -> float | None:
        """From the first failing response to the last."""
        if self.first_failed_s is None or self.last_failed_s is None:
            return None
        return self.last_failed_s - self.first_failed_s


@contextmanager
def _load(stage: Stage, scenario: Scenario) -> Iterator[Load | None]:
    if not scenario.rate_hz:
        yield None
        return
    address = gateway_address(stage.space)
    orders = Orders(
        *(address, address, magika.MODEL, TEXT),
        rate_hz=scenario.rate_hz / 2,
        limit_s=scenario.limit_s + 240.0,
        host=stage.host,
        expected=LABEL,
        connections=0 if scenario.rate_hz > 10 else 1,
        timeout_s=scenario.timeout_s,
    )
    with Load(orders) as load:
        load.await_more(BEFORE if scenario.rate_hz > 10 else 2)
        yield load


def play(stage: Stage, scenario: Scenario, seed: int) -> Result:
    """Play one scenario and see what becomes of it.

    Args:
        stage: is prepared for it.
        scenario: what to do.
        seed: of the canary's version: another one is another revision.

    Raises:
        NotReached: the stable version did not become ready.
    """
    stage.prepare(scenario)
    run = Run(stage, scenario, seed)
    outcome, decided_s = Outcome.UNDECIDED, 0.0
    requests: list[Request] = []
    with _load(stage, scenario) as load:
        run.begin()
        try:
            while outcome is Outcome.UNDECIDED and run.now_s < scenario.limit_s:
                time.sleep(POLL_S)
                outcome = run.look()
            decided_s = run.now_s
            if load is not None:
                time.sleep(AFTER_S)
            while scenario.gap and load is not None and not _served(load):
                if run.now_s > decided_s + scenario.limit_s:
                    break
                time.sleep(POLL_S)
                run.look()
        finally:
            if scenario.disturbance is not None:
                scenario.disturbance.mend(run)
    if load is not None:
        # From here on all by the clock that starts with the change of the spec.
        shift = load.began - run.began
        requests = [_shifted(r, shift) for r in load.requests]
    return _result(run, outcome, decided_s, requests)


def _served(load: Load) -> bool:
    """Whether every client was answered lately, and nothing failed."""
    since_s = time.time() - load.began - AFTER_S
    lately = [r for r in list(load.requests) if r.end_s >= since_s]
    return {r.client for r in lately} == set(load.orders.clients()) and not any(
        r.error for r in lately
    )


def _shifted(request: Request, shift_s: float) -> Request:
    r = request
    return Request(r.due_s + shift_s, r.late_s, r.took_s, r.error, r.client, r.status, r.answer)


def _result(run: Run, outcome: Outcome, decided_s: float, requests: list[Request]) -> Result:
    scenario = run.scenario
    during = [r for r in requests if r.end_s >= 0]
    failed = [r for r in during if r.error]
    ends = [r.end_s for r in failed]
    errors: dict[str, int] = {}
    for r in failed:
        errors[r.error[:120]] = errors.get(r.error[:120], 0) + 1
    weights = [s.at_s for s in run.seen if s.said.get("weight") not in (None, "0%")]
    explanation = run.explanation()
    problem = ""
    if outcome is not scenario.expected:
        problem = f"{outcome}, expected {scenario.expected}"
    elif scenario.words and not any(word in explanation for word in scenario.words):
        problem = f"the explanation has none of {', '.join(scenario.words)}"
    elif scenario.most_failed is not None and len(failed) > scenario.most_failed:
        problem = f"{len(failed)} client responses failed, at most {scenario.most_failed} may"
    elif scenario.gap and not _served_at_the_end(during):
        problem = "clients are not served again"
    elif scenario.disturbance is not None and run.disturbed_s is None:
        problem = f"never in phase {scenario.disturbance.phase}"
    return Result(
        scenario=scenario.name,
        outcome=outcome,
        explanation=explanation,
        good=not problem,
        problem=problem,
        sent=len(during),
        failed=len(failed),
        by_canary=sum((r.answer or {}).get(SERVED_BY) == scenario.canary for r in during),
        first_failed_s=min(ends, default=None),
        last_failed_s=max(ends, default=None),
        live_s=min(weights, default=None),
        decided_s=decided_s,
        failed_before=sum(bool(r.error) for r in requests if r.end_s < 0),
        errors=dict(sorted(errors.items(), key=lambda item: -item[1])[:8]),
        seen=tuple(run.seen),
        told=run.stage.space.told(run.stage.name) if problem else "",
        unanswered_s=_longest_pause_s([r.end_s for r in during if not r.error]),
    )


def _served_at_the_end(requests: Sequence[Request]) -> bool:
    """Whether nothing failed in the last second or so."""
    over_s = max((r.end_s for r in requests), default=0.0) - AFTER_S / 2
    lately = [r for r in requests if r.end_s > over_s]
    return bool(lately) and not any(r.error for r in lately)


def _longest_pause_s(times_s: Sequence[float]) -> float | None:
    """The longest time between two of them; None: there are not two."""
    return max((b - a for a, b in itertools.pairwise(sorted(times_s))), default=None)
