"""From a KServe InferenceService to a ModelDeployment. Pure: documents in, a `Draft` filled."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tidegate.cli import from_pods, from_triton
from tidegate.cli.draft import ASK_SOURCE, Document, Draft, block, items

BACKENDS: Final = {
    "triton": None,
    "onnx": "onnxruntime",
    "tensorrt": "tensorrt",
    "tensorflow": "tensorflow",
    "pytorch": "pytorch",
    "openvino": "openvino",
    "openvino_ir": "openvino",
    "xgboost": "fil",
    "lightgbm": "fil",
    "sklearn": "fil",
}
"""Model format -> Triton's backend; None: a repository that says it itself."""
_CONVERT: Final = {
    "sklearn": "pickles are not loaded; convert the model to a treelite checkpoint or to ONNX, put "
    "it at an address of its own and name that in model.source.uri",
    "pytorch": "an archive of TorchServe (.mar) is not read; put TorchScript with a config.pbtxt "
    "there, or ONNX",
    "xgboost": "the file must be XGBoost's own (.json, .ubj, .model), not a pickle",
    "lightgbm": "the file must be LightGBM's own text (.txt), not a pickle",
}
_V1_BY_DEFAULT: Final = frozenset({"sklearn", "xgboost", "lightgbm", "pytorch", "tensorflow"})
_PREDICTOR_READ: Final = frozenset(
    {
        *BACKENDS,
        *("model", "containers", "minReplicas", "maxReplicas", "scaleTarget", "scaleMetric"),
        *("scaleMetricType", "containerConcurrency", "timeout", "canaryTrafficPercent"),
        *("logger", "batcher", "workerSpec", "autoScaling", "deploymentStrategy"),
    }
)
_NOT_A_CONTAINERS: Final = frozenset(
    {
        *("modelFormat", "storageUri", "storage", "storageUris", "runtime", "runtimeVersion"),
        *("protocolVersion",),
    }
)


def fill(
    draft: Draft,
    document: Mapping[str, Any],
    others: Iterable[Mapping[str, Any]],
    *,
    given: str = "",
    container: str = "",
    latency: bool = False,
) -> None:
    """Fills the draft from an InferenceService.

    Args:
        draft: to fill.
        document: the InferenceService.
        others: what else was read: ServiceAccounts and Secrets that say where the store is.
        given: where the files will lie; '' where the InferenceService says it.
        container: name of the container that runs Triton, of a custom predictor.
        latency: whether a latency objective is set: replicas follow it.

    Raises:
        Trouble: no format that Triton serves, or no source.
    """
    spec = block(document, "spec")
    predictor = block(spec, "predictor")
    if not predictor:
        raise draft.trouble("no spec.predictor", "v1beta1 has one; older APIs are not read")
    legacy = [k for k in predictor if isinstance(predictor[k], dict) and k in BACKENDS]
    if "model" in predictor or legacy:
        key = "model" if "model" in predictor else legacy[0]
        model = block(predictor, key)
        kind = str(block(model, "modelFormat").get("name", "")) if key == "model" else key
        _model(draft, kind.lower(), model, predictor, given)
        _protocol(draft, kind.lower(), model)
    elif items(predictor, "containers"):
        chosen = from_triton.server(draft, predictor, container)
        fetching = from_triton.source(draft, predictor, chosen, given)
        from_pods.runtime(draft, _pod(predictor), chosen, fetching=fetching)
    else:
        known = set(_PREDICTOR_READ) | {"nodeSelector", "tolerations"}
        there = ", ".join(k for k in predictor if k not in known) or "nothing"
        raise draft.trouble(
            f"no predictor that Triton serves: {there}",
            "export the model to ONNX, and begin with tidegate init",
        )
    _credentials(draft, predictor, list(others))
    from_pods.labels(draft, document, ())
    for key in ("podLabels", "podAnnotations"):
        kept = block(block(draft.spec, "runtime"), key)
        for name in [n for n in kept if "kserve" in n or "knative" in n]:
            del kept[name]
        if not kept:
            draft.spec["runtime"].pop(key, None)
    _replicas(draft, document, predictor, latency)
    _around(draft, document, spec, predictor)


def _pod(predictor: Mapping[str, Any]) -> Document:
    """The predictor's fields that are a pod's; who reads the store is another matter."""
    left = (_PREDICTOR_READ - {"containers"}) | {"serviceAccountName"}
    return {k: v for k, v in predictor.items() if k not in left}


def _model(
    draft: Draft, kind: str, model: Document, predictor: Mapping[str, Any], given: str
) -> None:
    if kind not in BACKENDS:
        mend = (
            "keep it with KServe or a server of language models"
            if kind in ("huggingface", "vllm")
            else "export it to ONNX, and begin with tidegate init"
        )
        raise draft.trouble(f"Triton serves no format {kind or 'that is not named'}", mend)
    if given:
        uri, endpoint = from_triton.address(draft, given)
    elif model.get("storageUri"):
        uri, endpoint = from_triton.address(draft, str(model["storageUri"]))
    else:
        found = next((k for k in ("storage", "storageUris") if model.get(k)), "no storageUri")
        raise draft.trouble(f"{found} names no address to fetch from", ASK_SOURCE)
    draft.put("model.source.uri", uri)
    if endpoint:
        draft.put("model.source.endpoint", endpoint)
    if backend := BACKENDS[kind]:
        draft.put("model.backend", backend)
    if kind in _CONVERT:
        draft.note(f"modelFormat {kind}", f"served by Triton's {BACKENDS[kind]}", _CONVERT[kind])
    container = {k: v for k, v in model.items() if k not in _NOT_A_CONTAINERS}
    from_pods.runtime(draft, _pod(predictor), container, image=False)
    args = [f"--{name}" for name, _ in from_triton.flags(model)]
    if args and kind != "triton":
        draft.note(", ".join(args), "arguments of another server", "look what the model needs")
    for key in ("runtime", "runtimeVersion", "image"):
        if model.get(key):
            draft.note(
                f"predictor.model.{key} {model[key]}",
                "the platform's Triton serves",
                "name a Triton in runtime.image if the model needs just that one",
            )


def _protocol(draft: Draft, kind: str, model: Mapping[str, Any]) -> None:
    said = str(model.get("protocolVersion") or ("v1" if kind in _V1_BY_DEFAULT else "v2"))
    if said == "v1":
        served = draft.spec["model"].get("name") or draft.old
        draft.note(
            "protocolVersion v1",
            "Triton speaks the v2 protocol only",
            f"clients of :predict must ask /v2/models/{served}/infer",
        )


def _credentials(
    draft: Draft, predictor: Mapping[str, Any], others: list[Mapping[str, Any]]
) -> None:
    """The store's credentials, which KServe takes from the Secrets of the service account."""
    source = draft.spec["model"]["source"]
    account = predictor.get("serviceAccountName")
    if not account:
        return

    def named(kind: str, name: object) -> Document:
        same = (dict(o) for o in others if o.get("kind") == kind)
        return next((o for o in same if block(o, "metadata").get("name") == name), {})

    found = named("ServiceAccount", account)
    secrets = [s.get("name") for s in items(found, "secrets")]
    if len(secrets) != 1:
        draft.note(
            f"serviceAccountName {account}",
            "not carried over; KServe reads the store with its Secrets or its cloud identity",
            "name the Secret in model.source.secretName, or the account in "
            "runtime.serviceAccountName, which the platform must allow",
        )
        return
    if "secretName" in source or source["uri"].startswith(("pvc://", "image://")):
        return
    source["secretName"] = secrets[0]
    draft.note(
        f"serviceAccountName {account}",
        f"not carried over, since its Secret {secrets[0]} is named instead",
        "nothing to do, unless the model itself needs the account",
    )
    notes = block(block(named("Secret", secrets[0]), "metadata"), "annotations")
    said = {k.rpartition("/")[2]: str(v) for k, v in notes.items()}
    if not source["uri"].startswith("s3://"):
        return
    if "endpoint" not in source and (host := said.get("s3-endpoint")):
        scheme = "http" if said.get("s3-usehttps") == "0" else "https"
        source["endpoint"] = f"{scheme}://{host}"
    if said.get("s3-region"):
        source["region"] = said["s3-region"]


def _replicas(
    draft: Draft, document: Mapping[str, Any], predictor: Mapping[str, Any], latency: bool
) -> None:
    low, high = (draft.whole(k, predictor.get(k)) for k in ("minReplicas", "maxReplicas"))
    if low == 0 and predictor.get("minReplicas") is not None:
        draft.note("minReplicas 0", "nothing scales to zero", "one pod stays")
    low = max(low, 1)
    high = max(high, low)
    if latency:
        draft.put("scaling", {"minReplicas": low, "maxReplicas": high})
    else:
        draft.put("replicas", low)
        if high > low:
            draft.note(
                f"maxReplicas {high}",
                f"replicas stay at {low}",
                "give --latency, and they follow the load",
            )
    said = [f"{k} {predictor[k]}" for k in ("scaleMetric", "scaleTarget") if predictor.get(k)]
    notes = block(block(dict(document), "metadata"), "annotations")
    said += [k for k in notes if k.startswith("autoscaling.knative.dev/")]
    said += [k for k in notes if k == "serving.kserve.io/autoscalerClass"]
    said += [k for k in ("autoScaling",) if predictor.get(k)]
    if said:
        draft.note(
            ", ".join(said), "no target is set by hand", "slo.latency says how many pods are needed"
        )


def _around(
    draft: Draft, document: Mapping[str, Any], spec: Mapping[str, Any], predictor: Document
) -> None:
    if predictor.get("canaryTrafficPercent") is not None:
        draft.note(
            f"canaryTrafficPercent {predictor['canaryTrafficPercent']}",
            "set by hand, revision by revision",
            "rollout.steps do it, as far as the evidence carries",
        )
    if seconds := predictor.get("timeout"):
        draft.note(
            f"timeout {seconds}",
            "a gateway keeps it",
            f"with traffic.gateway set traffic.timeout: {seconds}s",
        )
    if limit := predictor.get("containerConcurrency"):
        draft.note(
            f"containerConcurrency {limit}",
            "requests above it waited",
            "traffic.overload.maxPending refuses them; batching needs more than one in flight",
        )
    if batcher := block(predictor, "batcher"):
        delay = batcher.get("maxLatency")
        if batcher.get("maxBatchSize"):
            draft.put(
                "model.config.maxBatchSize", draft.whole("maxBatchSize", batcher["maxBatchSize"])
            )
        if delay and re.fullmatch(r"[0-9]{1,5}", str(delay)):
            draft.put("model.config.dynamicBatching.maxQueueDelay", f"{delay}ms")
        draft.note(
            "batcher",
            "carried over as Triton's dynamic batching",
            "the first dimension of each tensor must be the batch; else take model.config out",
        )
    if predictor.get("logger"):
        draft.note("logger", "requests are not logged", "log them at the gateway, or in the client")
    if predictor.get("workerSpec"):
        draft.note("workerSpec", "a model does not span pods", "keep it with KServe")
    if predictor.get("deploymentStrategy"):
        draft.note("deploymentStrategy", "a rollout replaces it", "nothing to do")
    for key, mend in (
        ("transformer", "run it as a Deployment in front, or as a model of an ensemble"),
        ("explainer", "run it as a Deployment of its own"),
    ):
        if spec.get(key):
            draft.note(key, "not carried over", mend)
    mode = block(block(dict(document), "metadata"), "annotations").get(
        "serving.kserve.io/deploymentMode"
    )
    if mode == "ModelMesh":
        draft.note("deploymentMode ModelMesh", "pods are not shared", "each model gets its own")
