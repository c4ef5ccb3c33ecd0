"""A model on disk: model.json and the weights that it names, neither of which is ever executed."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wembed.errors import ArtifactError, ReadError, SettingError
from wembed.transport.store import check_ours, write_atomically

__all__ = ["model_folder", "read_model", "write_model"]

_FORMAT = 18
_PACKAGES = ("wembed", "torch", "pot", "numpy", "scipy")


def model_folder(folder: "str | Path") -> Path:
    """The folder itself, or the model in it where it is a run of `wembed fit`."""
    folder = Path(folder)
    return folder / "model" if (folder / "model" / "model.json").is_file() else folder


def write_model(folder: Path, description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write a description and tensors, so that a kill leaves the old model or the new one.

    Raises:
        ArtifactError: the folder holds a model.json that is not a model's.
        SettingError: it is a file.
    """
    from safetensors.torch import save  # imported late: most of wembed writes no weights

    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder} is a file; give a folder for the model")
    check_ours(folder / "model.json", "model")
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(weights).hexdigest()
    file = f"weights-{digest[:16]}.safetensors"
    whole = {
        "kind": "model",
        "format": _FORMAT,
        **description,
        "weights": file,
        "weights_sha256": digest,
        "versions": {name: version(name) for name in _PACKAGES},
    }
    plain = json.loads(json.dumps(whole, default=_plain, allow_nan=False))
    plain["sha256"] = _digest(plain)
    # The description comes last and names the weights.
    write_atomically(folder / file, weights)
    write_atomically(folder / "model.json", (json.dumps(plain, indent=1) + "\n").encode())
    for old in folder.glob("weights-" + "[0-9a-f]" * 16 + ".safetensors"):
        if old.name != file:
            old.unlink()


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The description and the tensors that `write_model` wrote.

    Raises:
        ReadError: there is no model in the folder.
        ArtifactError: it is damaged or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = folder / "model.json"
    try:
        description = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReadError(f"{folder} holds no model; give a folder that wembed fit or Embedder.save wrote") from error
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged: {error}; fit the model again") from error
    try:
        if description["kind"] != "model" or description["format"] != _FORMAT:
            raise ArtifactError(
                f"{folder} holds format {description['format']} of a {description['kind']}, not {_FORMAT}; fit it again"
            )
        if _digest(description) != description["sha256"]:
            raise ArtifactError(f"{file} is damaged: its checksum is another; fit the model again")
        weights_file = folder / Path(description["weights"]).name
        weights = weights_file.read_bytes()
        if hashlib.sha256(weights).hexdigest() != description["weights_sha256"]:
            raise ArtifactError(
                f"{weights_file} is damaged: its checksum is not the one in model.json; fit the model again"
            )
        return description, load(weights)
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is gone; fit the model again") from error
    except (KeyError, TypeError, SafetensorError) as error:
        raise ArtifactError(f"{file} is damaged: {error}; fit the model again") from error


def _digest(description: dict[str, Any]) -> str:
    content = {key: value for key, value in description.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
