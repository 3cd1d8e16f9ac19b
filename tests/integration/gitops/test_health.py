"""What GitOps tools make of a ModelDeployment in every phase: Argo CD's script, and kstatus itself.

The script runs in the interpreter that Argo CD embeds (gopher-lua); kstatus is the Go library by
which Flux and `helm --wait` judge. The statuses are those that the plan writes.
"""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.progress import Progress
from tests.unit.rollout.world import Health, Quality, World
from tidegate.api.crd import UNSEEN
from tidegate.api.names import REQUEST_ANNOTATION
from tidegate.record import Phase
from tidegate.verbs import parse

pytestmark = pytest.mark.integration

ROOT: Final = Path(__file__).parents[3]
CONFIG: Final = ROOT / "docs" / "examples" / "gitops" / "argocd" / "argocd-cm.yaml"
Documents = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A ModelDeployment, and what it is taken for.

    Attributes:
        name: what happened to it.
        document: itself.
        argocd: Argo CD's health.
        kstatus: Flux's and Helm's status.
        actions: Argo CD's actions that may be run.
    """

    name: str
    document: dict[str, Any]
    argocd: str
    kstatus: str
    actions: frozenset[str] = frozenset()


def live() -> World:
    world = World()
    world.settle()
    return world


def trial(phase: Phase, **spec: Any) -> World:
    world = live()
    world.edit(**spec)
    world.version(2)
    world.until(lambda w: w.record.phase is phase)
    return world


def seen(world: World) -> dict[str, Any]:
    document = json.loads(json.dumps(world.deployment))
    document["metadata"]["resourceVersion"] = "4711"
    return dict(document)


@cache
def cases() -> Mapping[str, Case]:
    """By name."""
    on_trial = frozenset({"promote", "abort"})
    found = [
        Case("made this moment", {**seen(World()), "status": UNSEEN}, "Progressing", "InProgress"),
        Case("live", seen(live()), "Healthy", "Current"),
    ]
    new = World()
    new.tick()
    found.append(Case("being made", seen(new), "Progressing", "InProgress", on_trial))
    edited = live()
    edited.version(2)
    found.append(Case("edited, not looked at", seen(edited), "Progressing", "InProgress"))
    for phase in (Phase.PREPARING, Phase.MIRRORING, Phase.CANARY):
        world = trial(phase)
        found.append(Case(str(phase), seen(world), "Progressing", "InProgress", on_trial))
    verifying = trial(Phase.VERIFYING, goldenRequests={"configMapName": "golden"})
    found.append(Case("Verifying", seen(verifying), "Progressing", "InProgress", on_trial))
    baking = trial(Phase.BAKING)
    found.append(Case("Baking", seen(baking), "Healthy", "Current", frozenset({"abort"})))
    paused = trial(Phase.CANARY)
    paused.edit(rollout={"paused": True})
    paused.run(60)
    found.append(Case("paused", seen(paused), "Suspended", "InProgress", on_trial))
    bad = trial(Phase.CANARY)
    bad.quality[bad.record.canary] = Quality.BAD
    bad.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    retry = frozenset({"retry"})
    found.append(Case("rolled back", seen(bad), "Degraded", "Failed", retry))
    bad.run(300)
    found.append(Case("rolled back, applied again", seen(bad), "Degraded", "Failed", retry))
    bad.version(1)
    found.append(Case("reverted, not looked at", seen(bad), "Progressing", "InProgress", retry))
    bad.settle()
    found.append(Case("reverted", seen(bad), "Healthy", "Current"))
    crashing = live()
    crashing.version(2)
    crashing.tick()
    crashing.health[crashing.record.canary] = Health.NEVER_READY
    crashing.run(900)
    found.append(Case("never ready", seen(crashing), "Degraded", "Failed", retry))
    return {case.name: case for case in found}


def answers(program: Path, arguments: Sequence[str], documents: Documents) -> list[Any]:
    done = subprocess.run(
        [program, *arguments],
        input="".join(json.dumps(d) + "\n" for d in documents),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def kstatus() -> Callable[[Documents], list[Any]]:
    program = gobuild.build("kstatus", Progress())
    return lambda documents: answers(program, (), documents)


Lua = Callable[[str, Documents], list[Any]]


@pytest.fixture(scope="module")
def lua(tmp_path_factory: pytest.TempPathFactory) -> Lua:
    program = gobuild.build("argocd-lua", Progress())
    folder = tmp_path_factory.mktemp("lua")

    def run(script: str, documents: Documents) -> list[Any]:
        path = folder / "script.lua"
        path.write_text(script, encoding="utf-8")
        return answers(program, (str(path),), documents)

    return run


def config() -> dict[str, str]:
    data: dict[str, str] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["data"]
    return {name.split(".")[2]: text for name, text in data.items()}


def test_every_phase_is_here() -> None:
    phases = {
        (case.document["status"].get("rollout") or {}).get("phase") for case in cases().values()
    }
    assert {str(p) for p in Phase} - {str(Phase.SUPERSEDED)} <= phases


def test_argocd_health(lua: Lua) -> None:
    found = lua(config()["health"], [case.document for case in cases().values()])
    got = {case.name: f["status"] for case, f in zip(cases().values(), found, strict=True)}
    assert got == {case.name: case.argocd for case in cases().values()}
    told = {case.name: f["message"] for case, f in zip(cases().values(), found, strict=True)}
    assert all(told.values())
    assert "requests failed" in told["rolled back"]
    assert told["rolled back"].endswith("In git, revert the change that brought it.")


def test_argocd_actions(lua: Lua) -> None:
    actions = yaml.safe_load(config()["actions"])
    documents = [case.document for case in cases().values()]
    for case, found in zip(cases().values(), lua(actions["discovery.lua"], documents), strict=True):
        offered = {name for name, how in found.items() if not how["disabled"]}
        assert offered == case.actions, case.name
    for action in actions["definitions"]:
        changed = lua(action["action.lua"], [cases()["Canary"].document])[0]
        request = parse(changed["metadata"]["annotations"][REQUEST_ANNOTATION])
        assert request is not None
        assert (str(request.verb), request.revision) == (action["name"], "")
        assert request.user == "system:serviceaccount:argocd:argocd-server"
        assert "4711" in request.id
        assert changed["spec"]["replicas"] == cases()["Canary"].document["spec"]["replicas"]


def test_kstatus(kstatus: Callable[[Documents], list[Any]]) -> None:
    found = kstatus([case.document for case in cases().values()])
    got = {case.name: f["status"] for case, f in zip(cases().values(), found, strict=True)}
    assert got == {case.name: case.kstatus for case in cases().values()}
    told = {case.name: f["message"] for case, f in zip(cases().values(), found, strict=True)}
    assert "requests failed" in told["rolled back"]


def test_what_is_going_away_is_terminating(kstatus: Callable[[Documents], list[Any]]) -> None:
    document = cases()["live"].document
    metadata = {**document["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert kstatus([{**document, "metadata": metadata}])[0]["status"] == "Terminating"
