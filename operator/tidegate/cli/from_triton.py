"""From a container that runs Triton to `model.source`: flags, mounts, credentials. Pure."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tidegate.api.patterns import IMAGE_PATTERN
from tidegate.api.rules.source import CREDENTIAL_QUERY, SCHEMES
from tidegate.cli.draft import ASK_SOURCE, Document, Draft, block, items, texts

SECRET_ENV: Final = re.compile(
    r"(AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)|AZURE_STORAGE_(KEY|SAS_TOKEN"
    r"|CONNECTION_STRING)|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|MLFLOW_TRACKING_(PASSWORD|TOKEN)"
    r"|.*(PASSWORD|SECRET_KEY))"
)
STORE_ENV: Final = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"),
        *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "S3_ENDPOINT", "S3_USE_HTTPS", "STORAGE_URI"),
        *("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_VERIFY_SSL", "S3_VERIFY_SSL"),
    }
)
_PLAIN: Final = r"[A-Za-z0-9._~%+=@:,()/?&$-]*"
_STEPS_OUT: Final = r"/[.][.]?(/|$)|%(2[eEfF]|5[cC]|00)"
_URI: Final = re.compile(r"\b(?:s3|gs|hf|oci|as)://[^\s'\"]+")


# The container and its flags.


def words(container: Mapping[str, Any]) -> list[str]:
    """Command and arguments, with scripts taken apart and plain variables filled in."""
    plain = {e.get("name"): str(e["value"]) for e in items(container, "env") if "value" in e}
    found: list[str] = []
    for text in (*texts(container, "command"), *texts(container, "args")):
        filled = re.sub(
            r"\$[({]?(\w+)[)}]?", lambda m: plain.get(m[1], m[0]), text.replace("\\\n", " ")
        )
        try:
            found += shlex.split(filled) if re.search(r"\s", filled) else [filled]
        except ValueError:
            found += filled.split()
    return found


def is_triton(container: Mapping[str, Any]) -> bool:
    """Whether the container's image or command says so."""
    return any("tritonserver" in w for w in (str(container.get("image", "")), *words(container)))


def server(draft: Draft, pod: Mapping[str, Any], name: str = "") -> Document:
    """The container that runs Triton.

    Raises:
        Trouble: there is none, or it is not clear which.
    """
    found = items(pod, "containers")
    if name:
        chosen = [c for c in found if c.get("name") == name]
        if not chosen:
            there = ", ".join(str(c.get("name")) for c in found) or "none"
            raise draft.trouble(f"no container {name}", f"there is {there}")
        return chosen[0]
    chosen = [c for c in found if is_triton(c)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        there = ", ".join(str(c.get("name")) for c in chosen)
        raise draft.trouble(f"the containers {there} all run Triton", "name one: --container")
    images = ", ".join(str(c.get("image")) for c in found) or "none"
    raise draft.trouble(
        f"no container is known to run Triton (image {images})",
        "name it by --container if one does; else bring the model to a format that Triton serves, "
        "and begin with tidegate init",
    )


def flags(container: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Triton's flags as pairs of name and value."""
    found: list[tuple[str, str]] = []
    listed = words(container)
    for at, word in enumerate(listed):
        if not word.startswith("--"):
            continue
        name, equals, value = word[2:].partition("=")
        if not equals and at + 1 < len(listed) and not listed[at + 1].startswith("-"):
            value = listed[at + 1]
        found.append((name, value))
    return found


# Where the model comes from.


def address(draft: Draft, text: str) -> tuple[str, str]:
    """Address and endpoint in Tidegate's form, from Triton's or KServe's.

    Raises:
        Trouble: no kind of source that is fetched from.
    """
    endpoint = ""
    text = text.strip()
    if re.search(CREDENTIAL_QUERY, text) or re.match(r"[a-z0-9]+://[^/]*:[^/]*@", text):
        raise draft.trouble(
            "the model's address holds credentials",
            "put them into a Secret, and say the address without: --source",
        )
    if found := re.fullmatch(r"s3://(?:(https?)://)?([\w.-]+:\d+)/(.+)", text):
        endpoint, text = f"{found[1] or 'http'}://{found[2]}", f"s3://{found[3]}"
    elif found := re.fullmatch(r"https://([a-z0-9]+)\.blob\.core\.windows\.net/(.+)", text):
        text = f"as://{found[1]}/{found[2]}"
    elif found := re.fullmatch(r"abfss?://([^@/]+)@([a-z0-9]+)\.[^/]+/(.+)", text):
        text = f"as://{found[2]}/{found[1]}/{found[3]}"
    elif found := re.fullmatch(r"(hf://[^:@]+):([^:@/]+)(/.*)?", text):
        text = f"{found[1]}@{found[2]}{found[3] or ''}"
    text = re.sub(r"(?<=[^:/])/{2,}", "/", text)
    scheme, known, _ = text.partition("://")
    if not known or scheme not in SCHEMES:
        raise draft.trouble(f"{text} is no address that is fetched from", ASK_SOURCE)
    pattern, example = SCHEMES[scheme]
    if not re.match(pattern, text) or not re.fullmatch(_PLAIN, text) or re.search(_STEPS_OUT, text):
        raise draft.trouble(f"{text} is no {scheme} address such as {example}", ASK_SOURCE)
    return text, endpoint


def source(
    draft: Draft, pod: Mapping[str, Any], container: Mapping[str, Any], given: str
) -> list[Document]:
    """Sets `model.source` from Triton's repository; the init containers that fetched it.

    Raises:
        Trouble: where the files are cannot be said.
    """
    stated = [v for k, v in flags(container) if k in ("model-repository", "model-store") and v]
    env = {e.get("name"): e.get("value") for e in items(container, "env")}
    repository = stated[0] if stated else str(env.get("STORAGE_URI") or "")
    if len(stated) > 1:
        more = ", ".join(stated[1:])
        draft.note("--model-repository", f"{more} left out", "one ModelDeployment for each model")
    used: list[Document] = []
    if given:
        uri, endpoint = address(draft, given)
        used = [c for c in items(pod, "initContainers") if _URI.search(" ".join(words(c)))]
    elif not repository:
        raise draft.trouble("no --model-repository is named", ASK_SOURCE)
    elif "://" in repository:
        uri, endpoint = address(draft, repository)
    else:
        uri, endpoint, used = _from_path(draft, pod, container, repository)
    draft.put("model.source.uri", uri)
    where = _store(draft, uri, [container, *used], pod)
    if endpoint := endpoint or where:
        draft.put("model.source.endpoint", endpoint)
    return used


def _from_path(
    draft: Draft, pod: Mapping[str, Any], container: Mapping[str, Any], path: str
) -> tuple[str, str, list[Document]]:
    """Address, endpoint and the containers that fetch it, of a folder inside the container."""
    mounts = [
        m
        for m in items(container, "volumeMounts")
        if m.get("mountPath")
        and f"{path.rstrip('/')}/".startswith(f"{str(m['mountPath']).rstrip('/')}/")
    ]
    if not mounts:
        if not re.fullmatch(IMAGE_PATTERN, str(container.get("image", ""))):
            raise draft.trouble(f"{path} lies in an image that is not named", ASK_SOURCE)
        draft.note(
            "model.source.uri",
            f"{path} lies inside the image, so each version is a new image",
            "nothing to do; in a store, versions need no image",
        )
        return address(draft, f"image://{path}")[0], "", []
    mount = max(mounts, key=lambda m: len(str(m["mountPath"])))
    volume = next((v for v in items(pod, "volumes") if v.get("name") == mount.get("name")), {})
    rest = path[len(str(mount["mountPath"]).rstrip("/")) :].strip("/")
    below = "/".join(p for p in (str(mount.get("subPath") or "").strip("/"), rest) if p)
    if claim := block(volume, "persistentVolumeClaim").get("claimName"):
        return address(draft, f"pvc://{claim}/{below}".rstrip("/"))[0], "", []
    if reference := block(volume, "image").get("reference"):
        if below:
            draft.note(
                f"volume {volume.get('name')}",
                f"the folder {below} of the image cannot be chosen",
                "of an image /models is the model if it is there, else all of it",
            )
        uri, endpoint = address(draft, f"oci://{reference}")
        return uri, endpoint, []
    fetching = []
    for one in items(pod, "initContainers"):
        same = {m.get("name") for m in items(one, "volumeMounts")}
        if mount.get("name") in same and _URI.search(" ".join(words(one))):
            fetching.append(one)
    if len(fetching) == 1:
        text = " ".join(words(fetching[0]))
        uri, endpoint = address(draft, _URI.findall(text)[0])
        if found := re.search(r"--endpoint-url[= ](\S+)", text):
            endpoint = found[1]
        return uri, endpoint, fetching
    kind = next((k for k in volume if k != "name"), "no volume")
    raise draft.trouble(f"{path} lies on {kind}, where no address can be read from", ASK_SOURCE)


def _store(
    draft: Draft, uri: str, containers: Iterable[Mapping[str, Any]], pod: Mapping[str, Any]
) -> str:
    """Sets the Secret and the region of the source; the endpoint, where a variable says it."""
    secrets: dict[str, list[str]] = {}
    endpoint = region = ""
    for container in containers:
        for one in items(container, "env"):
            name, plain = str(one.get("name")), one.get("value")
            reference = block(block(one, "valueFrom"), "secretKeyRef")
            if reference and name in STORE_ENV:
                keys = secrets.setdefault(str(reference.get("name")), [])
                if reference.get("key") != name:
                    keys.append(f"{reference.get('key')} -> {name}")
            elif plain and name in ("AWS_ENDPOINT_URL", "S3_ENDPOINT"):
                endpoint = plain if "://" in str(plain) else f"https://{plain}"
            elif plain and name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
                region = str(plain)
            elif plain and name == "GOOGLE_APPLICATION_CREDENTIALS":
                if secret := _mounted_secret(pod, container, str(plain)):
                    key = str(plain).rpartition("/")[2]
                    renamed = [] if key == "credentials.json" else [f"{key} -> credentials.json"]
                    secrets[secret] = renamed
            elif plain and SECRET_ENV.fullmatch(name):
                draft.note(
                    f"env {name}",
                    "a credential in plain text is not carried over",
                    "put it into a Secret and name that in model.source.secretName",
                )
        for one in items(container, "envFrom"):
            if named := block(one, "secretRef").get("name"):
                secrets.setdefault(str(named), [])
    if uri.startswith(("pvc://", "image://")):
        return ""
    if len(secrets) == 1:
        ((secret, renamed),) = secrets.items()
        draft.put("model.source.secretName", secret)
        if renamed:
            draft.note(
                f"Secret {secret}",
                "its keys have other names than the fetch reads",
                f"add them to it: {', '.join(renamed)}",
            )
    elif secrets:
        draft.note(
            "model.source.secretName",
            f"credentials come from {len(secrets)} Secrets: {', '.join(secrets)}",
            "put what the store asks for into one, and name it",
        )
    if region and uri.startswith("s3://"):
        draft.put("model.source.region", region)
    return str(endpoint) if uri.startswith("s3://") else ""


def _mounted_secret(pod: Mapping[str, Any], container: Mapping[str, Any], path: str) -> str:
    names = {
        m.get("name")
        for m in items(container, "volumeMounts")
        if path.startswith(str(m.get("mountPath")))
    }
    for volume in items(pod, "volumes"):
        if volume.get("name") in names and (found := block(volume, "secret").get("secretName")):
            return str(found)
    return ""
