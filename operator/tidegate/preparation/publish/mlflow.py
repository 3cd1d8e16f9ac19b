"""A model as a version in an MLflow registry, by its REST API.

Files go into a run of their own, then the run becomes a version, then an alias may move to it. A
run is known by the tree's digest, so that a later call goes on with it, and a model that is there
already is no new version.

By REST, as the fetch container reads it: MLflow's own client (mlflow-skinny) is forty packages,
web servers among them. A server that hands out artifacts itself is written through; where it keeps
them in S3, they are sent there.
"""

import base64
import os
import time
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from tidegate.fetch.digest import file_sha256
from tidegate.preparation.publish import s3
from tidegate.preparation.publish.target import Files, Sent, StoreError, Tell, parsed
from tidegate.preparation.publish.web import Web, said

API: Final = "api/2.0/mlflow"
ARTIFACTS: Final = "api/2.0/mlflow-artifacts/artifacts"
DIGEST: Final = "tidegate.sha256"
"""Tag of runs and versions: digest of the tree."""
MODEL: Final = "model"
REPORT: Final = "report"
"""Folders of the run."""
NOT_THERE: Final = "RESOURCE_DOES_NOT_EXIST"
THERE: Final = "RESOURCE_ALREADY_EXISTS"


class Registry:
    """A registered model.

    Args:
        uri: ``mlflow://model`` or ``mlflow://model/@alias``.
        endpoint: the tracking server; '' means MLFLOW_TRACKING_URI.
        tell: is told what is sent.

    Raises:
        StoreError: no server is named.
    """

    def __init__(self, uri: str, endpoint: str, tell: Tell) -> None:
        match = parsed(uri)
        self._name, self._alias = unquote(match["name"]), match["alias"]
        self._shown = f"mlflow://{match['name']}"
        self._server = (endpoint or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
        if urlsplit(self._server).scheme not in ("http", "https"):
            raise StoreError(f"{self._shown}: name the server with --endpoint https://...")
        self._tell = tell
        self._web = Web(self._shown)
        self._secret = _login()
        self._run, self._root, self._version = "", "", ""

    def send(self, files: Files, sha256: str) -> Sent:
        """See `Target.send`."""
        run = self._known_run(sha256) or self._new_run(sha256)
        self._run, self._root = run["info"]["run_id"], run["info"]["artifact_uri"]
        self._version = self._known_version()
        sent = 0
        if not self._version:
            sent = self._put(files, MODEL)
            self._version = self._new_version(sha256)
        address = f"mlflow://{quote(self._name, safe='')}/{self._version}"
        return Sent(address, self._server, sent)

    def file(self, papers: Files) -> None:
        """See `Target.file`: into the same run; those of the last call stay."""
        self._put(papers, REPORT)
        self._post("runs/update", run_id=self._run, status="FINISHED", end_time=_now_ms())

    def announce(self) -> str:
        """See `Target.announce`."""
        if not self._alias:
            return ""
        self._post(
            "registered-models/alias", name=self._name, alias=self._alias, version=self._version
        )
        return f"{self._shown}/@{self._alias}"

    def _known_run(self, sha256: str) -> Any:
        """The run that an earlier call began; None: there is none."""
        experiment = self._get("experiments/get-by-name", experiment_name=self._experiment)
        if experiment is None:
            self._post("experiments/create", name=self._experiment)
            experiment = self._get("experiments/get-by-name", experiment_name=self._experiment)
        found = experiment["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            raise StoreError(f"{self._shown}: experiment {self._experiment} is deleted: restore it")
        self._experiment_id = found["experiment_id"]
        answer = self._post(
            "runs/search",
            experiment_ids=[self._experiment_id],
            filter=f"tags.`{DIGEST}` = '{sha256}'",
            max_results=1,
        )
        return next(iter(answer.get("runs", [])), None)

    @property
    def _experiment(self) -> str:
        return f"tidegate/{self._name}"

    def _new_run(self, sha256: str) -> Any:
        answer = self._post(
            "runs/create",
            experiment_id=self._experiment_id,
            run_name=sha256[:16],
            start_time=_now_ms(),
            tags=[{"key": DIGEST, "value": sha256}],
        )
        return answer["run"]

    def _known_version(self) -> str:
        filter_ = f"name = '{self._name}' and run_id = '{self._run}'"
        answer = self._get("model-versions/search", filter=filter_, max_results="1")
        versions = (answer or {}).get("model_versions", [])
        return str(versions[0]["version"]) if versions else ""

    def _new_version(self, sha256: str) -> str:
        self._post("registered-models/create", name=self._name, known=THERE)
        answer = self._post(
            "model-versions/create",
            name=self._name,
            source=f"{self._root.rstrip('/')}/{MODEL}",
            run_id=self._run,
            tags=[{"key": DIGEST, "value": sha256}],
        )
        return str(answer["model_version"]["version"])

    def _put(self, files: Files, folder: str) -> int:
        """Send files that are not there; how many."""
        parts = urlsplit(self._root)
        if parts.scheme == "s3":
            endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL", "")
            return s3.upload(files, f"{self._root}/{folder}", endpoint=endpoint, tell=self._tell)
        if parts.scheme not in ("mlflow-artifacts", "http", "https"):
            raise StoreError(
                f"{self._shown}: the server keeps files at {parts.scheme}:, where nothing can be "
                "sent to: run it with --serve-artifacts, or with an s3 artifact root"
            )
        root = parts.path.strip("/")
        root = root.rpartition(f"{ARTIFACTS}/")[2] + f"/{folder}"
        there = self._there(root)
        sent = 0
        for name, path in files.items():
            url = f"{self._server}/{ARTIFACTS}/{quote(f'{root}/{name}')}"
            digest = file_sha256(path)
            # The server tells sizes only, and what was cut off may have the right one.
            if there.get(name) == path.stat().st_size and self._digest(url) == digest:
                continue
            self._tell(f"sending {name}")
            self._web.ask("PUT", url, body=path, headers=self._secret)
            sent += 1
        return sent

    def _digest(self, url: str) -> str:
        return self._web.digest(url, self._secret)

    def _there(self, root: str) -> dict[str, int]:
        """Sizes by path of what lies in a folder of artifacts."""
        found, folders = {}, [""]
        for folder in folders:
            where = f"{root}/{folder}".rstrip("/")
            answer = self._web.ask(
                "GET",
                f"{self._server}/{ARTIFACTS}",
                query={"path": where},
                headers=self._secret,
                accept=frozenset({200, 404}),
            )
            for entry in answer.json().get("files", []) if answer.status_code == 200 else []:
                name = f"{folder}/{entry['path'].rpartition('/')[2]}".lstrip("/")
                if entry.get("is_dir"):
                    folders.append(name)
                else:
                    found[name] = int(entry.get("file_size") or 0)
        return found

    def _get(self, path: str, **query: str) -> Any:
        """What the server answers; None: there is no such thing."""
        return self._answer("GET", path, NOT_THERE, query=query)

    def _post(self, path: str, known: str = "", **document: Any) -> Any:
        """What the server answers; `known`: an error that is none."""
        return self._answer("POST", path, known, json=document)

    def _answer(self, method: str, path: str, known: str, **request: Any) -> Any:
        url = f"{self._server}/{API}/{path}"
        answer = self._web.ask(
            method, url, headers=self._secret, accept=frozenset(range(100, 600)), **request
        )
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.status_code == 200 and isinstance(document, dict):
            return document
        if known and isinstance(document, dict) and document.get("error_code") == known:
            return None
        raise StoreError(f"{self._shown}: {url} answers {said(answer)}")


def _login() -> dict[str, str]:
    """As MLflow's own client: a token, or user name and password, of the environment."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _now_ms() -> int:
    return int(1000 * time.time())
