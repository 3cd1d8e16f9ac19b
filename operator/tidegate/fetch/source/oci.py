"""``oci://registry/name:tag`` or ``...@sha256:digest``: a container image or an OCI artifact.

* An **image** (a "modelcar"): its layers are unpacked over each other; if it has a folder
  ``/models``, that is the model, otherwise all of it.
* An **artifact** (as ORAS and the model packers write them): each layer is a file, named by its
  title, or a packed folder.

A small client on this package's own HTTP rather than a library: the ones there are (oras) read a
blob from its beginning only, follow redirects by themselves, and are not asynchronous; what is
needed of the protocol is three requests.

Secret keys: ``.dockerconfigjson`` (a Secret of type kubernetes.io/dockerconfigjson), or
``username`` and ``password``, or ``token``. ``endpoint``: where the registry's API is, if not at
https://registry (a mirror, or a registry without TLS).
"""

import base64
import hashlib
import json
import platform
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from tidegate.fetch.errors import (
    AccessDenied,
    ArtifactInvalid,
    ChecksumMismatch,
    ConfigInvalid,
    CredentialsMissing,
    SourceUnreachable,
)
from tidegate.fetch.source import Context, Listing, RemoteFile
from tidegate.fetch.source.http import URI_FIELD, Http
from tidegate.fetch.source.https import read_range

KEYS = ".dockerconfigjson, or username and password"
MAX_MANIFEST_BYTES = 4 << 20  # what registries accept at most, by the distribution spec
_URI = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(:[0-9]+)?)/(?P<name>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.IGNORECASE,
)
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_IMAGE_CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
# Names of a file, in the order they are looked at: ORAS and OCI, CNCF ModelPack, KitOps.
_TITLES = ("org.opencontainers.image.title", "org.cncf.model.filepath")
_UNPACK = "io.deis.oras.content.unpack"
_TAR = re.compile(r"[.+]tar([.+](gzip|zstd))?$")
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}


def open_source(context: Context) -> "OciSource":
    """See `tidegate.fetch.source.open_source`."""
    return OciSource(context)


class OciSource:
    """One manifest of a registry."""

    def __init__(self, context: Context) -> None:
        """Check the reference and read the credentials."""
        self._uri = context.request.uri
        match = _URI.fullmatch(self._uri)
        if match is None or not (match["tag"] or match["digest"]):
            raise ConfigInvalid(
                URI_FIELD,
                self._uri,
                "it must be oci://registry/name:tag or oci://registry/name@sha256:...",
                "Name the registry, and a tag or, better, a digest",
            )
        self._reference = match["digest"] or match["tag"]
        endpoint = (context.request.endpoint or f"https://{match['host']}").rstrip("/")
        self._base = f"{endpoint}/v2/{match['name']}"
        self._repository = f"oci://{match['host']}/{match['name']}"
        self._credentials = context.credentials
        self._login = _login(context, match["host"])
        self._authorization: dict[str, str] = {}
        self._http = Http(context.addresses, context.trust, context.credentials, KEYS)

    async def listing(self) -> Listing:
        """The layers of the manifest, by digest."""
        manifest, digest = await self._manifest(self._reference)
        address = f"{self._repository}@{digest}"
        for _ in range(2):  # an index of indexes is allowed, once
            if "manifests" not in manifest:
                break
            manifest, _ = await self._manifest(_choose(manifest["manifests"], self._uri))
        layers = manifest.get("layers")
        if not isinstance(layers, list):
            raise self._invalid("its manifest has no layers")
        config = manifest.get("config", {}).get("mediaType", "")
        titled = any(_title(layer) for layer in layers)
        if config in _IMAGE_CONFIGS and not titled:
            files = tuple(self._layer(i, layer) for i, layer in enumerate(layers))
            return Listing(files, layers=True, address=address)
        return Listing(tuple(self._file(layer) for layer in layers), address=address)

    async def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """See `Source.read`."""
        plain = RemoteFile(file.path, file.size, None, file.key)
        for attempt in (1, 2):
            try:
                async for chunk in read_range(
                    self._http, plain, offset, length, self._authorization
                ):
                    yield chunk
                return
            except (AccessDenied, CredentialsMissing):
                # Tokens last minutes, large layers longer; nothing has been yielded yet.
                if attempt == 2:
                    raise
                await self._manifest(self._reference)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    def _layer(self, index: int, layer: Any) -> RemoteFile:
        file = self._blob(layer, f"layer-{index:03d}.tar")
        if not _TAR.search(str(layer.get("mediaType", ""))):
            raise self._invalid(f"a layer of type {layer.get('mediaType')!r}")
        return file

    def _file(self, layer: Any) -> RemoteFile:
        title = _title(layer)
        packed = bool(_TAR.search(str(layer.get("mediaType", ""))))
        annotations = layer.get("annotations") or {}
        if annotations.get(_UNPACK) == "true" or (packed and not _is_archive_title(title)):
            digest = str(layer.get("digest", ""))
            # The title alone may name the folder that is inside: the file needs another name.
            return self._blob(layer, f".{digest.replace(':', '-')}.tar", unpack="")
        if not title:
            raise self._invalid(f"a layer without {_TITLES[0]}, of type {layer.get('mediaType')!r}")
        return self._blob(layer, title)

    def _blob(self, layer: Any, path: str, unpack: str | None = None) -> RemoteFile:
        digest, size = str(layer.get("digest", "")), layer.get("size")
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or not isinstance(size, int):
            raise self._invalid(f"a layer with digest {digest[:80]!r} and size {size!r}")
        sha256 = digest.removeprefix("sha256:")
        return RemoteFile(
            path, size, digest, f"{self._base}/blobs/{digest}", sha256=sha256, unpack=unpack
        )

    async def _manifest(self, reference: str) -> tuple[dict[str, Any], str]:
        """A manifest, and its digest."""
        url = f"{self._base}/manifests/{reference}"
        headers = {"Accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        body = await self._get(url, headers)
        found = "sha256:" + hashlib.sha256(body).hexdigest()
        if reference.startswith("sha256:") and found != reference:
            raise ChecksumMismatch(
                URI_FIELD, self._uri, f"the registry sent a manifest {found}", "Ask its operator"
            )
        try:
            manifest = json.loads(body)
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict):
            raise self._invalid("the registry sent something that is no manifest")
        return manifest, found

    async def _get(self, url: str, headers: Mapping[str, str]) -> bytes:
        """GET, asking for a token when the registry says so."""
        async with self._http.get(
            url, headers, self._authorization, frozenset({200, 401})
        ) as response:
            if response.status == 200:
                return await self._body(response, url)
            challenge = response.headers.get("WWW-Authenticate", "")
        self._authorization = await self._authorize(challenge, url)
        async with self._http.get(url, headers, self._authorization) as response:
            return await self._body(response, url)

    async def _authorize(self, challenge: str, url: str) -> dict[str, str]:
        """The header that the registry's challenge asks for.

        Raises:
            CredentialsMissing: it asks for a login and there is none.
        """
        kind, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', rest))
        if kind.lower() == "basic":
            if not self._login:
                raise self._credentials.missing(KEYS, self._uri)
            return self._login
        realm = fields.get("realm", "")
        if kind.lower() != "bearer" or not realm:
            raise SourceUnreachable(
                URI_FIELD, self._uri, f"it asks for {kind[:40]!r} login", "Use another registry"
            )
        if urlsplit(url).scheme == "https" and urlsplit(realm).scheme != "https":
            raise ConfigInvalid(
                URI_FIELD, self._uri, "it asks for a login in clear text", "Ask its operator"
            )
        query = {k: fields[k] for k in ("service", "scope") if k in fields}
        token_url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        async with self._http.get(token_url, {}, self._login) as response:
            answer = json.loads(await self._body(response, token_url))
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise SourceUnreachable(
                URI_FIELD, self._uri, "its login server gave no token", "Ask its operator"
            )
        return {"Authorization": f"Bearer {token}"}

    async def _body(self, response: Any, url: str) -> bytes:
        body = bytearray()
        async for chunk in self._http.chunks(response, url):
            body += chunk
            if len(body) > MAX_MANIFEST_BYTES:
                raise self._invalid(f"an answer above {MAX_MANIFEST_BYTES} bytes")
        return bytes(body)

    def _invalid(self, problem: str) -> ArtifactInvalid:
        return ArtifactInvalid(URI_FIELD, self._uri, problem, "Push the model anew")


def _title(layer: Any) -> str:
    annotations = layer.get("annotations") or {} if isinstance(layer, dict) else {}
    return next((str(annotations[t]) for t in _TITLES if annotations.get(t)), "")


def _is_archive_title(title: str) -> bool:
    """A tar pushed as a file of its own, rather than a folder that the packer packed."""
    return title.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst"))


def _choose(manifests: Any, uri: str) -> str:
    """The digest of the manifest for this machine.

    Raises:
        ArtifactInvalid: there is none.
    """
    arch = _ARCHES.get(platform.machine(), platform.machine())
    usable = [m for m in manifests if isinstance(m, dict) and m.get("mediaType") != "unknown"]
    mine = [
        m
        for m in usable
        if (m.get("platform") or {}).get("architecture") == arch
        and (m.get("platform") or {}).get("os") == "linux"
    ]
    chosen = mine or (usable if len(usable) == 1 else [])
    if not chosen or not re.fullmatch(r"sha256:[0-9a-f]{64}", str(chosen[0].get("digest"))):
        seen = ", ".join(str((m.get("platform") or {}).get("architecture")) for m in usable)
        raise ArtifactInvalid(
            URI_FIELD, uri, f"its index has no linux/{arch}, only: {seen}", "Push it for that too"
        )
    return str(chosen[0]["digest"])


def _login(context: Context, host: str) -> dict[str, str]:
    """The basic login for a registry from the Secret; empty if there is none.

    Raises:
        CredentialsMissing: a docker config without this registry.
    """
    credentials = context.credentials
    if user := credentials.get("username"):
        password = credentials.need("password", purpose=context.request.uri)
        return _basic(f"{user}:{password}")
    config = credentials.get(".dockerconfigjson", "config.json")
    if config is None:
        token = credentials.get("token")
        return {"Authorization": f"Bearer {token}"} if token else {}
    try:
        auths = json.loads(config)["auths"]
        for name, entry in auths.items():
            if (urlsplit(name).netloc or name.partition("/")[0]) == host:
                if "auth" in entry:
                    return _basic(base64.b64decode(entry["auth"]).decode())
                return _basic(f"{entry['username']}:{entry['password']}")
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise credentials.missing(".dockerconfigjson (a docker config with auths)", host) from exc
    raise credentials.missing(f".dockerconfigjson with an entry for {host}", host)


def _basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
