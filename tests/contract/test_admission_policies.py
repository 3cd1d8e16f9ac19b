"""The ValidatingAdmissionPolicies on a real API server, seen by users with different rights.

*ada* owns the namespace's pods, *bo* may edit ModelDeployments and read what is given to him one by
one, *cy* may edit ModelDeployments and nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import pytest

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start_control_plane
from e2e.cluster.kube import KubeClient, KubeError, wait_for
from tests.contract.manifests import manifest, overlay
from tidegate.api import admission, crd, names

pytestmark = pytest.mark.contract

NAMESPACE = "policies"
PREFIX = "test"
COLLECTION = f"/apis/tidegate.dev/v1alpha1/namespaces/{NAMESPACE}/modeldeployments"

EDIT = {
    "apiGroups": [names.GROUP],
    "resources": [names.PLURAL],
    "verbs": ["get", "create", "update", "patch", "delete"],
}


def rule(verb: str, resource: str, *only: str, group: str = "") -> dict[str, Any]:
    names_only = {"resourceNames": list(only)} if only else {}
    return {"apiGroups": [group], "resources": [resource], "verbs": [verb], **names_only}


RIGHTS: dict[str, list[dict[str, Any]]] = {
    "ada": [
        EDIT,
        rule("create", "pods"),
        *(rule(v, names.PLURAL, group=names.GROUP) for v in admission.VERBS),
    ],
    "bo": [
        EDIT,
        rule("get", "secrets", "bos-secret"),
        rule("get", "configmaps", "bos-golden"),
        rule("get", "persistentvolumeclaims", "bos-claim"),
        rule("retry", names.PLURAL, "m", group=names.GROUP),
    ],
    "cy": [EDIT],
}


def role(user: str) -> list[dict[str, Any]]:
    meta = {"name": user, "namespace": NAMESPACE}
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": RIGHTS[user]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": user},
            "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
        },
    ]


LISTS = {
    "allowed_images": ("nvidia/tritonserver", "registry.example.com/team/", "lab/triton:24.*"),
    "allowed_sources": (
        "s3://models",
        "s3://shared/prod/",
        "pvc://",
        "https://*.example.com",
        "https://files.example.org/models",
        "hf://google/magika",
        "oci://registry.example.com/models/magika",
        "http://store.svc:8333",
    ),
    "allowed_service_accounts": ("reader",),
}


Users = dict[str, KubeClient]


def platform(**lists: tuple[str, ...]) -> dict[str, Any]:
    """The policy with the platform's lists."""
    return admission.platform_policy(f"{PREFIX}-platform", **lists)


@pytest.fixture(scope="module")
def users(kube: KubeClient, control_plane: ControlPlane) -> Iterator[Users]:
    """Clients of ada, bo and cy, with the policies in force in one namespace."""
    kube.apply_all(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            crd.crd(),
            *(document for user in RIGHTS for document in role(user)),
        ]
    )
    policies = admission.objects(PREFIX, watch_namespaces=(NAMESPACE,), **LISTS)
    kube.apply_all(policies)
    with ExitStack() as stack:
        found = {
            user: stack.enter_context(KubeClient(control_plane.kubeconfig_for(user, [])))
            for user in RIGHTS
        }
        # Policies and rights take effect some moments after they are written.
        wait_for(
            lambda: refusals_of_all_policies(found["cy"]),
            "policies in force",
            timeout_seconds=60,
        )
        wait_for(
            lambda: dry_run(found["ada"], {"model.source.secretName": "any"}) is None,
            "rights in force",
            timeout_seconds=60,
        )
        yield found
    for document in reversed(policies):
        name = document["metadata"]["name"]
        kube.delete(document["apiVersion"], document["kind"], name, NAMESPACE)


def refusals_of_all_policies(cy: KubeClient) -> bool:
    probes: tuple[dict[str, Any], ...] = (
        {"model.source.secretName": "any"},
        {"runtime.serviceAccountName": "root"},
        {"metadata.annotations": {names.REQUEST_ANNOTATION: "nonsense"}},
    )
    return all(
        f"'{PREFIX}-{policy}'" in (dry_run(cy, probe) or "")
        for probe, policy in zip(probes, ("references", "platform", "requests"), strict=True)
    )


def dry_run(user: KubeClient, change: dict[str, Any], name: str = "m") -> str | None:
    """What the user reads when creating this; None if it is accepted."""
    try:
        user.request(
            "POST", COLLECTION, body=overlay(manifest(name), change), params={"dryRun": "All"}
        )
    except KubeError as error:
        return error.message
    return None


def denied(policy: str, message: str, name: str = "m") -> str:
    return (
        f'modeldeployments.tidegate.dev "{name}" is forbidden: ValidatingAdmissionPolicy '
        f"'{PREFIX}-{policy}' with binding '{PREFIX}-{policy}' denied request: {message}"
    )


REFERENCES: dict[str, tuple[dict[str, Any], str, str]] = {
    "secret": (
        {"model.source.secretName": "bos-secret"},
        "spec.model.source.secretName",
        "Secret bos-secret",
    ),
    "pull secret": (
        {"runtime.imagePullSecrets": ["bos-secret"]},
        "spec.runtime.imagePullSecrets[0]",
        "Secret bos-secret",
    ),
    "claim as source": (
        {"model.source.uri": "pvc://bos-claim/magika"},
        "spec.model.source.uri",
        "PersistentVolumeClaim bos-claim",
    ),
    "claim as cache": (
        {"runtime.cache": {"claimName": "bos-claim"}},
        "spec.runtime.cache.claimName",
        "PersistentVolumeClaim bos-claim",
    ),
    "golden requests": (
        {"goldenRequests": {"configMapName": "bos-golden"}},
        "spec.goldenRequests.configMapName",
        "ConfigMap bos-golden",
    ),
}


class TestReferences:
    @pytest.mark.parametrize(
        ("change", "field", "what"), REFERENCES.values(), ids=REFERENCES.keys()
    )
    def test_only_who_may_read_it_may_name_it(
        self, users: Users, change: dict[str, Any], field: str, what: str
    ) -> None:
        kind = what.split()[0]
        assert dry_run(users["ada"], change) is None, "may create pods, which could mount it"
        assert dry_run(users["bo"], change) is None, "may get that very object"
        assert dry_run(users["cy"], change) == denied(
            "references",
            f"{field}: cy may not use {what}, being allowed neither to get it nor to create pods "
            f"in {NAMESPACE}; ask for one of these rights, or name a {kind} that you may get",
        )

    def test_a_right_to_one_secret_is_none_to_another(self, users: Users) -> None:
        refused = dry_run(users["bo"], {"runtime.imagePullSecrets": ["bos-secret", "other"]})
        assert refused is not None
        assert "spec.runtime.imagePullSecrets[1]: bo may not use Secret other" in refused

    def test_all_references_at_once(self, users: Users) -> None:
        """The authorizer checks of one request stay within the API server's budget."""
        every: dict[str, Any] = {"runtime.imagePullSecrets": ["bos-secret", "bos-secret-2"]}
        for change, _, _ in REFERENCES.values():
            every = {**change, **every}
        every["model.source.uri"] = "pvc://bos-claim/magika"
        del every["model.source.secretName"]
        assert dry_run(users["ada"], every) is None
        assert dry_run(users["bo"], {**every, "runtime.imagePullSecrets": ["bos-secret"]}) is None

    def test_no_reference_needs_no_right(self, users: Users) -> None:
        assert dry_run(users["cy"], {}) is None


@pytest.fixture
def adas(users: Users) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Makes a ModelDeployment *m* as ada, who may name everything."""

    def create(change: dict[str, Any]) -> dict[str, Any]:
        return users["ada"].request("POST", COLLECTION, body=overlay(manifest("m"), change))

    yield create
    users["ada"].delete(names.API_VERSION, names.KIND, "m", NAMESPACE)


def edit(user: KubeClient, change: dict[str, Any]) -> str | None:
    """What the user reads when changing *m* this way; None if it is accepted."""
    path = f"{COLLECTION}/m"
    body = overlay(user.request("GET", path), change)
    try:
        user.request("PUT", path, body=body, params={"dryRun": "All"})
    except KubeError as error:
        return error.message
    return None


class TestChanges:
    """Only new or changed references are asked about."""

    SECRET: ClassVar[dict[str, Any]] = {"model.source.secretName": "adas-secret"}

    def test_the_rest_may_be_changed_by_anyone(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        adas(
            {
                **self.SECRET,
                "runtime.imagePullSecrets": ["a", "b"],
                "runtime.cache": {"claimName": "c"},
                "goldenRequests": {"configMapName": "g"},
                "runtime.serviceAccountName": "reader",
                "runtime.image": "nvidia/tritonserver:24.10-py3",
            }
        )
        assert edit(users["cy"], {"historyLimit": 3}) is None
        assert edit(users["cy"], {"model.source.uri": "s3://models/magika/v4"}) is None
        assert edit(users["cy"], {"runtime.imagePullSecrets": ["b"]}) is None
        assert edit(users["cy"], {"model.source.secretName": None}) is None

    @pytest.mark.parametrize(
        "change",
        [
            {"model.source.secretName": "another"},
            {"model.source.uri": "https://mine.example.com/collect"},
            {"model.source.endpoint": "http://store.svc:8333"},
        ],
        ids=["another secret", "its credentials to another server", "to another store"],
    )
    def test_credentials_do_not_change_hands(
        self,
        users: Users,
        adas: Callable[[dict[str, Any]], dict[str, Any]],
        change: dict[str, Any],
    ) -> None:
        adas(self.SECRET)
        refused = edit(users["cy"], change)
        assert refused is not None
        assert "spec.model.source.secretName: cy may not use Secret" in refused
        assert edit(users["ada"], change) is None

    def test_an_object_from_before_a_list_was_tightened_may_be_scaled(
        self, kube: KubeClient, users: Users
    ) -> None:
        # Elsewhere the policies do not hold; here such an object is made by deleting nothing but
        # what the list says of new ones.
        body = overlay(manifest("old"), {"runtime.image": "nvidia/tritonserver:1"})
        users["cy"].request("POST", COLLECTION, body=body)
        lists = {**LISTS, "allowed_images": ("registry.example.com/team/",)}
        tightened, relaxed = platform(**lists), platform(**LISTS)
        kube.apply(tightened)
        try:
            wait_for(
                lambda: dry_run(users["cy"], {"runtime.image": "nvidia/tritonserver:1"}),
                "the tightened list in force",
                timeout_seconds=60,
            )
            users["cy"].request(
                "PATCH",
                f"{COLLECTION}/old",
                body={"spec": {"historyLimit": 5}},
                content_type="application/merge-patch+json",
            )
        finally:
            kube.apply(relaxed)
            users["cy"].delete(names.API_VERSION, names.KIND, "old", NAMESPACE)
            wait_for(
                lambda: dry_run(users["cy"], {"runtime.image": "nvidia/tritonserver:1"}) is None,
                "the old list in force",
                timeout_seconds=60,
            )


class TestPlatform:
    @pytest.mark.parametrize(
        "image",
        [
            "nvidia/tritonserver:24.10-py3",
            f"nvidia/tritonserver@sha256:{'0' * 64}",
            "registry.example.com/team/triton/custom:1",
            "lab/triton:24.10",
        ],
    )
    def test_allowed_image(self, users: Users, image: str) -> None:
        assert dry_run(users["cy"], {"runtime.image": image}) is None

    @pytest.mark.parametrize(
        "image",
        [
            "nvidia/tritonserver-evil:1",
            "nvidia/tritonserver:5000/evil:1",
            "registry.example.com/team-evil/triton:1",
            "registry.example.com:5000/team/triton:1",
            "evil.example.com/nvidia/tritonserver:1",
            "lab/triton:25.01",
        ],
    )
    def test_refused_image(self, users: Users, image: str) -> None:
        refused = dry_run(users["ada"], {"runtime.image": image})
        assert refused is not None
        if "is not an image" not in refused:
            assert refused == denied(
                "platform",
                f"spec.runtime.image: {image} is not among the platform's images "
                "(nvidia/tritonserver, registry.example.com/team/, lab/triton:24.*); use one of "
                "them, or leave it out",
            )

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://models/magika",
            "s3://shared/prod/magika",
            "pvc://any/magika",
            "https://a.b.example.com/m.tar.gz",
            "https://files.example.org/models/m.tar.gz",
            "hf://google/magika",
            "hf://google/magika@v3",
            "oci://registry.example.com/models/magika:v3",
        ],
    )
    def test_allowed_source(self, users: Users, uri: str) -> None:
        assert dry_run(users["ada"], {"model.source.uri": uri}) is None

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://models-evil/magika",
            "s3://shared/production/magika",
            "https://example.com/m.tar.gz",
            "https://evilexample.com/m.tar.gz",
            "https://a.example.com.evil.org/m.tar.gz",
            "https://files.example.org/models-evil/m.tar.gz",
            "https://files.example.org:8443/models/m.tar.gz",
            "hf://google/magika-evil",
            "oci://registry.example.com/models/magika-evil:v3",
            "oci://registry.example.com:5000/models/magika:v3",
            "gs://models/magika",
        ],
    )
    def test_refused_source(self, users: Users, uri: str) -> None:
        assert dry_run(users["ada"], {"model.source.uri": uri}) == denied(
            "platform",
            f"spec.model.source.uri: {uri} is not among the platform's sources "
            f"({', '.join(LISTS['allowed_sources'])}); use one of them",
        )

    def test_an_endpoint_is_a_source_too(self, users: Users) -> None:
        """Or an allowed bucket's name could be looked up in anybody's store."""
        assert dry_run(users["ada"], {"model.source.endpoint": "http://store.svc:8333"}) is None
        refused = dry_run(users["ada"], {"model.source.endpoint": "http://store.svc:83333"})
        assert refused is not None
        assert "spec.model.source.endpoint: http://store.svc:83333 is not among" in refused

    def test_service_accounts(self, users: Users) -> None:
        assert dry_run(users["cy"], {"runtime.serviceAccountName": "reader"}) is None
        assert dry_run(users["ada"], {"runtime.serviceAccountName": "admin"}) == denied(
            "platform",
            "spec.runtime.serviceAccountName: admin is not among the platform's service accounts "
            "(reader); use one of them, or leave it out",
        )

    def test_removed_and_made_again_the_lists_hold(self, kube: KubeClient, users: Users) -> None:
        """As between an uninstall and an install. A policy with parameters fails here for good."""
        policies = admission.objects(PREFIX, watch_namespaces=(NAMESPACE,), **LISTS)
        image = {"runtime.image": "evil/triton:1"}
        for document in policies:
            kube.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])
        try:
            wait_for(
                lambda: dry_run(users["ada"], image) is None, "policies gone", timeout_seconds=60
            )
        finally:
            kube.apply_all(policies)
            wait_for(
                lambda: refusals_of_all_policies(users["cy"]), "policies back", timeout_seconds=60
            )
        assert "evil/triton:1 is not among" in (dry_run(users["ada"], image) or "")
        assert dry_run(users["ada"], {"runtime.image": "nvidia/tritonserver:1"}) is None

    def test_empty_lists_allow_all_but_service_accounts(
        self, kube: KubeClient, users: Users
    ) -> None:
        kube.apply(platform())
        any_image = {"runtime.image": "any/image:1", "model.source.uri": "gs://any/thing"}
        try:
            wait_for(
                lambda: dry_run(users["ada"], any_image) is None,
                "empty lists in force",
                timeout_seconds=60,
            )
            refused = dry_run(users["ada"], {"runtime.serviceAccountName": "reader"})
            assert refused is not None
            assert "service accounts (none)" in refused
        finally:
            kube.apply(platform(**LISTS))
            wait_for(lambda: dry_run(users["ada"], any_image), "lists back", timeout_seconds=60)


def asking(text: str) -> dict[str, Any]:
    return {"metadata.annotations": {names.REQUEST_ANNOTATION: text}}


class TestRequests:
    @pytest.mark.parametrize("verb", admission.VERBS)
    def test_with_the_verb(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]], verb: str
    ) -> None:
        adas({})
        assert edit(users["ada"], asking(f"id-1/{verb}/abcdefghij/ada")) is None
        assert edit(users["ada"], asking(f"id-1/{verb}//ada")) is None

    def test_without_the_verb(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        adas({})
        assert edit(users["cy"], asking("1/promote/abcdefghij/cy")) == denied(
            "requests",
            "metadata.annotations[tidegate.dev/request]: cy may not promote m; ask for the verb "
            f"promote on modeldeployments.tidegate.dev in {NAMESPACE}",
        )

    def test_a_verb_on_one_object_only(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        adas({})
        assert edit(users["bo"], asking("1/retry/abcdefghij/bo")) is None
        assert dry_run(users["bo"], asking("1/retry/abcdefghij/bo"), "other") == denied(
            "requests",
            "metadata.annotations[tidegate.dev/request]: bo may not retry other; ask for the verb "
            f"retry on modeldeployments.tidegate.dev in {NAMESPACE}",
            "other",
        )

    def test_in_the_name_of_another(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        adas({})
        assert edit(users["ada"], asking("1/abort/abcdefghij/bo")) == denied(
            "requests",
            "metadata.annotations[tidegate.dev/request]: the request is in the name of bo, but "
            "you are ada; write your own name",
        )

    @pytest.mark.parametrize(
        "text", ["promote", "1/destroy//ada", "1/abort/ada", "/abort//ada", "1/abort/A B/ada"]
    )
    def test_malformed(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]], text: str
    ) -> None:
        adas({})
        refused = edit(users["ada"], asking(text))
        assert refused is not None
        assert refused.endswith(
            "write <id>/<verb>/<revision>/<your user name>, with a verb of abort, pause, promote, "
            "restart, resume, retry, skip-step, undo; the tidegate command does"
        )

    def test_a_user_whose_name_holds_slashes(
        self, kube: KubeClient, control_plane: ControlPlane, users: Users
    ) -> None:
        user = "https://issuer.example.com#eve"
        binding = role("ada")[1]
        binding["metadata"] = {"name": "eve", "namespace": NAMESPACE}
        binding["subjects"][0]["name"] = user
        kube.apply(binding)
        with KubeClient(control_plane.kubeconfig_for(user, [])) as eve:
            wait_for(
                lambda: dry_run(eve, asking(f"1/abort//{user}")) is None,
                "eve's rights",
                timeout_seconds=60,
            )
            assert dry_run(eve, asking("1/abort//https:")) is not None

    def test_an_old_request_is_nobodys_burden(
        self, users: Users, adas: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        """A colleague, or a GitOps tool, writes the object with the annotation as it was."""
        adas(asking("1/retry/abcdefghij/ada"))
        assert edit(users["cy"], {"historyLimit": 3}) is None
        assert edit(users["cy"], {"metadata.annotations": None}) is None


def test_kubernetes_finds_no_type_error() -> None:
    """Its controller checks policies against the CRD's schema and reports what does not fit."""
    policies = [d for d in admission.objects(PREFIX, **LISTS) if d["kind"].endswith("Policy")]
    version, kind = policies[0]["apiVersion"], policies[0]["kind"]
    # A mistake of our own, to see that mistakes are found.
    mistake = admission.requests_policy("mistake")
    mistake["spec"]["validations"] = [{"expression": "object.spec.model.source.uri > 3"}]

    def checked(kube: KubeClient, name: str) -> dict[str, Any] | None:
        status = (kube.get(version, kind, name) or {}).get("status", {})
        return status.get("typeChecking") if "observedGeneration" in status else None

    with start_control_plane(controllers=True) as plane, plane.client() as kube:
        kube.apply_all([crd.crd()])
        kube.apply_all([*policies, mistake])
        found = {
            name: wait_for(partial(checked, kube, name), f"{name} checked", timeout_seconds=90)
            for name in [d["metadata"]["name"] for d in (*policies, mistake)]
        }
    assert "expressionWarnings" in found.pop("mistake")
    assert all("expressionWarnings" not in result for result in found.values()), found


def test_other_namespaces_are_left_alone(kube: KubeClient, users: Users) -> None:
    body = overlay(manifest("free"), {"runtime.serviceAccountName": "any"})
    path = COLLECTION.replace(NAMESPACE, "default")
    assert kube.request("POST", path, body=body, params={"dryRun": "All"})
