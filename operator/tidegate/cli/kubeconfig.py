"""Which API server, as whom: kubeconfig files as kubectl reads them, or the pod's own account.

The files of ``KUBECONFIG`` are merged, the first to name something wins, and relative paths count
from the file that names them. Credentials: client certificates, tokens, token files, exec plugins,
user name and password. kopf's login reads kubeconfigs, too, but runs no plugins, and importing it
takes longer than a whole command here may.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from tidegate.cli.trouble import Misuse, Trouble

Document = dict[str, Any]

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATHS: Final = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
}


@dataclass(frozen=True)
class Credentials:
    """What proves who asks.

    Attributes:
        token: bearer token.
        token_file: file that holds it, read again for each connection.
        basic: ``user:password``.
        certificate: PEM of a client's certificate.
        key: PEM of its key.
    """

    token: str = ""
    token_file: Path | None = None
    basic: str = ""
    certificate: str = ""
    key: str = ""

    def authorization(self) -> str:
        """The header's value; '' without one.

        Raises:
            Trouble: the token's file cannot be read.
        """
        if self.token_file is not None:
            return f"Bearer {_read(self.token_file).strip()}"
        if self.token:
            return f"Bearer {self.token}"
        if self.basic:
            return f"Basic {base64.b64encode(self.basic.encode()).decode()}"
        return ""


@dataclass(frozen=True)
class Access:
    """One API server, and as whom to speak to it.

    Attributes:
        server: its address, with a path where it has one.
        namespace: the one that is meant where none is named.
        user: the kubeconfig's user entry; `credentials` reads it.
        folder: of the file that holds it.
        cluster: the kubeconfig's cluster entry.
        authority: PEM of the CA; '' means the system's.
        insecure: do not check the server's certificate.
        server_name: name in the server's certificate; '' means the address's.
        proxy: address of an HTTP proxy; '' means the environment's.
    """

    server: str
    namespace: str = "default"
    user: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    cluster: Mapping[str, Any] = field(default_factory=dict)
    authority: str = ""
    insecure: bool = False
    server_name: str = ""
    proxy: str = ""

    def credentials(self) -> Credentials:
        """Who asks, now: an exec plugin is run.

        Raises:
            Trouble: there is no such plugin, or it failed, or a file cannot be read.
        """
        user = self.user
        if plugin := user.get("exec"):
            return _run_plugin(plugin, self)
        if provider := user.get("auth-provider"):
            raise Trouble(
                f"the kubeconfig's auth-provider {provider.get('name')} is not supported",
                "use an exec plugin, as kubectl itself has since 1.26",
            )
        if user.get("tokenFile"):
            return Credentials(token_file=Path(user["tokenFile"]))
        return Credentials(
            token=user.get("token") or "",
            basic=f"{user['username']}:{user.get('password', '')}" if user.get("username") else "",
            certificate=_data_or_file(user, "client-certificate"),
            key=_data_or_file(user, "client-key"),
        )

    def impersonation(self) -> list[tuple[str, str]]:
        """Headers that ask to act as somebody else."""
        user = self.user
        found = [("Impersonate-User", user["as"])] if user.get("as") else []
        found += [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
        found += [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
        for key, values in (user.get("as-user-extra") or {}).items():
            found += [(f"Impersonate-Extra-{key}", value) for value in values]
        return found


def access(
    *,
    kubeconfig: str | None = None,
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """The API server to use.

    Args:
        kubeconfig: one file, instead of ``KUBECONFIG`` and ``~/.kube/config``.
        context: instead of the current one.
        environment: variables.
        service_account: where a pod finds its own.

    Raises:
        Trouble: nothing names an API server, or a file cannot be used.
    """
    if kubeconfig:
        files = [Path(kubeconfig)]
        if not files[0].is_file():
            raise Misuse(f"there is no kubeconfig {kubeconfig}", "correct --kubeconfig")
    else:
        listed = [Path(p) for p in (environment.get("KUBECONFIG") or "").split(os.pathsep) if p]
        default = Path(environment.get("HOME") or Path.home()) / ".kube" / "config"
        files = [p for p in listed or [default] if p.is_file()]
    config = _merged(files)
    name = context or config["current-context"]
    if not name and not config["clusters"]:
        host = environment.get("KUBERNETES_SERVICE_HOST")
        if host and (service_account / "token").is_file():
            return _in_cluster(host, environment, service_account)
        raise Trouble(
            "no kubeconfig names an API server", "set KUBECONFIG, or pass --kubeconfig FILE"
        )
    if not name:
        raise Trouble(
            "the kubeconfig has no current context",
            f"pass --context, one of {', '.join(sorted(config['contexts'])) or '(none)'}",
        )
    if context and context not in config["contexts"]:
        known = ", ".join(sorted(config["contexts"])) or "(none)"
        raise Misuse(f"--context {context!r} is not in the kubeconfig", f"it has {known}")
    chosen = _entry(config, "contexts", name)
    cluster = _entry(config, "clusters", chosen.get("cluster") or "")
    user = _entry(config, "users", chosen["user"]) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise Trouble(f"the kubeconfig's cluster {chosen['cluster']} has no server")
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        user=user,
        folder=Path(user.get("_folder") or "."),
        cluster=cluster,
        authority=_data_or_file(cluster, "certificate-authority"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        server_name=cluster.get("tls-server-name") or "",
        proxy=cluster.get("proxy-url") or "",
    )


def _in_cluster(host: str, environment: Mapping[str, str], folder: Path) -> Access:
    host = f"[{host}]" if ":" in host else host
    space = folder / "namespace"
    return Access(
        server=f"https://{host}:{environment.get('KUBERNETES_SERVICE_PORT') or '443'}",
        namespace=_read(space).strip() if space.is_file() else "default",
        user={"tokenFile": str(folder / "token")},
        authority=_read(folder / "ca.crt"),
    )


def _merged(files: list[Path]) -> Document:
    """All files as one, with entries by name and paths made absolute."""
    merged: Document = {"contexts": {}, "clusters": {}, "users": {}, "current-context": ""}
    for path in files:
        try:
            config = yaml.load(_read(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError as error:
            raise Trouble(f"{path} is no YAML: {error}", "correct it") from None
        if config is None:
            continue
        if not isinstance(config, dict):
            raise Trouble(f"{path} is no kubeconfig", "correct it")
        merged["current-context"] = merged["current-context"] or config.get("current-context")
        for kind in ("contexts", "clusters", "users"):
            for item in config.get(kind) or ():
                entry = dict(item.get(kind[:-1]) or {})
                for key in _PATHS.get(kind, ()):
                    if entry.get(key):
                        entry[key] = str(path.parent / entry[key])
                entry["_folder"] = str(path.parent)
                merged[kind].setdefault(item.get("name"), entry)
    return merged


def _entry(config: Document, kind: str, name: str) -> Document:
    try:
        found: Document = config[kind][name]
    except KeyError:
        known = ", ".join(sorted(config[kind])) or "(none)"
        raise Trouble(f"the kubeconfig has no {kind[:-1]} {name}", f"it has {known}") from None
    return found


def _data_or_file(entry: Mapping[str, Any], key: str) -> str:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return _read(Path(entry[key])) if entry.get(key) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Trouble(f"{path} cannot be read: {error}") from None


def _run_plugin(plugin: Mapping[str, Any], where: Access) -> Credentials:
    """Run an exec plugin (client.authentication.k8s.io)."""
    command = str(plugin.get("command") or "")
    if "/" in command:  # relative to the kubeconfig; a bare name is looked up in PATH
        command = str(where.folder / command)
    program = shutil.which(command)
    if program is None:
        raise Trouble(
            f"the kubeconfig's exec plugin {command} is not installed",
            plugin.get("installHint") or "install it",
        )
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()
    spec: Document = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        kept = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
        spec["cluster"] = {k: where.cluster[k] for k in kept if where.cluster.get(k)}
        if where.authority:
            data = base64.b64encode(where.authority.encode()).decode()
            spec["cluster"]["certificate-authority-data"] = data
        for extension in where.cluster.get("extensions") or ():
            if extension.get("name") == "client.authentication.k8s.io/exec":
                spec["cluster"]["config"] = extension.get("extension")
    info = {
        "apiVersion": plugin.get("apiVersion") or "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "spec": spec,
    }
    added = {e["name"]: e["value"] for e in plugin.get("env") or ()}
    try:
        done = subprocess.run(
            [program, *(plugin.get("args") or ())],
            env={**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.CalledProcessError) as error:
        raise Trouble(f"the kubeconfig's exec plugin failed: {error}", "log in again") from None
    except (ValueError, KeyError, TypeError):
        raise Trouble(f"the exec plugin {command} printed no ExecCredential") from None
    return Credentials(
        token=status.get("token") or "",
        certificate=status.get("clientCertificateData") or "",
        key=status.get("clientKeyData") or "",
    )
