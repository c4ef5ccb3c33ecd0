"""Training an encoder on exact distances: the visible loop."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import nn

from wembed.errors import ArtifactError, SettingError
from wembed.learning.losses import Loss, distance_error
from wembed.options import above_zero, not_negative, share, whole

__all__ = ["USUAL_PAIRS", "Auxiliary", "Examples", "TrainingSettings", "check_checkpoint", "train"]

_VALIDATION_NUMBERS = 1 << 24  # in the vectors of the pairs that are looked at in one go
USUAL_PAIRS = 16_000  # to train on, that steps, batches and learning rates are chosen for
_BATCH_PAIRS, _BATCH_MEASURES = 1792, 512  # 64 cliques of 8 measures
_ANOTHER = "{file} belongs to another training; delete it, or give another file"
_OR_NONE = ", or None for what suits"
_RUN = 28  # neighbouring pairs that stay together in a batch: the pairs of one clique of 8


@dataclass(frozen=True)
class TrainingSettings:
    """How an encoder is trained.

    Attributes:
        steps: gradient steps; None chooses them by the encoder and the number of pairs.
        batch_pairs: pairs in a step, rounded down to cliques of 28 pairs; None chooses them by the encoder and the
            number of pairs.
        batch_measures: measures in a step that each of the other tasks sees, unless it has a number of its own; None
            chooses them by the number of pairs.
        learning_rate: the peak of the one-cycle schedule; None chooses it by the encoder and the number of pairs.
        weight_decay: of AdamW.
        warm_up: share of the steps in which the learning rate rises.
        checks: how often the validation error is taken, at most.
        patience: training stops when the validation error has not improved for this share of the checks.
        auxiliary: weight of the error of the auxiliary task, as a share of the variance of its targets; 0 for none.
        reconstruction: weight of the loss of a decoder that is trained along with the encoder; 0 for none, which leaves
            the encoder to the distances alone.
        seed: draws the order of the batches.

    Raises:
        SettingError: a number outside its range.
    """

    steps: int | None = None
    batch_pairs: int | None = None
    batch_measures: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 1e-2
    warm_up: float = 0.15
    checks: int = 40
    patience: float = 0.5
    auxiliary: float = 0.1
    reconstruction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        plain: dict[str, float | None] = {"seed": whole("seed", self.seed), "checks": whole("checks", self.checks, 1)}
        for name in ("steps", "batch_pairs", "batch_measures"):
            given = getattr(self, name)
            plain[name] = None if given is None else whole(name, given, 1, also=_OR_NONE)
        rate = self.learning_rate
        plain["learning_rate"] = None if rate is None else above_zero("learning_rate", rate, 2e-3)
        plain["warm_up"] = share("warm_up", self.warm_up, 0.15)
        plain["patience"] = patience = above_zero("patience", self.patience, 0.5)
        if patience > 1:
            raise SettingError(f"patience={self.patience!r}; give a share of the checks, at most 1")
        for name in ("weight_decay", "auxiliary", "reconstruction"):
            plain[name] = not_negative(name, getattr(self, name))
        for name, value in plain.items():  # a number of NumPy has no place in the JSON of a checkpoint
            object.__setattr__(self, name, value)

    def resolved(
        self, pairs: int, steps: int = 2_000, learning_rate: float = 2e-3, batch_pairs: int = _BATCH_PAIRS
    ) -> "TrainingSettings":
        """With what is None chosen: `learning_rate`, and `steps` at 16,000 pairs, growing with the square root.

        Up to 16,000 pairs batches grow with the square root too, so that each pair is seen equally often, to
        `batch_pairs`.
        """
        root = math.sqrt(pairs / USUAL_PAIRS)
        size = min(max(root, 0.25), 1.0)
        return replace(
            self,
            steps=self.steps or min(max(round(steps * root), steps // 10), 25 * steps),
            batch_pairs=self.batch_pairs or round(batch_pairs * size),
            batch_measures=self.batch_measures or round(_BATCH_MEASURES * size),
            learning_rate=self.learning_rate or learning_rate,
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step: one cycle, up and down along cosines (Smith and Topin 2018)."""
        rise, peak = max(1, round(self.warm_up * steps)), self.learning_rate or 0.0
        if step < rise:
            return peak * (0.52 - 0.48 * math.cos(math.pi * step / rise))
        return peak * (1e-4 + 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


@dataclass(frozen=True, eq=False)
class Auxiliary:
    """A second task for the encoder, one that needs no exact distances between measures.

    Attributes:
        head: a module that predicts the targets, called with the encoder and features.
        features: of any measures.
        targets: what is to be predicted of each.
        loss: of predictions and targets; None for the squared error, as a share of the variance of the targets.
        batch: measures in a step; None for as many as the settings say.
    """

    head: nn.Module
    features: Float32[np.ndarray, "n *shape"]
    targets: Float32[np.ndarray, "n *target"]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    batch: int | None = None


@dataclass(frozen=True, eq=False)
class Examples:
    """What an encoder learns from, in units in which a typical distance is 1.

    Attributes:
        features: of every measure that occurs in a pair; in copies, each seen after an isometry that moved all
            measures alike, so that distances are the same in each copy. The first copy is the measures as they are.
        exact_part: coordinates that stand beside the encoder's output as they are (the centroid); may be empty.
        train_pairs: rows of `features`.
        train_distances: their exact distances.
        validation_pairs: rows of `features`; none of these measures is in a training pair.
        validation_distances: their exact distances.
        auxiliary: a second task, if there is one.
        reconstruction: the task of a decoder, if one is trained along.
    """

    features: Float32[np.ndarray, "copies n *shape"]
    exact_part: Float32[np.ndarray, "n exact"]
    train_pairs: Int64[np.ndarray, "k 2"]
    train_distances: Float64[np.ndarray, " k"]
    validation_pairs: Int64[np.ndarray, "v 2"]
    validation_distances: Float64[np.ndarray, " v"]
    auxiliary: Auxiliary | None = None
    reconstruction: Auxiliary | None = None

    def digest(self) -> str:
        """A hash of every array here."""
        content = hashlib.sha256()
        tasks = {"auxiliary": self.auxiliary, "reconstruction": self.reconstruction}
        arrays = [array for name, array in vars(self).items() if name not in tasks]
        arrays += [array for task in tasks.values() if task for array in (task.features, task.targets)]
        for array in arrays:
            content.update(f"{array.shape}{array.dtype}".encode())
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()


def check_checkpoint(file: Path) -> None:
    """Refuse, before anything is solved, a file that no training has left.

    Raises:
        ArtifactError: it is damaged or something else.
    """
    if file.exists():
        with _opened(file):
            pass


def train(
    encoder: nn.Module,
    examples: Examples,
    settings: TrainingSettings | None = None,
    loss: Loss = distance_error,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> list[tuple[int, float]]:
    """Train an encoder in place and leave it in the state of least loss on the validation pairs, the start included.

    An encoder without parameters is left as it is.

    Args:
        encoder: maps a batch of features to vectors.
        examples: features, pairs and distances.
        settings: how to train.
        loss: of squared predicted and exact distances.
        device: a torch device.
        checkpoint: a file to save the state in at each check, and to go on from if it is there. The result is the
            same as without the interruption. It stays there, also when training has ended.
        progress: called with the steps done, the steps in all, and the last validation error.

    Returns:
        The step and the validation error (root mean square of W - predicted) of each check.

    Raises:
        ArtifactError: the checkpoint belongs to another training.
    """
    settings = (settings or TrainingSettings()).resolved(len(examples.train_pairs))
    modules = nn.ModuleDict({"encoder": encoder})
    batch_pairs, shown = settings.batch_pairs or _BATCH_PAIRS, settings.batch_measures or _BATCH_MEASURES
    tasks = []
    for name, given in (("auxiliary", examples.auxiliary), ("reconstruction", examples.reconstruction)):
        weight = getattr(settings, name)
        if given and weight:
            modules[name] = given.head
            tasks.append((weight, _AuxiliaryTask(given, shown, [settings.seed, len(modules) - 1], device)))
    modules.to(device)
    features = torch.from_numpy(examples.features).to(device)
    exact_part = torch.from_numpy(examples.exact_part).to(device)
    pairs = torch.from_numpy(examples.train_pairs).to(device)
    distances = torch.from_numpy(examples.train_distances).float().to(device)
    steps, peak = settings.steps or 1, settings.learning_rate or 0.0
    every = max(1, -(-steps // settings.checks))

    def squared_distances(rows: torch.Tensor, copy: int = 0) -> torch.Tensor:
        measures, place = torch.unique(rows, return_inverse=True)
        vectors = torch.cat([encoder(features[copy][measures]), exact_part[measures]], dim=1)
        # The gradient of a look-up is summed in a fixed order, that of plain indexing in whichever comes first.
        ends = torch.nn.functional.embedding(place, vectors)
        return (ends[:, 0] - ends[:, 1]).square().sum(dim=1)

    def validated() -> tuple[float, float]:
        """The error and the loss on the validation pairs."""
        encoder.eval()
        with torch.no_grad():
            total = np.zeros(2)
            block = max(_RUN, min(8192, _VALIDATION_NUMBERS // encoder(features[0][:1]).shape[1]))
            for start in range(0, len(examples.validation_pairs), block):
                part = slice(start, start + block)
                squared = squared_distances(torch.from_numpy(examples.validation_pairs[part]).to(device))
                squared, exact = squared.cpu().double(), torch.from_numpy(examples.validation_distances[part])
                total += [float(one(squared, exact)) * len(exact) for one in (distance_error, loss)]
        encoder.train()
        error, lost = total / len(examples.validation_pairs)
        return math.sqrt(error), float(lost)

    if not list(encoder.parameters()):
        return [(0, validated()[0])]  # there is nothing to train
    optimizer = torch.optim.AdamW(
        modules.parameters(),
        lr=peak,
        weight_decay=settings.weight_decay,
        betas=(0.9, 0.99),
        fused=torch.device(device).type in ("cpu", "cuda"),  # elsewhere not with every torch
    )
    batches = _Batches(len(pairs), batch_pairs, settings.seed)
    identity = {
        **asdict(settings),
        "loss": loss.__name__,
        "modules": {name: list(tensor.shape) for name, tensor in modules.state_dict().items()},
        "examples": examples.digest() if checkpoint else "",
    }
    state = _State(modules, optimizer, checkpoint, identity)
    if not state.resume():
        state.check(0, *validated())
    while state.step < steps and not state.stale(settings.patience * settings.checks):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(state.step, steps)
        rows = batches.rows(state.step).to(device)
        objective = loss(squared_distances(pairs[rows], batches.copy(state.step, len(features))), distances[rows])
        for weight, task in tasks:
            objective = objective + weight * task.error(encoder, state.step)
        optimizer.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        state.step += 1
        if state.step % every == 0 or state.step == steps:
            state.check(state.step, *validated())
        if progress:
            progress(state.step, steps, state.history[-1][1])
    if progress:
        progress(state.step, state.step, state.history[-1][1])  # it may have stopped early
    state.restore_best()
    modules.to("cpu").eval()
    return state.history


class _AuxiliaryTask:
    """The auxiliary task on a device, and the measures of it that each step sees."""

    def __init__(self, task: Auxiliary, batch: int, seed: list[int], device: str) -> None:
        self.batch = task.batch or batch
        self.head, self.seed, self.loss = task.head, seed, task.loss
        self.features = torch.from_numpy(task.features).to(device)
        self.targets = torch.from_numpy(task.targets).to(device)
        self.variance = float(task.targets.var(axis=0).sum())

    def error(self, encoder: nn.Module, step: int) -> torch.Tensor:
        first, which = self.seed
        rng = np.random.default_rng([first, step, which])
        rows = torch.from_numpy(rng.integers(len(self.features), size=self.batch)).to(self.features.device)
        predicted: torch.Tensor = self.head(encoder, self.features[rows])
        if self.loss is not None:
            with torch.random.fork_rng(devices=[]):  # what a loss draws is a function of the step too
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                return self.loss(predicted, self.targets[rows])
        return (predicted - self.targets[rows]).square().sum(dim=1).mean() / self.variance


class _Batches:
    """The training pairs of each step, a function of the step and the seed alone."""

    def __init__(self, pairs: int, batch_pairs: int, seed: int) -> None:
        self.pairs, self.seed = pairs, seed
        self.runs = max(1, -(-pairs // _RUN))
        self.per_batch = max(1, min(self.runs, batch_pairs // _RUN))
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> torch.Tensor:
        epoch, within = divmod(step, self.runs // self.per_batch)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.runs)
        runs = self.order[within * self.per_batch : (within + 1) * self.per_batch]
        rows = (runs[:, None] * _RUN + np.arange(_RUN)).ravel()
        return torch.from_numpy(rows[rows < self.pairs])

    def copy(self, step: int, copies: int) -> int:
        return int(np.random.default_rng([self.seed, step, copies]).integers(copies))


class _State:
    """Where training stands: the step, the modules, their best state so far, and the file that keeps all."""

    def __init__(
        self, modules: nn.Module, optimizer: torch.optim.Optimizer, file: Path | None, identity: dict[str, object]
    ) -> None:
        self.modules, self.optimizer, self.file = modules, optimizer, file
        self.identity = json.dumps(identity, sort_keys=True)
        self.step = 0
        self.history: list[tuple[int, float]] = []
        self.losses: list[float] = []
        self.best = self._copy()

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.modules.state_dict().items()}

    def check(self, step: int, error: float, loss: float) -> None:
        if not self.history and not math.isfinite(loss):
            raise SettingError("the encoder predicts no finite distance at the start; rescale the measures")
        if loss < min(self.losses, default=math.inf):
            self.best = self._copy()
        self.history.append((step, error))
        self.losses.append(loss)
        if self.file:
            self._save(self.file)

    def stale(self, patience: float) -> bool:
        return len(self.losses) - 1 - self.losses.index(min(self.losses)) > patience

    def restore_best(self) -> None:
        self.modules.load_state_dict(self.best)

    def _save(self, file: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        tensors = {f"now.{name}": tensor.contiguous() for name, tensor in self._copy().items()}
        tensors |= {f"best.{name}": tensor.contiguous() for name, tensor in self.best.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value).clone() for name, value in moments.items()}
        checks = json.dumps([(*check, loss) for check, loss in zip(self.history, self.losses, strict=True)])
        part = file.with_name(file.name + ".part")
        try:
            save_file(tensors, part, {"identity": self.identity, "step": str(self.step), "checks": checks})
            part.replace(file)
        except (OSError, SafetensorError) as error:  # a full disk is the latter
            part.unlink(missing_ok=True)
            raise ArtifactError(f"could not write {file}: {error}; make room and run the same call again") from error

    def resume(self) -> bool:
        if self.file is None or not self.file.exists():
            return False
        with _opened(self.file) as (header, opened):
            if header["identity"] != self.identity:
                raise ArtifactError(_ANOTHER.format(file=self.file))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        self.modules.load_state_dict(_below(tensors, "now."))
        self.best = _below(tensors, "best.")
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _below(tensors, "optimizer.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        checks = json.loads(header["checks"])
        self.history = [(int(step), float(error)) for step, error, _ in checks]
        self.losses = [float(loss) for *_, loss in checks]
        self.step = int(header["step"])
        return True


@contextmanager
def _opened(file: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """What a checkpoint says of itself, and the file, its tensors to be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            if not {"identity", "step", "checks"} <= header.keys():
                raise ArtifactError(_ANOTHER.format(file=file))
            yield header, opened
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{file} is damaged: {error}; delete it to train from the start") from error


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
