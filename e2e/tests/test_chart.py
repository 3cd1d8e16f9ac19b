"""The chart's life in a real cluster: upgrades, rollbacks, scopes, removal. No model notices."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from e2e.cluster import addons
from e2e.cluster.installation import operator_pods
from e2e.cluster.kube import KubeClient, wait_for
from e2e.cluster.progress import Progress
from e2e.load import Load, Orders
from e2e.tests.load import ask_http, await_answer
from e2e.tests.space import SETTINGS, Space, condition, is_current, model_deployment
from tidegate.api.crd import UNSEEN

NAME: Final = "magika"
RELEASE: Final = "tidegate"
PYTHON_TEXT: Final = (
    "import os\nimport sys\n\n\ndef main() -> None:\n    print(os.getcwd(), sys.argv)\n" * 4
)

BASE: Final[dict[str, Any]] = {"fetch": {"allowPrivateAddresses": [f"{SETTINGS.s3_address}/32"]}}
"""What every installation here needs: the S3 server has an address of this cluster."""

CHANGED: Final[dict[str, Any]] = {
    **BASE,
    "images": {
        "triton": {"tag": "99.99-none"},
        "envoy": {"tag": "v99.99.0"},
        "fetch": {"tag": "99.99.99"},
    },
    "drain": {"preStopSeconds": 20, "exitTimeoutSeconds": 60},
    "gpuToleration": False,
    "profiles": {"new": {"nodeSelector": {"no": "such"}, "env": [{"name": "A", "value": "1"}]}},
    "defaultProfile": "new",
    "metrics": {"namespaces": ["elsewhere"]},
    "log": {"level": "debug"},
    "commonLabels": {"team": "ml"},
}
"""As different as an upgrade can be: no pod that were born with these could start."""


class Release:
    """The chart's release, by a real Helm.

    Args:
        folder: for the files with values.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def helm(self, *arguments: str) -> str:
        """Run Helm in the operator's namespace; what it printed."""
        command = [*arguments, "--namespace", addons.OPERATOR_NAMESPACE]
        return addons.helm(SETTINGS, Progress(), command)

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Install or upgrade with exactly these values."""
        path = self._folder / f"values-{time.monotonic_ns()}.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        self.helm(
            *("upgrade", "--install", RELEASE, str(addons.CHART), "--create-namespace"),
            *("--reset-values", "--values", str(path), "--wait", "--timeout", "180s"),
        )


@pytest.fixture(scope="module")
def release(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    found = Release(tmp_path_factory.mktemp("helm"))
    found.upgrade(BASE)
    yield found
    found.upgrade(BASE)


@pytest.fixture(scope="module")
def served(space: Space, release: Release, magika: dict[str, str]) -> Space:
    """A namespace in which a Magika serves."""
    space.apply(model_deployment(NAME, magika["v3"]))
    space.ready(NAME)
    await_answer(
        lambda: ask_http(space.address(NAME), NAME, PYTHON_TEXT),
        "a first answer",
        lambda: space.told(NAME),
    )
    return space


def load(served: Space) -> Load:
    return Load(Orders(served.address(NAME), served.grpc_address(NAME), NAME, PYTHON_TEXT))


def uids(served: Space) -> dict[tuple[str, str], str]:
    """UID of everything that the ModelDeployment became."""
    return {key: item["metadata"]["uid"] for key, item in served.owned(NAME).items()}


def operators(kube: KubeClient) -> set[str]:
    return {pod["metadata"]["uid"] for pod in operator_pods(kube)}


def await_outdated(served: Space, status: str) -> None:
    """Wait until an operator with the new settings has looked at the model."""
    served.until(
        NAME,
        lambda found: condition(found, "RuntimeOutdated").get("status") == status,
        f"RuntimeOutdated={status}",
    )


def test_upgrade_and_rollback_restart_no_model_pod(
    cluster: KubeClient, release: Release, served: Space
) -> None:
    pods, owned, before = served.restarts(NAME), uids(served), operators(cluster)
    assert len(pods) == 1
    await_outdated(served, "False")
    with load(served) as requests:
        release.upgrade(CHANGED)
        await_outdated(served, "True")
        upgraded = operators(cluster)
        assert (served.restarts(NAME), uids(served)) == (pods, owned)
        assert not upgraded & before

        release.helm("rollback", RELEASE, "--wait", "--timeout", "180s")
        await_outdated(served, "False")
        assert (served.restarts(NAME), uids(served)) == (pods, owned)
        assert not upgraded & operators(cluster)
        requests.await_more()
    requests.assert_no_failure()
    served.ready(NAME)


def test_helm_test_sends_a_real_inference(release: Release, served: Space) -> None:
    tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [PYTHON_TEXT]}
    asked = {
        "enabled": True,
        "url": f"http://{NAME}.{served.name}.svc:8000",
        "model": NAME,
        "request": {"inputs": [tensor]},
        "expect": {"label": ["python"]},
    }
    release.upgrade({**BASE, "tests": {"inference": asked}})
    told = release.helm("test", RELEASE, "--logs", "--timeout", "120s")
    assert "magika answered in" in told
    assert '"label": ["python"]' in told
    assert told.count("ok  ") == 4

    wrong = {**asked, "expect": {"label": ["cobol"]}, "timeoutSeconds": 1}
    release.upgrade({**BASE, "tests": {"inference": wrong}})
    with pytest.raises(addons.HelmFailed):
        release.helm("test", RELEASE, "--timeout", "120s")
    release.upgrade(BASE)


def test_role_mode_serves_the_named_namespaces_and_no_other(
    cluster: KubeClient, release: Release, served: Space, spaces: list[Space]
) -> None:
    other = Space(cluster, f"{served.name}-unserved")
    other.create()
    spaces.append(other)
    pods, owned = served.restarts(NAME), uids(served)
    release.upgrade({**BASE, "watchNamespaces": [served.name]})
    rbac = "rbac.authorization.k8s.io/v1"
    assert cluster.get(rbac, "ClusterRole", "tidegate-operator") is None
    other.apply(model_deployment(NAME, "s3://e2e/none"))
    served.patch(NAME, {"historyLimit": 5})
    served.until(NAME, is_current, "looked at")
    # Its Service was deleted and is put back: with a Role alone, the operator can write.
    cluster.delete("v1", "Service", NAME, served.name)
    wait_for(
        lambda: served.get("v1", "Service", NAME),
        "the Service is back",
        timeout_seconds=60,
        state=lambda: served.told(NAME),
    )
    assert other.live(NAME)["status"] == UNSEEN
    assert served.restarts(NAME) == pods
    assert {k: u for k, u in uids(served).items() if k[0] in ("Pod", "Deployment")} == {
        k: u for k, u in owned.items() if k[0] in ("Pod", "Deployment")
    }

    release.upgrade(BASE)
    other.not_ready(NAME, "SourceNotFound")
    other.delete()


def test_uninstalling_leaves_models_serving(
    cluster: KubeClient, release: Release, served: Space
) -> None:
    pods, owned = served.restarts(NAME), uids(served)
    with load(served) as requests:
        release.helm("uninstall", RELEASE, "--wait", "--timeout", "180s")
        wait_for(lambda: not operators(cluster), "no operator", timeout_seconds=60)
        crd = "modeldeployments.tidegate.dev"
        assert cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", crd) is not None
        assert (served.restarts(NAME), uids(served)) == (pods, owned)

        release.upgrade(BASE)
        served.patch(NAME, {"historyLimit": 7})
        served.ready(NAME)
        assert (served.restarts(NAME), uids(served)) == (pods, owned)
        requests.await_more()
    requests.assert_no_failure()
