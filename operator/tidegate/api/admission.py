"""The ValidatingAdmissionPolicies: what the schema cannot see, since it depends on who asks.

Three policies, evaluated inside the API server (no webhook, no certificates), all failing closed:

* *references*: the operator's pods mount what a ModelDeployment names. Without a check, somebody
  who may write ModelDeployments but not read Secrets could have one read for them (a confused
  deputy). So an author may name a Secret, ConfigMap or claim only if they may get that object, or
  create pods there, which could mount it as well. Only new or changed references are asked about,
  so that a colleague with fewer rights may still scale. A Secret counts as changed, too, when its
  credentials would go to another server.
* *platform*: lists of the platform team: images, sources, service accounts. They stand in the
  policy itself. In a ConfigMap that the policy takes as its parameter they could be changed apart,
  but the API server loses such a parameter for good, until it is itself restarted, when no binding
  names it for a second (kubernetes/kubernetes#130887), as between an uninstall and an install.
* *requests*: a verb for a rollout is an annotation. Its user must be who writes it, and needs that
  verb on the ModelDeployment, a right that exists for this policy only.

An authorizer check costs 350,000 of the 1,000,000 units that an expression may use: at most two
an expression, hence one validation for each field.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from tidegate.api import names

Document = dict[str, Any]

VERBS: Final = (
    "abort",
    "pause",
    "promote",
    "restart",
    "resume",
    "retry",
    "skip-step",
    "undo",
)
"""What may be asked of a rollout."""

REQUEST_PATTERN: Final = (
    rf"^[A-Za-z0-9][A-Za-z0-9-]{{0,63}}/({'|'.join(VERBS)})/[a-z0-9-]{{0,63}}/.{{1,256}}$"
)
"""Of `names.REQUEST_ANNOTATION`: ``<id>/<verb>/<revision, or nothing>/<user>``. A user's name may
hold slashes itself, so it stands last."""

LISTS: Final = ("allowedImages", "allowedSources", "allowedServiceAccounts")
"""Variables of the platform's policy that hold its lists; in the chart, values of that name."""


def _get(path: str) -> str:
    """CEL: an optional text field of the object, or ''."""
    first, *rest = path.split(".")
    return f"object.{first}.?{'.?'.join(rest)}.orValue('')"


def _get_old(path: str) -> str:
    """CEL: the same field of the object before the change; '' at its creation."""
    first, *rest = path.split(".")
    return f"oldObject == null ? '' : oldObject.{first}.?{'.?'.join(rest)}.orValue('')"


def _may_get(resource: str, name: str) -> str:
    """CEL: whether the author may get an object of this namespace, or create pods there."""
    return (
        "variables.mayCreatePods || authorizer.group('')"
        f".resource('{resource}').namespace(request.namespace).name({name}).check('get').allowed()"
    )


def _refusal(field: str, kind: str, name: str) -> str:
    """CEL: the message about a reference."""
    return (
        f"'{field}: %s may not use {kind} %s, being allowed neither to get it nor to create pods in"
        f" %s; ask for one of these rights, or name a {kind} that you may get'"
        f".format([request.userInfo.username, {name}, request.namespace])"
    )


def _variables(**expressions: str) -> list[Document]:
    return [{"name": name, "expression": text} for name, text in expressions.items()]


def _policy(name: str, variables: list[Document], validations: list[Document]) -> Document:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [names.GROUP],
                        # Other versions match as equivalent; a named one can be type-checked.
                        "apiVersions": [names.VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [names.PLURAL],
                    }
                ]
            },
            "variables": variables,
            "validations": validations,
        },
    }


def _binding(name: str, namespaces: Sequence[str]) -> Document:
    selector = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    only = {"matchResources": {"namespaceSelector": {"matchExpressions": [selector]}}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            **(only if namespaces else {}),
        },
    }


def references_policy(name: str) -> Document:
    """Who may name which Secret, ConfigMap and claim."""
    destination = "variables.{0}.find('^[a-z0-9]+://[^/]*') + ' ' + ({1})"
    claim = "variables.{0}.startsWith('pvc://') ? variables.{0}.split('/')[2] : ''"
    pull = "runtime.imagePullSecrets"
    variables = _variables(
        mayCreatePods="authorizer.group('').resource('pods').namespace(request.namespace)"
        ".check('create').allowed()",
        uri=_get("spec.model.source.uri"),
        oldUri=_get_old("spec.model.source.uri"),
        secret=_get("spec.model.source.secretName"),
        oldSecret=_get_old("spec.model.source.secretName"),
        destination=destination.format("uri", _get("spec.model.source.endpoint")),
        oldDestination=destination.format("oldUri", _get_old("spec.model.source.endpoint")),
        pullSecrets=f"object.spec.?{pull.replace('.', '.?')}.orValue([])",
        oldPullSecrets="oldObject == null ? [] : "
        f"oldObject.spec.?{pull.replace('.', '.?')}.orValue([])",
        claim=claim.format("uri"),
        oldClaim=claim.format("oldUri"),
        cache=_get("spec.runtime.cache.claimName"),
        oldCache=_get_old("spec.runtime.cache.claimName"),
        golden=_get("spec.goldenRequests.configMapName"),
        oldGolden=_get_old("spec.goldenRequests.configMapName"),
    )
    secret_unchanged = (
        "(variables.secret == variables.oldSecret"
        " && variables.destination == variables.oldDestination)"
    )
    validations = [
        {
            "expression": f"variables.secret == '' || {secret_unchanged} || "
            + _may_get("secrets", "variables.secret"),
            "messageExpression": _refusal(
                "spec.model.source.secretName", "Secret", "variables.secret"
            ),
            "reason": "Forbidden",
        },
        *(
            {
                "expression": f"size(variables.pullSecrets) <= {i}"
                f" || variables.pullSecrets[{i}] in variables.oldPullSecrets || "
                + _may_get("secrets", f"variables.pullSecrets[{i}]"),
                "messageExpression": _refusal(
                    f"spec.runtime.imagePullSecrets[{i}]", "Secret", f"variables.pullSecrets[{i}]"
                ),
                "reason": "Forbidden",
            }
            for i in range(2)
        ),
        *(
            {
                "expression": f"variables.{new} == '' || variables.{new} == variables.{old} || "
                + _may_get(resource, f"variables.{new}"),
                "messageExpression": _refusal(field, kind, f"variables.{new}"),
                "reason": "Forbidden",
            }
            for new, old, field, kind, resource in (
                (
                    "claim",
                    "oldClaim",
                    "spec.model.source.uri",
                    "PersistentVolumeClaim",
                    "persistentvolumeclaims",
                ),
                (
                    "cache",
                    "oldCache",
                    "spec.runtime.cache.claimName",
                    "PersistentVolumeClaim",
                    "persistentvolumeclaims",
                ),
                (
                    "golden",
                    "oldGolden",
                    "spec.goldenRequests.configMapName",
                    "ConfigMap",
                    "configmaps",
                ),
            )
        ),
    ]
    return _policy(name, variables, validations)


def _image_allowed(image: str) -> str:
    """CEL: whether an image is on the list.

    Entries: a repository with any tag (``team/triton``), one image (``team/triton:1.2``), all
    below a path (``registry.example.com/team``), or whatever begins so (``team/triton:24.*``).
    An entry ends where a name ends: ``team/triton`` does not let in ``team/triton-evil``, nor a
    registry's name another port of its host.
    """
    return (
        "variables.allowedImages.exists(e,"
        f" e.endsWith('*') ? {image}.startsWith(e.split('*')[0])"
        f" : {image} == e || {image}.startsWith(e.endsWith('/') ? e : e + '/')"
        f" || (({image}.startsWith(e + ':') || {image}.startsWith(e + '@'))"
        f" && !{image}.substring(size(e)).contains('/')))"
    )


def _source_allowed(address: str) -> str:
    """CEL: whether an address is on the list.

    Entries: a scheme (``hf://``), a server or bucket (``s3://models``), a path in it
    (``s3://models/prod``), all servers below a domain (``https://*.example.com``), or whatever
    begins so (``s3://models/team-*``). An entry ends where a name ends: ``s3://models`` does not
    let in ``s3://models-evil``.
    """
    return (
        "variables.allowedSources.exists(e,"
        f" e.endsWith('://') ? {address}.startsWith(e)"
        f" : e.matches('^[a-z0-9]+://[*][.]') ? {address}.startsWith(e.split('*')[0])"
        f" && {address}.find('^[a-z0-9]+://[^/]*').endsWith(e.split('*')[1])"
        f" : e.endsWith('*') ? {address}.startsWith(e.split('*')[0])"
        f" : {address} == e || {address}.startsWith(e.endsWith('/') ? e : e + '/')"
        # A revision or tag follows a repository's name, never a server's.
        " || (e.matches('^(hf|oci)://[^/]+/.*[^/]$')"
        f" && ({address}.startsWith(e + '@') || {address}.startsWith(e + ':'))))"
    )


def literal(entries: Sequence[str]) -> str:
    """CEL: a list of texts. JSON's form is CEL's, too."""
    return json.dumps(list(entries))


def platform_policy(
    name: str,
    allowed_images: Sequence[str] = (),
    allowed_sources: Sequence[str] = (),
    allowed_service_accounts: Sequence[str] = (),
) -> Document:
    """Which images, sources and service accounts the platform team allows; see `objects`."""
    lists = (allowed_images, allowed_sources, allowed_service_accounts)
    variables = _variables(
        **{key: literal(entries) for key, entries in zip(LISTS, lists, strict=True)},
        image=_get("spec.runtime.image"),
        oldImage=_get_old("spec.runtime.image"),
        uri=_get("spec.model.source.uri"),
        oldUri=_get_old("spec.model.source.uri"),
        endpoint=_get("spec.model.source.endpoint"),
        oldEndpoint=_get_old("spec.model.source.endpoint"),
        account=_get("spec.runtime.serviceAccountName"),
        oldAccount=_get_old("spec.runtime.serviceAccountName"),
    )
    sources = "variables.allowedSources"
    validations: list[Document] = [
        {
            "expression": "variables.image == ''"
            " || variables.image == variables.oldImage || size(variables.allowedImages) == 0 || "
            + _image_allowed("variables.image"),
            "messageExpression": "'spec.runtime.image: %s is not among the platform\\'s images"
            " (%s); use one of them, or leave it out'"
            ".format([variables.image, variables.allowedImages.join(', ')])",
            "reason": "Forbidden",
        },
        *(
            {
                "expression": f"variables.{new} == ''"
                f" || variables.{new} == variables.{old} || size({sources}) == 0 || "
                + _source_allowed(f"variables.{new}"),
                "messageExpression": f"'{field}: %s is not among the platform\\'s sources (%s);"
                " use one of them'"
                f".format([variables.{new}, {sources}.join(', ')])",
                "reason": "Forbidden",
            }
            for new, old, field in (
                ("uri", "oldUri", "spec.model.source.uri"),
                ("endpoint", "oldEndpoint", "spec.model.source.endpoint"),
            )
        ),
        {
            "expression": "variables.account == ''"
            " || variables.account == variables.oldAccount"
            " || variables.account in variables.allowedServiceAccounts",
            "messageExpression": "'spec.runtime.serviceAccountName: %s is not among the"
            " platform\\'s service accounts (%s); use one of them, or leave it out'"
            ".format([variables.account, size(variables.allowedServiceAccounts) == 0 ? 'none'"
            " : variables.allowedServiceAccounts.join(', ')])",
            "reason": "Forbidden",
        },
    ]
    return _policy(name, variables, validations)


def requests_policy(name: str) -> Document:
    """Who may ask which verb of a rollout."""
    key = names.REQUEST_ANNOTATION
    read = f"metadata.?annotations[?'{key}'].orValue('')"
    variables = _variables(
        asked=f"object.{read}",
        known=f"oldObject == null ? '' : oldObject.{read}",
        parts="variables.asked.split('/', 4)",
        new="variables.asked != '' && variables.asked != variables.known",
        wellFormed=f"variables.asked.matches(r'{REQUEST_PATTERN}')",
    )
    validations: list[Document] = [
        {
            "expression": "!variables.new || variables.wellFormed",
            "message": f"metadata.annotations[{key}]: write <id>/<verb>/<revision>/<your user "
            f"name>, with a verb of {', '.join(VERBS)}; the tidegate command does",
        },
        {
            "expression": "!variables.new || !variables.wellFormed"
            " || variables.parts[3] == request.userInfo.username",
            "messageExpression": f"'metadata.annotations[{key}]: the request is in the name of %s,"
            " but you are %s; write your own name'"
            ".format([variables.parts[3], request.userInfo.username])",
            "reason": "Forbidden",
        },
        {
            "expression": "!variables.new || !variables.wellFormed"
            f" || authorizer.group('{names.GROUP}').resource('{names.PLURAL}')"
            ".namespace(request.namespace).name(object.metadata.name)"
            ".check(variables.parts[1]).allowed()",
            "messageExpression": f"'metadata.annotations[{key}]: %s may not %s %s; ask for the verb"
            f" %s on {names.PLURAL}.{names.GROUP} in %s'"
            ".format([request.userInfo.username, variables.parts[1], object.metadata.name,"
            " variables.parts[1], request.namespace])",
            "reason": "Forbidden",
        },
    ]
    return _policy(name, variables, validations)


def objects(
    prefix: str,
    *,
    watch_namespaces: Sequence[str] = (),
    allowed_images: Sequence[str] = (),
    allowed_sources: Sequence[str] = (),
    allowed_service_accounts: Sequence[str] = (),
) -> list[Document]:
    """The policies and their bindings.

    Args:
        prefix: what the objects' names begin with.
        watch_namespaces: where the policies hold; none: everywhere.
        allowed_images: see `_image_allowed`; none: any.
        allowed_sources: see `_source_allowed`; none: any.
        allowed_service_accounts: names; none: none.
    """
    policies = [
        references_policy(f"{prefix}-references"),
        platform_policy(
            f"{prefix}-platform", allowed_images, allowed_sources, allowed_service_accounts
        ),
        requests_policy(f"{prefix}-requests"),
    ]
    return [
        document
        for policy in policies
        for document in (policy, _binding(policy["metadata"]["name"], watch_namespaces))
    ]
