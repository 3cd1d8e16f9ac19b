"""Children are nobody's but their ModelDeployment's; the examples of repositories are whole."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.architecture.test_tree import ROOT
from tests.unit.rollout.world import World
from tidegate.actions import Apply
from tidegate.api.admission import VERBS
from tidegate.api.names import API_VERSION, KIND
from tidegate.api.spec import parse

GITOPS = ROOT / "docs" / "examples" / "gitops"
TRACKING = {
    "labels": {
        "app.kubernetes.io/instance": "argocd-application",
        "argocd.argoproj.io/instance": "argocd-application",
        "kustomize.toolkit.fluxcd.io/name": "flux-kustomization",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        "helm.toolkit.fluxcd.io/name": "flux-release",
    },
    "annotations": {
        "argocd.argoproj.io/tracking-id": "argocd-application:tidegate.dev/ModelDeployment:demo/d",
        "meta.helm.sh/release-name": "helm-release",
    },
}
MARKS = ("argocd-application", "flux-", "helm-release")


class Tracked(World):
    """A ModelDeployment that a GitOps tool has put its marks on."""

    @property
    def deployment(self) -> dict[str, Any]:
        found = super().deployment
        annotations = {**TRACKING["annotations"], **self.annotations}
        found["metadata"] |= {"labels": TRACKING["labels"], "annotations": annotations}
        return found


def test_children_inherit_no_marks_and_are_owned() -> None:
    world = Tracked()
    world.settle()
    world.version(2)
    world.settle()
    applied = [a for a in world.log if isinstance(a, Apply)]
    assert {a.ref.kind for a in applied} >= {"Deployment", "Service", "HTTPRoute", "ConfigMap"}
    for action in applied:
        text = yaml.safe_dump(action.manifest)
        assert [m for m in MARKS if m in text] == [], action.ref
        # By this Argo CD sees that it is no object of its own, whatever its labels are.
        (owner,) = action.manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["controller"]) == (KIND, True)


def built(folder: Path) -> list[dict[str, Any]]:
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize(
    ("overlay", "namespace", "uri"),
    [
        ("staging", "models-staging", "s3://models/detector/v2"),
        ("production", "models", "s3://models/detector/v1"),
    ],
)
def test_each_overlay_is_a_model_deployment(overlay: str, namespace: str, uri: str) -> None:
    (found,) = built(GITOPS / "overlays" / overlay)
    assert (found["apiVersion"], found["kind"]) == (API_VERSION, KIND)
    assert found["metadata"]["namespace"] == namespace
    spec = parse(found["spec"])
    assert spec.model.source.uri == uri
    assert (spec.traffic.gateway is not None) == (overlay == "production")


def test_the_examples_name_each_other_rightly() -> None:
    flux = list(yaml.safe_load_all((GITOPS / "flux" / "models.yaml").read_text(encoding="utf-8")))
    assert (GITOPS / flux[1]["spec"]["path"] / "kustomization.yaml").is_file()
    assert flux[1]["spec"]["sourceRef"]["name"] == flux[0]["metadata"]["name"]
    assert flux[1]["spec"]["wait"] is True
    argocd = yaml.safe_load((GITOPS / "argocd" / "application.yaml").read_text(encoding="utf-8"))
    assert (GITOPS / argocd["spec"]["source"]["path"] / "kustomization.yaml").is_file()
    role, _ = yaml.safe_load_all((GITOPS / "argocd" / "rbac.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load((GITOPS / "argocd" / "argocd-cm.yaml").read_text(encoding="utf-8"))
    key = f"resource.customizations.actions.tidegate.dev_{KIND}"
    actions = {d["name"] for d in yaml.safe_load(config["data"][key])["definitions"]}
    assert actions <= set(VERBS)
    assert set(role["rules"][0]["verbs"]) == actions | {"get", "patch"}
