"""Flux's controllers and the operator on one ModelDeployment: from commits to traffic.

The example's GitRepository and Kustomization, with shorter times. The commits ask for a version, a
better one, and a bad one, and take the last back. Then golden requests leave the folder.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster.audit import AuditLog, by_kind
from e2e.cluster.flux import CONTROLLER, KUSTOMIZE, NAMESPACE, SOURCES, flux
from e2e.cluster.kube import Object, documents
from e2e.cluster.repository import Repository, repository
from tests.integration.gitops.conftest import (
    EXAMPLES,
    OPERATOR,
    Place,
    ask_for,
    config_map,
    golden_of,
    quick,
)
from tests.integration.gitops.conftest import NAMESPACE as NAMESPACE_OF_MODELS
from tidegate.api.names import KIND, STATUS_MANAGER
from tidegate.resources.route import shares_of

pytestmark = [pytest.mark.integration, pytest.mark.clouds]

INTERVAL_S: Final = 5.0
RETRIES: Final = 3
LOOKS: Final = {"interval": "2s"}
"""Of the GitRepository."""
SHORTER: Final = {"interval": f"{INTERVAL_S:.0f}s", "timeout": "2m"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A git repository with the examples."""
    with repository(tmp_path_factory.mktemp("git"), EXAMPLES) as found:
        quick(found.folder)
        yield found


@pytest.fixture(scope="module")
def log(
    place: Place, source: Repository, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Flux with the example's two objects; its log."""
    with flux(place.plane.kubeconfig, tmp_path_factory.mktemp("flux")) as found:
        text = (EXAMPLES / "flux" / "models.yaml").read_text(encoding="utf-8")
        repository_, kustomization = documents(text)
        repository_["spec"] |= LOOKS | {"url": source.url}
        kustomization["spec"] |= SHORTER
        place.kube.apply_all([repository_, kustomization])
        yield found


def kustomization(place: Place) -> Object:
    found = place.kube.get(KUSTOMIZE, "Kustomization", "models-production", NAMESPACE)
    assert found is not None
    return found


def ready(found: Object) -> dict[str, Any]:
    """Its condition Ready; empty: it has none, or one of another generation."""
    for condition in (found.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            result: dict[str, Any] = condition
            return result
    return {}


def settled(place: Place, commit: str, status: str) -> Object | None:
    """The Kustomization if that commit was applied and came to Ready=`status`."""
    found = kustomization(place)
    of_commit = (found.get("status") or {}).get("lastAttemptedRevision") == f"main@sha1:{commit}"
    return found if of_commit and ready(found).get("status") == status else None


def live(place: Place) -> str:
    """The source of the revision that gets all traffic, but for a canary's share."""
    status = place.status()
    baking = (status.get("rollout") or {}).get("phase") == "Baking"
    revision = (status.get("revisions") or {}).get("canary" if baking else "stable") or {}
    return str(revision.get("source"))


def owners(found: Object) -> dict[str, set[str]]:
    """By field manager, which of spec and status it owns something of."""
    owned: dict[str, set[str]] = {}
    for entry in found["metadata"]["managedFields"]:
        parts = {name.removeprefix("f:") for name in entry["fieldsV1"]} & {"spec", "status"}
        owned.setdefault(entry["manager"], set()).update(parts)
    return owned


def test_an_upgrade_a_rollback_and_a_revert(
    place: Place, source: Repository, log: Path, until: Callable[..., Any]
) -> None:
    first = ask_for(source.folder, 1)
    commit = source.commit("first version")
    until(lambda: settled(place, commit, "True"), "Flux is done with the first version")
    assert place.stable().get("source") == first, "Flux was done before the operator had looked"

    fetched = place.kube.get(SOURCES, "GitRepository", "models", NAMESPACE) or {}
    assert ready(fetched)["reason"] == "Succeeded"
    assert fetched["status"]["artifact"]["revision"] == f"main@sha1:{commit}"

    # Ready only when it has all of the traffic; the bake is not waited for.
    second = ask_for(source.folder, 2)
    commit = source.commit("second version")
    phases: list[tuple[str, str]] = []

    def done() -> bool:
        over = settled(place, commit, "True") is not None
        phases.append((live(place), "done" if over else "waiting"))
        return over

    until(done, "Flux is done with the second version")
    assert phases[-1] == (second, "done")
    assert (first, "waiting") in phases
    until(lambda: place.stable()["source"] == second, "it is stable after its bake")
    stable = place.stable()["hash"]

    bad = ask_for(source.folder, 3)
    place.data.bad = frozenset({bad})
    third = source.commit("third version")
    found = until(lambda: settled(place, third, "False"), "Flux says that the third failed")
    assert ready(found)["reason"] == "HealthCheckFailed"
    assert f"{KIND}/models/detector" in ready(found)["message"]
    assert place.stable()["source"] == second
    (failed, *_) = place.status()["revisions"]["failed"]

    # Flux applies it again and again; the failed version stays out, and nobody writes anything.
    until(lambda: place.data.answered.get(failed["hash"]), "it had answered")
    time.sleep(2.0)
    audit = AuditLog(place.plane.audit_log)
    before, answered = place.live(), dict(place.data.answered)
    reconciled = log.read_text().count("server-side apply")
    until(
        lambda: log.read_text().count("server-side apply") >= reconciled + RETRIES,
        f"{RETRIES} more applications",
        seconds=(RETRIES + 6) * INTERVAL_S,
    )
    writes = [w for w in audit.writes() if not w.dry_run]
    to_model = [w for w in writes if w.resource.startswith("modeldeployments")]
    by_operator = [w for w in writes if OPERATOR in w.user and w.resource != "leases"]
    assert by_kind([*to_model, *by_operator]) == {}
    dry = [w for w in audit.writes(user_agent=CONTROLLER) if w.dry_run]
    assert any(w.resource == "modeldeployments" for w in dry), "Flux has not even looked"
    assert place.live() == before
    assert place.data.answered[failed["hash"]] == answered[failed["hash"]], "traffic to it"
    assert place.data.answered[stable] > answered[stable]
    (route,) = place.kube.list("gateway.networking.k8s.io/v1", "HTTPRoute", "models")
    assert shares_of(route) == {f"detector-{stable}": 1.0}
    assert owners(before) == {CONTROLLER: {"spec"}, STATUS_MANAGER: {"status"}}

    # The revert asks for what serves: nothing is rolled out, and all is well.
    commit = source.revert(third)
    until(lambda: settled(place, commit, "True"), "Flux is done with the revert")
    assert place.stable()["hash"] == stable
    assert place.live()["spec"]["model"]["source"]["uri"] == second


def hold(source: Repository, extra: Object, *golden_requests: Object) -> str:
    """Commit a folder with these beside the model, and no others; returns the commit."""
    folder = source.folder / "overlays" / "production"
    path = folder / "kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
    (folder / "beside.yaml").write_text(
        yaml.safe_dump_all([extra, *golden_requests]), encoding="utf-8"
    )
    kustomization["resources"] = ["../../base", "beside.yaml"]
    path.write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return source.commit("what is held beside the model")


def test_known_answers_of_before_outlive_the_folder_and_the_rest_is_pruned(
    place: Place, source: Repository, log: Path, until: Callable[..., Any]
) -> None:
    def there() -> set[str]:
        found = place.kube.list("v1", "ConfigMap", NAMESPACE_OF_MODELS)
        return {item["metadata"]["name"] for item in found} & expected

    old, new = golden_of(1.0), golden_of(2.0)
    names = [item["metadata"]["name"] for item in (old, new)]
    expected = {"notes", "more-notes", *names}
    commit = hold(source, config_map("notes"), old)
    until(lambda: settled(place, commit, "True"), "Flux is done with the first")
    assert there() == {"notes", names[0]}
    audit = AuditLog(place.plane.audit_log)

    # The folder holds the newest golden requests only, as one that a preparation writes.
    commit = hold(source, config_map("more-notes"), new)
    until(lambda: settled(place, commit, "True"), "Flux is done with the second")
    until(lambda: "notes" not in there(), "what has no such annotation is pruned")
    assert there() == {"more-notes", *names}
    # Of what the model became nothing is Flux's: it deleted the one thing that left the folder.
    deleted = [w for w in audit.writes(user_agent=CONTROLLER) if w.verb.startswith("delete")]
    assert [(w.resource, w.name) for w in deleted] == [("configmaps", "notes")]

    # With the Kustomization goes the model, and still no golden request.
    place.kube.delete(KUSTOMIZE, "Kustomization", "models-production", NAMESPACE)
    until(lambda: not place.live(), "the model is pruned")
    until(lambda: "more-notes" not in there(), "so is the rest")
    assert there() == set(names)
