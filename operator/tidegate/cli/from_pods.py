"""From a pod template that runs Triton to `runtime`.

Pure: documents in, a `Draft` filled. What has no place in a ModelDeployment becomes a note with
what to do about it; nothing is dropped unsaid but what Kubernetes fills in by itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tidegate.api.patterns import ENV_NAME_PATTERN, IMAGE_PATTERN, RESOURCE_PATTERN
from tidegate.api.units import QUANTITY_PATTERN, quantity
from tidegate.cli.draft import NO_FIELD, OWN, Document, Draft, block, items, texts
from tidegate.cli.from_triton import SECRET_ENV, STORE_ENV, flags, is_triton

_OWN_ENV: Final = re.compile(r"CUDA_VISIBLE_DEVICES|NVIDIA_.*|TIDEGATE_.*")
_RESERVED_KEY: Final = re.compile(
    r"(([a-z0-9.-]+[.])?tidegate[.]dev/.*|([a-z0-9.-]+[.])?(kubernetes|k8s)[.]io/.*"
    r"|kueue[.]x-k8s[.]io/.*|io[.]kubernetes[.].*|pod-template-hash)"
)
_FREE_KEY: Final = re.compile(
    r"app[.]kubernetes[.]io/(name|instance|version|component|part-of)"
    r"|cluster-autoscaler[.]kubernetes[.]io/.*"
)
_POD_READ: Final = frozenset(
    {
        *("containers", "initContainers", "volumes", "nodeSelector", "tolerations", "affinity"),
        *("topologySpreadConstraints", "priorityClassName", "serviceAccountName"),
        *("serviceAccount", "imagePullSecrets", "resourceClaims"),
    }
)
_POD_DEFAULTS: Final[Document] = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "enableServiceLinks": True,
    "priority": None,
    "preemptionPolicy": "PreemptLowerPriority",
}
_POD_OWN: Final = ("securityContext", "terminationGracePeriodSeconds", "enableServiceLinks")
_CONTAINER_READ: Final = frozenset(
    {
        *("name", "image", "command", "args", "env", "envFrom", "resources", "volumeMounts"),
        *("ports", "imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"),
    }
)
_CONTAINER_OWN: Final = (
    *("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "securityContext"),
)
_FLAGS_OWN: Final = re.compile(
    r"model-(repository|store|control-mode)|(http|grpc|metrics)-(port|address)"
    r"|allow-(http|grpc|metrics|gpu-metrics|cpu-metrics)|exit-(on-error|timeout-secs)"
    r"|log-(verbose|info|warning|error|format)|load-model|strict-(readiness|model-config)"
    r"|disable-auto-complete-config"
)
"""Server flags that Tidegate sets, or that change nothing for clients."""


def runtime(
    draft: Draft,
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    *,
    fetching: Iterable[Mapping[str, Any]] = (),
    image: bool = True,
) -> None:
    """Sets `runtime`, and notes what has no place there.

    Args:
        draft: to fill.
        pod: the pod's spec.
        container: the one that runs the model.
        fetching: init containers whose work the fetch does.
        image: whether the container's image is Triton.
    """
    if image and (named := str(container.get("image") or "")):
        _image(draft, named)
    secrets = items(pod, "imagePullSecrets")
    pulled = list(dict.fromkeys(str(s["name"]) for s in secrets if s.get("name")))
    if pulled:
        draft.put("runtime.imagePullSecrets", pulled[:2])
        for more in pulled[2:]:
            draft.note(f"imagePullSecrets {more}", "there is room for two", "merge them")
    account = pod.get("serviceAccountName") or pod.get("serviceAccount")
    if account not in (None, "default"):
        draft.put("runtime.serviceAccountName", account)
        draft.note(
            f"serviceAccountName {account}",
            "carried over, but the platform must allow it",
            "add it to admission.allowedServiceAccounts of the chart, or take the line out",
        )
    _resources(draft, container)
    _placement(draft, pod)
    _environment(draft, container)
    _volumes(draft, pod, container)
    for key in ("containers", "initContainers"):
        for one in items(pod, key):
            if one is container or one.get("name") == container.get("name") or one in fetching:
                continue
            draft.note(
                f"{key} {one.get('name')}",
                "not carried over",
                "a pod of Tidegate's has no room for it; run it as a Deployment of its own, or "
                "drop it",
            )
    _rest(draft, pod, container)


def _image(draft: Draft, image: str) -> None:
    tagged = re.search(r"@sha256:[0-9a-f]{64}$|:[^/:]+$", image)
    if not re.fullmatch(IMAGE_PATTERN, image) or not tagged or image.endswith(":latest"):
        draft.note(
            "runtime.image",
            f"{image} may be another image tomorrow",
            "name a tag or a digest; without it the platform's Triton serves",
        )
    else:
        draft.put("runtime.image", image)


def _resources(draft: Draft, container: Mapping[str, Any]) -> None:
    both = block(container, "resources")
    requests, limits = block(both, "requests"), block(both, "limits")
    found: Document = {}
    wanted = {
        "cpu": requests.get("cpu", limits.get("cpu")),
        "memory": limits.get("memory", requests.get("memory")),
        "cpuLimit": limits.get("cpu"),
        "ephemeralStorage": limits.get("ephemeral-storage", requests.get("ephemeral-storage")),
    }
    for name, value in wanted.items():
        if value is None:
            continue
        if name == "memory" and _too_small(str(value)):
            draft.note(f"resources {name} {value}", "too little for Triton", "set what it needs")
        elif re.fullmatch(QUANTITY_PATTERN, str(value)):
            found[name] = str(value)
        else:
            draft.note(
                f"resources {name} {value}", "not carried over", "write it as 500m, 2 or 4Gi"
            )
    for name, default in (("cpu", "1"), ("memory", "2Gi")):
        if name not in found:
            draft.note(f"resources.{name}", "none is asked for", f"Tidegate's default is {default}")
    if found:
        draft.put("runtime.resources", found)
    low, high = requests.get("memory"), limits.get("memory")
    if low and high and str(low) != str(high):
        draft.note(
            f"resources.requests.memory {low}",
            f"the limit {high} is requested, too",
            "lower runtime.resources.memory if the model needs less",
        )
    _gpu(draft, {**requests, **limits})
    if both.get("claims"):
        draft.note(
            "resources.claims",
            "a claim for devices is not carried over",
            "name its class and selectors in runtime.gpu.dra",
        )


def _too_small(memory: str) -> bool:
    """Whether it leaves nothing beside the shared memory."""
    return bool(re.fullmatch(QUANTITY_PATTERN, memory)) and quantity(memory) <= quantity("64Mi")


def _gpu(draft: Draft, amounts: Mapping[str, Any]) -> None:
    devices = {
        name: int(quantity(value))
        for name, value in amounts.items()
        if "/" in name
        and not re.match(r"([a-z0-9.-]+\.)?kubernetes\.io/|requests\.", name)
        and re.fullmatch(RESOURCE_PATTERN, name)
        and re.fullmatch(QUANTITY_PATTERN, str(value))
    }
    asked = {n: c for n, c in devices.items() if c > 0}
    known = [n for n in asked if re.search(r"gpu|/mig-|/gaudi|neuron|/tpu", n)]
    chosen = (known or list(asked))[:1]
    for name in asked:
        if name not in chosen:
            draft.note(f"resources {name}", "a pod asks for one kind of device", "leave it out")
    if not chosen:
        draft.put("runtime.gpu.count", 0)
        return
    (name,), count = chosen, asked[chosen[0]]
    if "/mig-" in name and count > 1:
        draft.note(
            f"resources {name} {count}",
            "a process can use one MIG device only",
            "one is asked for; take a larger profile, or more replicas",
        )
        count = 1
    draft.put("runtime.gpu.count", count)
    if name != "nvidia.com/gpu":
        draft.put("runtime.gpu.resource", name)


def _placement(draft: Draft, pod: Mapping[str, Any]) -> None:
    if selector := block(pod, "nodeSelector"):
        draft.put("runtime.nodeSelector", {k: str(v) for k, v in selector.items()})
    if tolerations := items(pod, "tolerations"):
        draft.put("runtime.tolerations", [dict(t) for t in tolerations])
    spreads = []
    for one in items(pod, "topologySpreadConstraints"):
        kept = {k: one[k] for k in ("topologyKey", "maxSkew", "whenUnsatisfiable") if k in one}
        spreads.append(kept)
        if more := set(one) - set(kept) - {"labelSelector"}:
            draft.note(
                f"topologySpreadConstraints {one.get('topologyKey')}",
                f"{', '.join(sorted(more))} left out",
                "it spreads the pods of one revision",
            )
    if spreads:
        draft.put("runtime.topologySpread", spreads)
    if name := str(pod.get("priorityClassName") or ""):
        if name.startswith("system-"):
            draft.note(f"priorityClassName {name}", "for the cluster's own parts", "name another")
        else:
            draft.put("runtime.priorityClassName", name)
    if affinity := block(pod, "affinity"):
        _affinity(draft, affinity)
    if pod.get("resourceClaims"):
        draft.note("resourceClaims", "not carried over", "name class and selectors in gpu.dra")


def _affinity(draft: Draft, affinity: Mapping[str, Any]) -> None:
    required = block(
        block(affinity, "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = items(required, "nodeSelectorTerms")
    asked = items(terms[0], "matchExpressions") if len(terms) == 1 else []
    rest = set(affinity)
    if (
        len(asked) == 1
        and asked[0].get("key") == "nvidia.com/gpu.product"
        and asked[0].get("operator") == "In"
        and set(block(affinity, "nodeAffinity"))
        == {"requiredDuringSchedulingIgnoredDuringExecution"}
        and block(block(draft.spec, "runtime"), "gpu").get("count")
        and str(draft.spec["runtime"]["gpu"].get("resource", "nvidia.com/")).startswith(
            "nvidia.com/"
        )
    ):
        draft.put("runtime.gpu.products", texts(asked[0], "values"))
        rest.discard("nodeAffinity")
    if rest:
        draft.note(
            f"affinity {', '.join(sorted(rest))}",
            NO_FIELD,
            "use runtime.nodeSelector, gpu.products or topologySpread",
        )


def _environment(draft: Draft, container: Mapping[str, Any]) -> None:
    kept = []
    for one in items(container, "env"):
        name = str(one.get("name"))
        if name in STORE_ENV or (SECRET_ENV.fullmatch(name) and one.get("value")):
            continue
        if "valueFrom" in one or SECRET_ENV.fullmatch(name):
            draft.note(
                f"env {name}", "only plain values are carried over", "write its value, or drop it"
            )
        elif _OWN_ENV.fullmatch(name):
            draft.note(f"env {name}", "set by the device plugin or by Tidegate", "nothing to do")
        elif re.fullmatch(ENV_NAME_PATTERN, name):
            kept.append({"name": name, "value": str(one.get("value") or "")})
    if kept:
        draft.put("runtime.env", list({one["name"]: one for one in kept}.values()))
    for one in items(container, "envFrom"):
        if named := block(one, "configMapRef").get("name"):
            draft.note(f"envFrom {named}", "not carried over", "write its values in runtime.env")


def _volumes(draft: Draft, pod: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    mounted = {m.get("name"): str(m.get("mountPath")) for m in items(container, "volumeMounts")}
    uri = str(draft.spec["model"]["source"]["uri"])
    roots = [v for k, v in flags(container) if k in ("model-repository", "model-store")]
    for volume in items(pod, "volumes"):
        name, path = volume.get("name"), mounted.get(volume.get("name"), "")
        empty = volume.get("emptyDir")
        if path == "/dev/shm":
            size = str(block(volume, "emptyDir").get("sizeLimit") or "")
            memory = block(block(draft.spec, "runtime"), "resources").get("memory", "2Gi")
            if re.fullmatch(QUANTITY_PATTERN, size) and quantity(size) < quantity(memory):
                draft.put("runtime.sharedMemory", size)
            else:
                draft.note(
                    "/dev/shm", f"no size below the memory {memory}", "set runtime.sharedMemory"
                )
        elif (
            any(r.startswith(path) for r in roots if path)
            or (isinstance(empty, dict) and path == "/tmp")
            or uri.startswith(f"pvc://{block(volume, 'persistentVolumeClaim').get('claimName')}")
            or block(volume, "secret").get("secretName")
            == draft.spec["model"]["source"].get("secretName", "")
        ):
            continue
        elif name in mounted:
            draft.note(
                f"volume {name} at {path}",
                "no other volumes are mounted",
                "write to /tmp instead"
                if isinstance(empty, dict)
                else "put what the model reads beside the model's files",
            )


def labels(
    draft: Draft, template: Mapping[str, Any], selectors: Iterable[Mapping[str, Any]]
) -> None:
    """Sets the pods' labels and annotations.

    Labels by which the old Deployment and Services select stay behind: else the old Service would
    send requests to the new pods, past the sidecar, and an HPA would count them.
    """
    meta = block(template, "metadata")
    selected = {key for one in selectors for key in one}
    kept: Document = {}
    left: list[str] = []
    for key, value in block(meta, "labels").items():
        if key in selected:
            left.append(key)
        elif not _RESERVED_KEY.fullmatch(key) or _FREE_KEY.fullmatch(key):
            kept[key] = str(value)
    if kept:
        draft.put("runtime.podLabels", kept)
    if left:
        draft.note(
            f"labels {', '.join(left)}",
            "left out, since the old objects select by them",
            "nothing to do",
        )
    notes: Document = {}
    for key, value in block(meta, "annotations").items():
        if key.startswith("prometheus.io/"):
            draft.note(
                "annotations prometheus.io",
                "the pods are scraped at their port metrics",
                "turn on the chart's PodMonitor, or scrape that port",
            )
        elif not _RESERVED_KEY.fullmatch(key) or _FREE_KEY.fullmatch(key):
            notes[key] = str(value)
        elif not key.startswith("kubectl.kubernetes.io/"):
            draft.note(f"annotations {key}", "reserved", "drop it")
    if notes:
        draft.put("runtime.podAnnotations", notes)


def _rest(draft: Draft, pod: Mapping[str, Any], container: Mapping[str, Any]) -> None:
    own = [k for k in _CONTAINER_OWN if container.get(k)]
    own += [k for k in _POD_OWN if k in pod and pod[k] != _POD_DEFAULTS.get(k)]
    if own:
        draft.note(", ".join(dict.fromkeys(own)), "not carried over", OWN)
    for key in _unread(pod, _POD_READ | set(_POD_OWN)):
        draft.note(key, NO_FIELD, "do without it, or ask your platform team for a profile")
    for key in _unread(container, _CONTAINER_READ | set(_CONTAINER_OWN)):
        draft.note(key, NO_FIELD, "do without it")
    for name, value in flags(container) if is_triton(container) else ():
        if name == "load-model" and value and "name" not in draft.spec["model"]:
            draft.put("model.name", value)
        elif name == "model-config-name":
            draft.note(f"--{name}={value}", NO_FIELD, "copy that file over config.pbtxt")
        elif name in ("cache-config", "response-cache-byte-size"):
            draft.note(f"--{name}", "not carried over", "set model.config.responseCache: true")
        elif not _FLAGS_OWN.fullmatch(name):
            text = f"--{name}={value}" if value else f"--{name}"
            draft.note(
                text,
                "Triton's flags are Tidegate's",
                "what it says of the model goes to model.config",
            )


def _unread(node: Mapping[str, Any], known: Iterable[str]) -> Iterator[str]:
    for key, value in node.items():
        if key not in known and value not in (None, {}, [], "", _POD_DEFAULTS.get(key)):
            yield key
