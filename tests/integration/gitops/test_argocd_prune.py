"""What Argo CD's own engine prunes: what left the folder, but for golden requests.

The engine, without Argo CD around it, as the agent that its module comes with (v0.7.3): it applies
a folder of a git repository each second, and removes what is not there any more.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.audit import AuditLog
from e2e.cluster.kube import Object
from e2e.cluster.processes import require_running, spawn
from e2e.cluster.progress import Progress
from e2e.cluster.repository import git
from e2e.ports import free_ports
from tests.integration.gitops.conftest import (
    EXAMPLES,
    NAMESPACE,
    Place,
    config_map,
    golden_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.clouds]

AGENT: Final = "gitops-agent"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("git")
    git(found, "init", "--quiet", "--initial-branch=main")
    return found


def hold(work: Path, *objects: Object) -> None:
    """Commit a folder with these and no others."""
    # The agent asks for the namespace; Argo CD itself fills it in.
    placed = [one | {"metadata": one["metadata"] | {"namespace": NAMESPACE}} for one in objects]
    (work / "held.yaml").write_text(yaml.safe_dump_all(placed), encoding="utf-8")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "what is held")


@pytest.fixture(scope="module")
def agent(place: Place, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Watching the folder, which holds nothing yet; its log."""
    hold(work)
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("agent")
    log = folder / "agent.log"
    options = ("--resync-seconds=1", f"--port={port}", f"--default-namespace={NAMESPACE}")
    process = spawn(
        AGENT,
        [
            gobuild.build(AGENT, Progress()),
            work,
            *(f"--kubeconfig={place.plane.kubeconfig}", f"--namespace={NAMESPACE}"),
            *("--namespaced", *options),
        ],
        owner=str(folder),
        log=log,
        die_with_parent=True,
    )
    try:
        yield log
        require_running(process, AGENT, log)
    finally:
        process.kill()
        process.wait()


def test_known_answers_of_before_outlive_the_folder_and_the_rest_is_pruned(
    place: Place, work: Path, agent: Path, until: Callable[..., Any]
) -> None:
    old, new = golden_of(1.0), golden_of(2.0)
    names = {item["metadata"]["name"] for item in (old, new)}

    def there() -> set[str]:
        found = place.kube.list("v1", "ConfigMap", NAMESPACE)
        return {item["metadata"]["name"] for item in found} & {"notes", "more-notes", *names}

    text = (EXAMPLES / "base" / "modeldeployment.yaml").read_text(encoding="utf-8")
    model = yaml.safe_load(text)
    hold(work, model, config_map("notes"), old)
    until(lambda: len(there()) == 2 and place.stable().get("source"), "the first is applied")
    audit = AuditLog(place.plane.audit_log)

    hold(work, model, config_map("more-notes"), new)
    until(lambda: "notes" not in there(), "what has no such annotation is pruned")
    until(lambda: there() == {"more-notes", *names}, "the newest is there, and the one before")
    deleted = [w for w in audit.writes(user_agent=AGENT) if w.verb.startswith("delete")]
    assert [(w.resource, w.name) for w in deleted] == [("configmaps", "notes")]

    hold(work)
    until(lambda: not place.live(), "the model is pruned")
    until(lambda: "more-notes" not in there(), "so is the rest")
    assert there() == names
    assert "ignored (no prune)" in agent.read_text(encoding="utf-8")
