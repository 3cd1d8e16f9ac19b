"""Builds Triton repositories of two real Magika generations from the wheels that carry them.

``python -m e2e.models.magika.build FOLDER`` gives ``FOLDER/v1/magika/...`` (standard_v1, of
magika 0.5.1) and ``FOLDER/v3/magika/...`` (standard_v3_3, of magika 0.6.2): each a repository with
one model, a few MB. The wheels are kept in the cache. Equal inputs give equal bytes, so the
digest of a tree is the same wherever it is built.
"""

import argparse
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.native.parts import cache_dir, environment, locked

MODEL: Final = "magika"
HERE: Final = Path(__file__).parent

Settings = dict[str, Any]


@dataclass(frozen=True)
class Generation:
    """One generation: which wheel, which network, and how its settings are read."""

    name: str
    package_version: str
    network: str
    settings: Callable[[zipfile.ZipFile], Settings]


def _read(wheel: zipfile.ZipFile, path: str) -> Any:
    return json.loads(wheel.read(f"magika/{path}"))


def _standard_v1(wheel: zipfile.ZipFile) -> Settings:
    model = _read(wheel, "models/standard_v1/model_config.json")
    package = _read(wheel, "config/magika_config.json")
    overwrite = _read(wheel, "models/standard_v1/model_output_overwrite_map.json")
    thresholds = _read(wheel, "models/standard_v1/thresholds.json")["thresholds"]
    types = _read(wheel, "config/content_types_config.json")
    labels = model["train_dataset_info"]["target_labels_info"]["target_labels_space"]
    sizes = model["cfg"]["input_sizes"]
    return {
        "begin": sizes["beg"],
        "middle": sizes["mid"],
        "end": sizes["end"],
        "block": package["block_size"],
        "padding": package["padding_token"],
        "fewest_bytes": package["min_file_size_for_dl"],
        "smallest_file": package["min_file_size_for_dl"] + 1,
        "dtype": "float32",
        "labels": labels,
        "text_labels": sorted(name for name, kind in types.items() if "text" in kind["tags"]),
        "overwrite": overwrite,
        # This generation looks the threshold up under the overwritten label.
        "thresholds": {label: thresholds[overwrite.get(label, label)] for label in labels},
    }


def _standard_v3(wheel: zipfile.ZipFile) -> Settings:
    model = _read(wheel, "models/standard_v3_3/config.min.json")
    types = _read(wheel, "config/content_types_kb.min.json")
    labels = model["target_labels_space"]
    return {
        "begin": model["beg_size"],
        "middle": model["mid_size"],
        "end": model["end_size"],
        "block": model["block_size"],
        "padding": model["padding_token"],
        "fewest_bytes": model["min_file_size_for_dl"],
        "smallest_file": model["min_file_size_for_dl"],
        "dtype": "int32",
        "labels": labels,
        "text_labels": sorted(name for name, kind in types.items() if kind["is_text"]),
        "overwrite": model["overwrite_map"],
        "thresholds": {
            label: model["thresholds"].get(label, model["medium_confidence_threshold"])
            for label in labels
        },
    }


GENERATIONS: Final = (
    Generation("v1", "0.5.1", "standard_v1", _standard_v1),
    Generation("v3", "0.6.2", "standard_v3_3", _standard_v3),
)


def wheel(generation: Generation) -> Path:
    """The generation's wheel, from the cache or from PyPI.

    Raises:
        subprocess.CalledProcessError: it could not be downloaded; pip's words were printed.
    """
    folder = cache_dir() / "magika"
    path = folder / f"magika-{generation.package_version}-py3-none-any.whl"
    with locked(path):
        if not path.exists():
            python = environment("pip")  # our own may have been made without it
            download = [str(python), "-m", "pip", "download", "--quiet", "--no-deps"]
            # The wheel without compiled parts: one file for every machine.
            download += ["--only-binary", ":all:", "--platform", "any"]
            package = f"magika=={generation.package_version}"
            subprocess.run([*download, "--dest", str(folder), package], check=True)
    return path


def build(target: Path) -> dict[str, Path]:
    """Writes the repositories under `target`; the folder of each generation, by its name."""
    repositories = {}
    for generation in GENERATIONS:
        repository = target / generation.name
        shutil.rmtree(repository, ignore_errors=True)
        version = repository / MODEL / "1"
        version.mkdir(parents=True)
        shutil.copyfile(HERE / "config.pbtxt", repository / MODEL / "config.pbtxt")
        shutil.copyfile(HERE / "model.py", version / "model.py")
        with zipfile.ZipFile(wheel(generation)) as archive:
            network = archive.read(f"magika/models/{generation.network}/model.onnx")
            settings = generation.settings(archive)
        (version / "model.onnx").write_bytes(network)
        (version / "magika.json").write_text(json.dumps(settings, sort_keys=True, indent=1) + "\n")
        repositories[generation.name] = repository
    return repositories


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, repository in build(parser.parse_args().folder).items():
        files = [p for p in repository.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files)
        print(f"{name}: {repository} ({len(files)} files, {size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
