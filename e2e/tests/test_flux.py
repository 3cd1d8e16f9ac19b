"""Flux beside real pods: its controllers fetch commits, apply them and judge by kstatus.

Under load through the gateway: a good version, a bad one that is rolled back and applied again and
again, and the revert of its commit.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from e2e.cluster.flux import KUSTOMIZE, NAMESPACE, SOURCES, flux
from e2e.cluster.kube import Object, wait_for
from e2e.cluster.repository import Repository, repository
from e2e.load import Load, Orders
from e2e.models.magika import build as magika
from e2e.rollouts.scenarios import BY_NAME
from e2e.rollouts.stage import LABEL, TEXT, Stage, artefact, gateway_address
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import API, KIND, READY_SECONDS, SETTINGS, Space, stable

NAME: Final = "models"
MODEL: Final = "by-flux"
INTERVAL_S: Final = 5.0
RETRIES: Final = 3
RATE_HZ: Final = 50.0


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Repository]:
    content = tmp_path / "content"
    content.mkdir()
    kustomization = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    text = yaml.safe_dump({**kustomization, "resources": ["model.yaml"]})
    (content / "kustomization.yaml").write_text(text)
    with repository(tmp_path, content) as found:
        yield found


@pytest.fixture
def log(space: Space, source: Repository, tmp_path: Path) -> Iterator[Path]:
    """Flux watching the repository; in the end what it applied is pruned, and it is gone."""
    meta = {"name": NAME, "namespace": NAMESPACE}
    objects: list[Object] = [
        {
            "apiVersion": SOURCES,
            "kind": "GitRepository",
            "metadata": meta,
            "spec": {"interval": "2s", "url": source.url, "ref": {"branch": "main"}},
        },
        {
            "apiVersion": KUSTOMIZE,
            "kind": "Kustomization",
            "metadata": meta,
            "spec": {
                "interval": f"{INTERVAL_S:.0f}s",
                "sourceRef": {"kind": "GitRepository", "name": NAME},
                "path": "./",
                "targetNamespace": space.name,
                "prune": True,
                "wait": True,
                "timeout": "5m",
            },
        },
    ]
    kube = space.kube
    with flux(SETTINGS.kubeconfig, tmp_path / "flux") as found:
        kube.apply_all(objects)
        yield found
        kube.delete(KUSTOMIZE, "Kustomization", NAME, NAMESPACE)
        wait_for(
            lambda: kube.get(KUSTOMIZE, "Kustomization", NAME, NAMESPACE) is None,
            "Flux has pruned",
            timeout_seconds=READY_SECONDS,
        )
        assert space.get(API, KIND, MODEL) is None
    kube.delete("v1", "Namespace", NAMESPACE)
    for item in kube.list("apiextensions.k8s.io/v1", "CustomResourceDefinition"):
        if item["spec"]["group"].endswith("toolkit.fluxcd.io"):
            path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            kube.request("DELETE", f"{path}/{item['metadata']['name']}")


def commit(stage: Stage, source: Repository, uri: str) -> str:
    """Ask for a version in git."""
    model = {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {"name": MODEL},
        "spec": stage.spec(uri, canary=False),
    }
    (source.folder / "model.yaml").write_text(yaml.safe_dump(model))
    return source.commit(uri)


def flux_is(space: Space, done: str, status: str) -> None:
    """Wait until Flux is done with that commit, Ready=`status`."""

    def probe() -> bool:
        found = (space.kube.get(KUSTOMIZE, "Kustomization", NAME, NAMESPACE) or {}).get("status")
        found = found or {}
        if found.get("lastAttemptedRevision") != f"main@sha1:{done}":
            return False
        return any(c["type"] == "Ready" and c["status"] == status for c in found["conditions"])

    wait_for(
        probe,
        f"Flux: Ready={status} of {done}",
        timeout_seconds=2 * READY_SECONDS,
        state=lambda: space.told(MODEL),
    )


@pytest.mark.slow
def test_an_upgrade_a_rollback_and_a_revert(space: Space, source: Repository, log: Path) -> None:
    stage = Stage(space, BY_NAME["fails-all"], name=MODEL)
    seed = int(time.time()) % 1_000_000_000
    first, second, bad = artefact("plain", 0), artefact("same", seed), artefact("fails-all", seed)
    flux_is(space, commit(stage, source, first), "True")
    assert stable(space.live(MODEL))["source"] == first
    address = gateway_address(space)
    await_answer(
        lambda: ask_http(address, magika.MODEL, TEXT, stage.host),
        f"{stage.host} through the gateway",
        lambda: space.told(MODEL),
    )
    orders = Orders(
        *(address, address, magika.MODEL, TEXT),
        rate_hz=RATE_HZ / 2,
        host=stage.host,
        expected=LABEL,
        connections=0,
        limit_s=600.0,
    )
    with Load(orders) as load:
        load.await_more(25)
        flux_is(space, commit(stage, source, second), "True")
        phase = space.live(MODEL)["status"]["rollout"]["phase"]
        assert phase in ("Baking", "Promoted"), "Flux was done before all traffic had moved"
        baked = space.until(MODEL, lambda f: stable(f)["source"] == second, "it is stable")
        serves = stable(baked)

        third = commit(stage, source, bad)
        flux_is(space, third, "False")
        assert stable(space.live(MODEL)) == serves
        time.sleep(2.0)
        settled, before = time.time() - load.began, space.live(MODEL)
        applied = log.read_text().count("server-side apply")
        wait_for(
            lambda: log.read_text().count("server-side apply") >= applied + RETRIES,
            f"{RETRIES} more applications",
            timeout_seconds=(RETRIES + 6) * INTERVAL_S,
        )
        # The operator may still say in status how the failed version's pods go; nothing else.
        after = space.live(MODEL)
        assert after["spec"] == before["spec"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["status"]["revisions"] == before["status"]["revisions"]
        assert after["status"]["rollout"]["phase"] == "RolledBack"
        reverted = time.time() - load.began
        flux_is(space, source.revert(third), "True")
        assert stable(space.live(MODEL)) == serves
        load.await_more(25)
    failed = [r for r in load.requests if r.error]
    assert failed, "the bad version had no traffic at all"
    late = [r for r in failed if r.end_s > settled]
    assert not late, f"{len(late)} failed while it was applied again, until {reverted:.0f} s"
