"""Labels and samples answer a rollout's gates: the chart's component, real answers, real tokens."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from e2e.cluster import addons
from e2e.cluster.installation import CHART_VALUES
from e2e.cluster.kube import KubeClient, Object, wait_for
from e2e.cluster.progress import Progress
from e2e.models.magika import build as magika
from e2e.rollouts.scenarios import Outcome, Scenario
from e2e.rollouts.stage import TEXT, Stage, gateway_address
from e2e.tests import artefacts
from e2e.tests.kubectl import kubectl
from e2e.tests.leader import kill
from e2e.tests.space import (
    API,
    KIND,
    READY_SECONDS,
    SETTINGS,
    Space,
    condition,
    model_deployment,
    stable,
)
from e2e.tests.test_observability import VALUES, groups
from e2e.tests.test_rollouts import next_seed
from e2e.tests.volumes import claim, volume
from tidegate.quality.policy import ANNOTATION

pytestmark = pytest.mark.slow

NAME: Final = "tidegate-quality"
RBAC: Final = "rbac.authorization.k8s.io"
LABELS: Final = 120
"""All of them right, they show an accuracy of 90 % (about 60 do)."""
HELD_S: Final = 6.0
"""Longer than from one look of the component to the next."""
TRUTH: Final = {
    TEXT: "python",
    "<!DOCTYPE html>\n<html><head><title>t</title></head>\n<body><p>text</p></body></html>\n"
    * 3: "html",
}
CONTENTS: Final = (*[TEXT] * 4, *TRUTH)
"""What is asked, in turn: five times of six the first."""
AT_ONCE: Final = 6
SECRET_CLASS: Final = "a-diagnosis"
KEEP_S: Final = 30.0
SCENARIO: Final = Scenario(
    "quality",
    "same",
    Outcome.PROMOTED,
    slo={"maxErrorRate": "5%"},
    steps=("50%",),
    rollout={"gates": ["Accurate", "Steady"]},
)


@dataclass(frozen=True)
class Answer:
    """One answer of a model.

    Attributes:
        revision: which gave it, by its header.
        id: the request's, by its header.
        label: what it says.
        truth: what it should have said.
        score: how sure it is; 0 where the model does not tell.
    """

    revision: str
    id: str
    label: str
    truth: str
    score: float = 0.0

    def sample(self, **values: float) -> dict[str, Any]:
        """As it is posted."""
        one = {"revision": self.revision, "id": self.id, "label": self.label}
        return {**one, "values": {"score": self.score, **values}}


@contextmanager
def ask(
    address: str, model: str, truth: Mapping[str, str], host: str = ""
) -> Iterator[Callable[[str], Answer]]:
    """Asks a model one content over kept connections."""
    client = httpx.Client(timeout=30.0, trust_env=False, headers={"Host": host} if host else None)

    def one(content: str) -> Answer:
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [content]}
        reply = client.post(f"http://{address}/v2/models/{model}/infer", json={"inputs": [tensor]})
        assert reply.status_code == 200, reply.text
        said = {o["name"]: o["data"][0] for o in reply.json()["outputs"]}
        return Answer(
            reply.headers["x-tidegate-revision"],
            reply.headers["x-request-id"],
            said["label"],
            truth[content],
            float(said.get("score", 0.0)),
        )

    with client:
        yield one


@dataclass(frozen=True)
class Poster:
    """Posts of one ModelDeployment with one account's token.

    Attributes:
        address: the component's.
        space: the model's namespace.
        name: the model's.
        token: the account's; empty: none is sent.
    """

    address: str
    space: Space
    name: str
    token: str

    def post(self, what: str, *items: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer."""
        path = f"/api/v1/namespaces/{self.space.name}/modeldeployments/{self.name}/{what}"
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        body = {what: list(items)}
        reply = httpx.post(f"{self.address}{path}", json=body, headers=headers, trust_env=False)
        return reply.status_code, reply.json()

    def taken(self, what: str, *items: Mapping[str, Any]) -> None:
        """Post what must be taken, all of it. A canary is known to it after its next look."""

        def post() -> dict[str, Any] | None:
            status, told = self.post(what, *items)
            return told if status == 200 else None

        told = wait_for(
            post,
            f"{what} are taken",
            timeout_seconds=READY_SECONDS,
            state=lambda: str(self.post(what, *items)),
        )
        assert told["taken"] == sum(item.get("labels", 1) for item in items), told

    def both(self, answers: list[Answer], **values: float) -> None:
        """Samples of these answers, and then what they should have been."""
        self.taken("samples", *(a.sample(**values) for a in answers))
        self.taken("labels", *({"id": a.id, "label": a.truth} for a in answers))


def poster(address: str, space: Space, name: str, account: str, *, may: bool = True) -> Poster:
    """A service account that may report on this ModelDeployment, or may only read it."""
    meta = {"name": account}
    rule = {
        "apiGroups": ["tidegate.dev"],
        "resources": ["modeldeployments"],
        "resourceNames": [name],
        "verbs": ["report"] if may else ["get", "patch", "update"],
    }
    space.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    api = f"{RBAC}/v1"
    space.apply({"apiVersion": api, "kind": "Role", "metadata": meta, "rules": [rule]})
    space.apply(
        {
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": space.name}],
        }
    )
    return Poster(address, space, name, kubectl(space, "create", "token", account).strip())


def policy(space: Space, name: str, asked: Mapping[str, Any]) -> None:
    """Ask for quality, as a person does."""
    space.kube.request(
        "PATCH",
        space.kube.path(API, KIND, space.name, name),
        body={"metadata": {"annotations": {ANNOTATION: json.dumps(asked)}}},
        content_type="application/merge-patch+json",
    )


def tidegate(space: Space, *arguments: str) -> str:
    """What `kubectl tidegate` prints."""
    roots = os.environ.get("PYTHONPATH", "operator")
    done = subprocess.run(
        [sys.executable, "-m", "tidegate.cli", *arguments, "--namespace", space.name],
        env=os.environ | {"KUBECONFIG": str(SETTINGS.kubeconfig), "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def said(found: Object, kind: str) -> tuple[str, str]:
    """A condition in two words."""
    one = condition(found, kind)
    return str(one.get("status") or ""), str(one.get("reason") or "")


def canary(found: Object) -> str:
    """The hash of the revision on trial; empty: none is."""
    revisions = (found.get("status") or {}).get("revisions") or {}
    return str((revisions.get("canary") or {}).get("hash") or "")


def hold(found: Object) -> str:
    return str((found["status"].get("rollout") or {}).get("hold") or "")


def quality(found: Object, revision: str) -> dict[str, str]:
    """What status says of a revision's quality; empty: nothing."""
    lines: list[dict[str, str]] = found["status"].get("quality") or []
    return next((line for line in lines if line["revision"] == revision), {})


@contextmanager
def installed_with(cluster: KubeClient, folder: Path, values: Mapping[str, Any]) -> Iterator[str]:
    """The chart with these values, and the component's address; then the tests' chart again."""
    path = folder / "values.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    command = ["upgrade", "--install", "tidegate", str(addons.CHART), "--reset-values"]
    command += ["--namespace", addons.OPERATOR_NAMESPACE, "--values", str(path)]
    try:
        addons.helm(SETTINGS, Progress(), [*command, "--wait", "--timeout", "180s"])
        service = cluster.get("v1", "Service", NAME, addons.OPERATOR_NAMESPACE)
        assert service is not None
        yield f"http://{service['spec']['clusterIP']}"
    finally:
        addons.install_chart(SETTINGS, Progress(), values=CHART_VALUES)


def pods(cluster: KubeClient) -> list[Object]:
    """The component's, those on their way out included."""
    labels = "app.kubernetes.io/component=quality"
    return cluster.list("v1", "Pod", addons.OPERATOR_NAMESPACE, labels)


def log_of(cluster: KubeClient) -> str:
    path = cluster.path("v1", "Pod", addons.OPERATOR_NAMESPACE)
    return "\n".join(cluster.text(f"{path}/{p['metadata']['name']}/log") for p in pods(cluster))


@pytest.fixture(scope="class")
def component(
    cluster: KubeClient, installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """It, as the chart has it by default: with counts that end with the pod."""
    values = {k: v for k, v in VALUES.items() if k != "podAnnotations"}
    values |= {"dashboard": {"enabled": True}, "quality": {"enabled": True}}
    with installed_with(cluster, tmp_path_factory.mktemp("values"), values) as address:
        yield address


class TestWithoutAGateway:
    """A gate before any traffic: the new version is asked by its own Service."""

    def answers(self, space: Space, found: Object, truth: str) -> list[Answer]:
        """Of the revision on trial, by its own Service."""
        address = space.address(f"{found['metadata']['name']}-{canary(found)}")
        with ask(address, found["metadata"]["name"], {"x": truth}) as one:
            wait_for(lambda: one("x"), "its Service answers", timeout_seconds=READY_SECONDS)
            got = [one("x") for _ in range(LABELS)]
        assert {a.revision for a in got} == {canary(found)}
        assert len({a.id for a in got}) == LABELS
        return got

    def test_labels_decide_and_only_those_of_who_may(
        self, component: str, space: Space, whoami: dict[str, str]
    ) -> None:
        name = "judged"
        item = model_deployment(name, whoami["one"], {"rollout": {"gates": ["Accurate"]}})
        item["metadata"]["annotations"] = {ANNOTATION: json.dumps({"minAccuracy": "90%"})}
        space.apply(item)
        pipeline = poster(component, space, name, "pipeline")
        reader = poster(component, space, name, "reader", may=False)
        nobody = Poster(component, space, name, "")
        first = stable(space.ready(name))["hash"]

        def change(label: str) -> Object:
            uri = artefacts.put(f"quality/{label}", artefacts.whoami(label))
            space.patch(name, {"model": {"source": {"uri": uri}}})
            return space.until(
                name,
                lambda f: (
                    hold(f) == "WaitingForGates"
                    and f["status"]["revisions"].get("canary", {}).get("source") == uri
                    and said(f, "Accurate") == ("Unknown", "TooFewLabels")
                ),
                f"{label} waits for labels",
            )

        # A version that answers wrongly. Nothing is known of it: it is held.
        found = change("wrong")
        wrong = canary(found)
        counted = {"revision": wrong, "labels": 1000, "right": 1000}
        assert nobody.post("labels", counted)[0] == 401
        assert Poster(component, space, name, "no.such.token").post("labels", counted)[0] == 401
        assert reader.post("labels", counted)[0] == 403
        assert reader.post("samples", {"revision": wrong})[0] == 403
        other = Poster(component, space, "another", pipeline.token)
        assert other.post("labels", counted)[0] == 403
        time.sleep(HELD_S)
        found = space.live(name)
        assert said(found, "Accurate") == ("Unknown", "TooFewLabels")
        assert (hold(found), stable(found)["hash"]) == ("WaitingForGates", first)
        # What it answers is compared with what is right.
        pipeline.both(self.answers(space, found, "two"))
        found = space.until(
            name, lambda f: said(f, "Accurate") == ("False", "TooManyWrong"), "shown to be bad"
        )
        assert quality(found, wrong)["accuracy"].startswith(f"0.0% of {LABELS} labels right")
        time.sleep(1.0)
        assert (hold(space.live(name)), canary(space.live(name))) == ("WaitingForGates", wrong)
        assert stable(space.live(name))["hash"] == first

        # One that answers rightly goes live, by the same labels.
        found = change("two")
        right = canary(found)
        pipeline.both(self.answers(space, found, "two"))
        found = space.until(
            name, lambda f: stable(f).get("hash") == right and not hold(f), "promoted by labels"
        )
        assert quality(found, right)["accuracy"].startswith(f"100.0% of {LABELS} labels right")


@dataclass
class Clients:
    """Clients of a model behind the gateway, who learn later what was right.

    Attributes:
        stage: the model.
        poster: posts what they saw.
        ask: sends one request.
        halved: revisions whose scores they post halved, as if a unit had changed.
        seen: answers by revision.
    """

    stage: Stage
    poster: Poster
    ask: Callable[[str], Answer]
    halved: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def until(
        self, probe: Callable[[Object], bool], what: str, *, posts: bool = True, seconds: float = 90
    ) -> Object:
        """Ask, and post what was answered, until the ModelDeployment is as `probe` wants it."""
        end = time.monotonic() + seconds
        while True:
            answers = list(self._pool.map(self.ask, CONTENTS * 10))
            self.seen.update(a.revision for a in answers)
            if posts:
                self._post(answers)
            found = self.stage.space.live(self.stage.name)
            if probe(found):
                return found
            assert time.monotonic() < end, f"{what}: {self.stage.space.told(self.stage.name)}"

    def _post(self, answers: list[Answer]) -> None:
        samples = []
        for a in answers:
            sample = a.sample(size_kb=len(a.truth) / 10)
            if a.revision in self.halved:
                sample["values"]["score"] /= 2.0
            samples.append(sample)
        self.poster.taken("samples", *samples)
        self.poster.taken("labels", *({"id": a.id, "label": a.truth} for a in answers))


@pytest.fixture(scope="class")
def folder(cluster: KubeClient, installed: None) -> Iterator[Path]:
    """Where the component keeps its counts, through a claim."""
    kind = "PersistentVolumeClaim"
    # Of a run that was killed.
    cluster.delete("v1", kind, NAME, addons.OPERATOR_NAMESPACE)
    cluster.delete("v1", "PersistentVolume", NAME)
    with volume(cluster, NAME) as found:
        cluster.apply(claim(NAME, NAME), namespace=addons.OPERATOR_NAMESPACE)
        yield found
        cluster.delete("v1", kind, NAME, addons.OPERATOR_NAMESPACE)


@pytest.fixture(scope="class")
def lasting(
    cluster: KubeClient, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """It, with a claim; and an operator that Prometheus scrapes."""
    addons.install_infra(SETTINGS, cluster)
    values = {**VALUES, "quality": {"enabled": True, "storage": {"claimName": NAME}}}
    with installed_with(cluster, tmp_path_factory.mktemp("values"), values) as address:
        yield address


@pytest.fixture(scope="class")
def clients(lasting: str, space: Space) -> Iterator[Clients]:
    """Of a model whose quality is asked."""
    stage = Stage(space, SCENARIO)
    stage.prepare(SCENARIO)
    asked = {"minAccuracy": "90%", "maxShift": "50%", "leaveOut": ["size_kb"]}
    policy(space, stage.name, {**asked, "keep": f"{KEEP_S:.0f}s"})
    address, account = gateway_address(space), poster(lasting, space, stage.name, "clients")
    with ask(address, magika.MODEL, TRUTH, stage.host) as one:
        yield Clients(stage, account, one)
    stage.close()


class TestThroughAGateway:
    """Steps, labels and samples of clients, alerts, what is kept, and the component's own end."""

    def test_what_is_not_known_is_held_and_what_is_bad_stays_out(self, clients: Clients) -> None:
        stage, space = clients.stage, clients.stage.space
        stage.change_to("wrong", next_seed())
        found = clients.until(
            lambda f: hold(f) == "WaitingForGates", "proven by its counters", posts=False
        )
        # No request failed; nobody has said yet how good the answers are.
        end = time.monotonic() + HELD_S
        while time.monotonic() < end:
            found = clients.until(lambda _: True, "", posts=False)
            assert said(found, "Accurate") == ("Unknown", "TooFewLabels")
            assert said(found, "Steady") == ("Unknown", "TooFewSamples")
            assert hold(found) == "WaitingForGates"
        wrong = canary(found)
        assert stable(found)["hash"] == stage.stable_hash
        assert set(clients.seen) == {wrong, stage.stable_hash}
        found = clients.until(
            lambda f: (
                said(f, "Accurate") == ("False", "TooManyWrong")
                and said(f, "Steady") == ("False", "Shifted")
            ),
            "shown to be bad",
        )
        assert (hold(found), canary(found)) == ("WaitingForGates", wrong)
        self._is_told(clients, wrong)
        self._has_alerts(clients, {"TidegateInaccurate": True, "TidegateDrift": True})
        assert hold(space.live(stage.name)) == "WaitingForGates"
        tidegate(space, "abort", stage.name)
        found = space.until(
            stage.name,
            lambda f: f["status"]["rollout"]["phase"] == "RolledBack" and not canary(f),
            "taken back",
        )
        assert stable(found)["hash"] == stage.stable_hash

    def _is_told(self, clients: Clients, wrong: str) -> None:
        stage = clients.stage
        shown = json.loads(tidegate(stage.space, "get", stage.name, "-o", "view"))["quality"]
        assert (shown["accurate"]["met"], shown["steady"]["met"]) == ("False", "False")
        assert shown["accurate"]["reason"] == "TooManyWrong"
        of = {line["revision"]: line for line in shown["revisions"]}
        assert of[wrong]["accuracy"].startswith("0.0% of ")
        assert of[stage.stable_hash]["accuracy"].startswith("100.0% of ")
        assert of[wrong]["shift"].startswith("label, ")
        found = json.loads(tidegate(stage.space, "get", stage.name, "-o", "json"))
        assert {line["revision"] for line in found["status"]["quality"]} == set(of)
        explained = json.loads(tidegate(stage.space, "explain", stage.name, "-o", "json"))
        assert explained["revision"] == wrong
        assert any(line.startswith("Accuracy: 0.0% of ") for line in explained["lines"])
        assert any("rollout.gates: Accurate" in line for line in explained["lines"])
        assert "0.0% of " in tidegate(stage.space, "get", stage.name)

    def _has_alerts(self, clients: Clients, expected: Mapping[str, bool]) -> None:
        """Prometheus gives the alerts' own queries an answer for this model, or none."""
        stage = clients.stage
        rules = {r["alert"]: r["expr"] for g in groups() for r in g["rules"] if "alert" in r}

        def fires(alert: str) -> bool:
            answer = prometheus.post("/api/v1/query", data={"query": rules[alert]}).json()
            about = [r["metric"] for r in answer["data"]["result"]]
            mine = {"namespace": stage.space.name, "modeldeployment": stage.name}
            return mine in about

        with httpx.Client(base_url=SETTINGS.prometheus_url, trust_env=False) as prometheus:
            wait_for(
                lambda: {alert: fires(alert) for alert in expected} == expected,
                f"alerts {dict(expected)}",
                timeout_seconds=READY_SECONDS,
                state=lambda: (
                    prometheus.get(
                        "/api/v1/query", params={"query": "tidegate_modeldeployment_condition"}
                    ).text
                ),
            )

    def test_what_is_good_goes_live(self, clients: Clients) -> None:
        stage = clients.stage
        uri = stage.change_to("same", next_seed())
        found = clients.until(lambda f: stable(f).get("source") == uri, "promoted", seconds=120)
        good = stable(found)["hash"]
        assert quality(found, good)["accuracy"].startswith("100.0% of ")
        assert good in clients.seen
        stage.stable_uri, stage.stable_hash = uri, good
        self._has_alerts(clients, {"TidegateInaccurate": False, "TidegateDrift": False})

    def test_drift_holds_and_a_restart_forgets_nothing(
        self, cluster: KubeClient, clients: Clients
    ) -> None:
        stage, space = clients.stage, clients.stage.space
        stage.change_to("same", next_seed())
        found = clients.until(lambda f: bool(canary(f)), "on trial", posts=False)
        odd = canary(found)
        clients.halved.add(odd)
        found = clients.until(
            lambda f: (
                said(f, "Accurate") == ("True", "Shown")
                and said(f, "Steady") == ("False", "Shifted")
                and hold(f) == "WaitingForGates"
            ),
            "right, but shifted",
        )
        assert condition(found, "Steady")["message"].startswith("score, below ")
        assert condition(found, "Accurate")["revision"] == odd
        self._has_alerts(clients, {"TidegateInaccurate": False, "TidegateDrift": True})

        # Killed, it takes nothing back: the True is of this revision. It goes on counting.
        labels = labels_of(space.live(stage.name), odd)
        assert labels >= 60
        [pod] = pods(cluster)
        kill(pod, NAME)
        wait_for(
            lambda: (
                [p["status"]["containerStatuses"][0]["restartCount"] for p in pods(cluster)] == [1]
                and self._is_ready(cluster)
            ),
            "it runs again",
            timeout_seconds=READY_SECONDS,
            state=lambda: log_of(cluster),
        )
        self._counts_on(clients, odd, labels)

        # Told to end, it takes the answer back; another pod begins with what this one kept.
        labels = labels_of(space.live(stage.name), odd)
        [pod] = pods(cluster)
        cluster.delete("v1", "Pod", pod["metadata"]["name"], addons.OPERATOR_NAMESPACE)
        space.until(
            stage.name,
            lambda f: said(f, "Accurate") == ("Unknown", "NotLookedAt"),
            "taken back",
        )
        space.until(stage.name, lambda f: said(f, "Accurate") == ("True", "Shown"), "known again")
        self._counts_on(clients, odd, labels)
        found = space.live(stage.name)
        assert (stable(found)["hash"], canary(found)) == (stage.stable_hash, odd)
        tidegate(space, "abort", stage.name)
        space.until(stage.name, lambda f: not canary(f), "taken back")

    def _is_ready(self, cluster: KubeClient) -> bool:
        return all(p["status"]["containerStatuses"][0]["ready"] for p in pods(cluster))

    def _counts_on(self, clients: Clients, revision: str, labels: int) -> None:
        """More labels are added to those from before."""
        clients.poster.taken("labels", {"revision": revision, "labels": 1000, "right": 1000})
        clients.stage.space.until(
            clients.stage.name,
            lambda f: labels_of(f, revision) >= labels + 1000,
            f"{labels} labels from before, and 1,000 more",
        )

    def test_what_is_kept(self, clients: Clients, folder: Path, cluster: KubeClient) -> None:
        stage, post = clients.stage, clients.poster
        sample = {"revision": stage.stable_hash, "id": "patient-7", "label": SECRET_CLASS}
        began = time.monotonic()
        post.taken("samples", {**sample, "values": {"score": 0.9, "size_kb": 31.25}})
        assert SECRET_CLASS.encode() in everything(folder)
        assert b"patient-7" not in everything(folder), "ids are kept as hashes"
        assert b"size_kb" not in everything(folder), "a field that is left out"
        assert fields(folder) == {"label", "score"}
        wait_for(
            lambda: SECRET_CLASS.encode() not in everything(folder),
            "gone",
            timeout_seconds=2 * KEEP_S + 15.0,
            interval_seconds=1.0,
        )
        assert time.monotonic() - began >= KEEP_S
        assert post.post("labels", {"id": "patient-7", "label": "x"})[1]["unknown"] == 1
        assert SECRET_CLASS not in log_of(cluster)
        refused = {"revision": stage.stable_hash, "values": {"note": SECRET_CLASS}}
        status, told = post.post("samples", refused)
        assert status == 422
        assert SECRET_CLASS not in json.dumps(told)
        assert SECRET_CLASS not in log_of(cluster)


def labels_of(found: Object, revision: str) -> int:
    """How many labels the text of a revision's accuracy tells."""
    text = quality(found, revision).get("accuracy", "0% of 0 ")
    return int(text.split(" of ")[1].split()[0].replace(",", ""))


def everything(folder: Path) -> bytes:
    """All that the component has on disc."""
    return b"".join(p.read_bytes() for p in sorted(folder.iterdir()))


def fields(folder: Path) -> set[str]:
    """Names of fields of which anything is kept."""
    with closing(sqlite3.connect(f"file:{folder / 'quality.db'}?mode=ro", uri=True)) as db:
        return {name for (name,) in db.execute("SELECT name FROM fields")}
