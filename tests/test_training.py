"""The training loop: what it learns, and that neither time nor interruption changes it."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_store import full_disk

from wembed import ArtifactError, SettingError, TrainingSettings
from wembed.learning import encoders
from wembed.learning.encoders import AuxiliaryHead, DWEEncoder, PerceptronEncoder
from wembed.learning.losses import distance_error, squared_distance_error
from wembed.learning.training import Auxiliary, Examples, train


def examples(count: int = 60, seed: int = 0) -> Examples:
    """Distances of a stretched copy of the features, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(1, count, 8)).astype(np.float32) / 4
    truth = features[0] * np.linspace(0.5, 2, 8)
    pairs = np.stack(np.triu_indices(count, 1), axis=1)
    distances = np.linalg.norm(truth[pairs[:, 0]] - truth[pairs[:, 1]], axis=1)
    held = (pairs >= count - 15).all(axis=1)
    seen = (pairs < count - 15).all(axis=1)
    nothing = np.empty((count, 0), dtype=np.float32)
    return Examples(features, nothing, pairs[seen], distances[seen], pairs[held], distances[held])


def encoder(data: Examples) -> PerceptronEncoder:
    torch.manual_seed(0)
    made = PerceptronEncoder(8, 8, width=32)
    made.start_from(data.features[0, :45])
    return made


@pytest.mark.parametrize("apart", [2.0, 0.3, 1e-2, 1e-3])
def test_a_start_is_the_linear_map_but_for_a_little_however_near_the_features_are(apart: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(300, 40) * (apart / 80**0.5)
    made = PerceptronEncoder(40, 40).eval()
    made.start_from(features.numpy())
    with torch.no_grad():
        linear = made.linear(features - made.centre)
        assert (made(features) - linear).norm() < 0.1 * linear.norm()
    assert made.is_small == (apart < 0.25)


def with_auxiliary(data: Examples, made: PerceptronEncoder, seed: int = 0) -> Examples:
    """A second task: squares of the features, which no linear map gives."""
    features = np.random.default_rng([seed, 1]).normal(size=(600, 8)).astype(np.float32) / 4
    torch.manual_seed(seed)
    head = AuxiliaryHead(made, features, features**2)
    return replace(data, auxiliary=Auxiliary(head, features, features**2))


def weights(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def assert_same(left: torch.nn.Module, right: torch.nn.Module) -> None:
    for name, array in weights(left).items():
        np.testing.assert_array_equal(array, weights(right)[name], err_msg=name)


def past_types(kind: type[Any], **given: Any) -> Any:
    """The dataclass of these fields, which have passed no check but its own: tests check types on entry."""
    made = object.__new__(kind)
    for one in fields(kind):
        object.__setattr__(made, one.name, given.get(one.name, one.default))
    made.__post_init__()
    return made


def test_training_lowers_the_validation_error() -> None:
    data = examples()
    history = train(encoder(data), data, TrainingSettings(steps=300))
    assert min(error for _, error in history) < 0.25 * history[0][1]


def test_the_best_state_is_kept_the_start_included() -> None:
    data = examples()
    wild = TrainingSettings(steps=40, learning_rate=30.0)
    before = encoder(data)
    history = train(trained := encoder(data), data, wild)
    assert history[0][1] == min(error for _, error in history)
    assert_same(before, trained)


def test_the_state_that_is_kept_is_that_of_least_loss_not_of_least_error() -> None:
    def farness(squared: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        return 1 / (0.1 + distance_error(squared, exact))

    data = examples()
    history = train(trained := encoder(data), data, TrainingSettings(steps=40, patience=1.0), farness)
    with torch.no_grad():
        vectors = trained(torch.from_numpy(data.features[0])).numpy()
    made = np.linalg.norm(vectors[data.validation_pairs[:, 0]] - vectors[data.validation_pairs[:, 1]], axis=1)
    error = float(np.sqrt(np.square(made - data.validation_distances).mean()))
    assert error == pytest.approx(max(error for _, error in history), rel=1e-4)
    assert error > 1.2 * history[0][1]


def test_training_stops_when_it_no_longer_helps() -> None:
    data = examples()
    start = data.features[0] @ encoder(data).linear.weight.detach().numpy().T
    already = np.linalg.norm(start[data.validation_pairs[:, 0]] - start[data.validation_pairs[:, 1]], axis=1)
    content = replace(data, validation_distances=already.astype(np.float64))
    history = train(encoder(content), content, TrainingSettings(steps=400, checks=20, patience=0.25))
    assert history[-1][0] == 6 * 20  # six checks without an improvement are more than a quarter of twenty


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another() -> None:
    data = examples()
    one, two, other = encoder(data), encoder(data), encoder(data)
    for module, seed in ((one, 0), (two, 0), (other, 1)):
        train(module, data, TrainingSettings(steps=40, batch_pairs=200, seed=seed))
    assert_same(one, two)
    assert any((weights(one)[name] != weights(other)[name]).any() for name in weights(one))


def test_an_interrupted_training_goes_on_to_the_same_encoder(tmp_path: Path) -> None:
    data, settings = examples(), TrainingSettings(steps=60, checks=6, batch_pairs=200)
    train(whole := encoder(data), data, settings)

    class KilledError(Exception):
        pass

    def kill(step: int, steps: int, error: float) -> None:
        if step == 37:
            raise KilledError

    file = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        train(encoder(data), data, settings, checkpoint=file, progress=kill)
    assert file.exists()
    seen: list[int] = []
    train(resumed := encoder(data), data, settings, checkpoint=file, progress=lambda step, *_: seen.append(step))
    assert seen[0] == 31
    assert_same(whole, resumed)
    seen.clear()
    train(again := encoder(data), data, settings, checkpoint=file, progress=lambda step, *_: seen.append(step))
    assert seen == [60], "of one that has ended nothing is left to do"
    assert_same(whole, again)


def test_the_auxiliary_task_is_learned_beside_and_has_a_say_in_the_encoder() -> None:
    data, fresh = examples(), np.random.default_rng(9).normal(size=(200, 8)).astype(np.float32) / 4
    errors = {}
    for weight in (0.0, 1.0):
        made = encoder(data)
        both = with_auxiliary(data, made)
        assert both.auxiliary is not None
        train(made, both, TrainingSettings(steps=300, auxiliary=weight, patience=1.0))
        with torch.no_grad():
            missed = both.auxiliary.head(made, torch.from_numpy(fresh)).numpy() - fresh**2
        errors[weight] = float(np.square(missed).sum() / np.square(fresh**2 - (fresh**2).mean(axis=0)).sum())
    assert errors[1.0] < 0.2 * errors[0.0]


class Multiple(torch.nn.Module):
    """A head that predicts a multiple of the vectors, and has nothing to learn by itself."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.seen: list[np.ndarray] = []

    def forward(self, encoder: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
        self.seen.append(features.numpy())
        return self.factor * encoder(features)


def test_other_tasks_count_by_the_share_of_the_variance_that_they_miss() -> None:
    data, made = examples(), []
    for factor in (1.0, 16.0):  # a power of two, which rounds nothing
        targets = factor * data.features[0] ** 2
        task = Auxiliary(Multiple(factor), data.features[0], targets)
        made.append(encoder(data))
        history = train(made[-1], replace(data, auxiliary=task), TrainingSettings(steps=100, auxiliary=0.01))
        assert min(error for _, error in history) < history[0][1], "else both would be left as they were"
    assert_same(*made)


def test_other_tasks_see_other_measures_at_each_step_and_each_its_own() -> None:
    data, heads = examples(), (Multiple(1.0), Multiple(1.0))
    auxiliary, reconstruction = (Auxiliary(head, data.features[0], data.features[0]) for head in heads)
    settings = TrainingSettings(steps=10, batch_measures=20, reconstruction=0.1, patience=1.0)
    train(encoder(data), replace(data, auxiliary=auxiliary, reconstruction=reconstruction), settings)
    assert len({rows.tobytes() for head in heads for rows in head.seen}) == 2 * 10


def test_training_shows_each_of_the_copies_and_validation_the_first() -> None:
    data, seen = examples(), {True: set[int](), False: set[int]()}
    copies = np.concatenate([data.features, -data.features, data.features + 1])  # as far apart

    def see(module: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        (shown,) = (number for number, copy in enumerate(copies) if np.isin(given[0].numpy(), copy).all())
        seen[module.training].add(shown)

    made = encoder(data)
    made.register_forward_pre_hook(see)
    train(made, replace(data, features=copies), TrainingSettings(steps=20, patience=1.0))
    assert seen == {True: {0, 1, 2}, False: {0}}


def test_the_auxiliary_head_starts_at_the_least_squares_fit() -> None:
    features = (np.random.default_rng(0).normal(size=(400, 8)) + 3).astype(np.float32)
    targets = (features @ np.linspace(0, 1, 24).reshape(8, 3) + 5).astype(np.float32)
    made = encoder(examples())
    head = AuxiliaryHead(made, features, targets)
    with torch.no_grad():
        np.testing.assert_allclose(head.linear(torch.from_numpy(features)).numpy(), targets, atol=1e-3)


def test_an_interrupted_training_with_an_auxiliary_task_goes_on_to_the_same_encoder(tmp_path: Path) -> None:
    data, settings, file = examples(), TrainingSettings(steps=60, checks=6, batch_pairs=200), tmp_path / "t.safetensors"
    train(whole := encoder(data), with_auxiliary(data, whole), settings)

    def kill(step: int, steps: int, error: float) -> None:
        if step == 37:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first := encoder(data), with_auxiliary(data, first), settings, checkpoint=file, progress=kill)
    with pytest.raises(ArtifactError, match="another training"):
        train(other := encoder(data), with_auxiliary(data, other, seed=1), settings, checkpoint=file)
    train(resumed := encoder(data), with_auxiliary(data, resumed), settings, checkpoint=file)
    assert_same(whole, resumed)


def test_half_precision_learns_as_much_and_is_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.from_numpy(examples().features[0])
    products: list[tuple[torch.dtype, bool]] = []

    def seen(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        products.append((output.dtype, module.training))

    least = []
    for half in (False, True):
        monkeypatch.setattr(encoders, "_multiplies_halves", lambda half=half: half)
        data = examples()
        made = encoder(data)
        made.perceptron[0].register_forward_hook(seen)
        products.clear()
        history = train(made, with_auxiliary(data, made), TrainingSettings(steps=300))
        assert set(products) == {(torch.bfloat16 if half else torch.float32, True), (torch.float32, False)}
        assert {tensor.dtype for tensor in (*made.state_dict().values(), made(features))} == {torch.float32}
        least.append(min(error for _, error in history) / history[0][1])
    plain, halved = least
    assert halved != plain
    assert halved < 1.05 * plain


def test_a_full_disk_is_an_error_that_names_the_checkpoint(tmp_path: Path) -> None:
    data, file = examples(), tmp_path / "training.safetensors"
    with full_disk() as no_more_than:
        no_more_than(2_000)
        with pytest.raises(ArtifactError, match="make room and run the same call again"):
            train(encoder(data), data, TrainingSettings(steps=30), checkpoint=file)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    data = examples()

    def kill(step: int, steps: int, error: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(encoder(data), data, TrainingSettings(steps=30), checkpoint=file, progress=kill)
    other = examples(seed=1)
    with pytest.raises(ArtifactError, match="another training"):
        train(encoder(other), other, TrainingSettings(steps=30), checkpoint=file)
    with pytest.raises(ArtifactError, match="another training"):
        train(encoder(data), data, TrainingSettings(steps=30), squared_distance_error, checkpoint=file)
    with pytest.raises(ArtifactError, match="another training"):
        train(PerceptronEncoder(8, 8, width=16), data, TrainingSettings(steps=30), checkpoint=file)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    tensors, without_checks = load_file(file), {name: text for name, text in header.items() if name != "checks"}
    for foreign in (None, {"format": "pt"}, without_checks):
        save_file(tensors, file, foreign)
        with pytest.raises(ArtifactError, match="another training"):
            train(encoder(data), data, TrainingSettings(steps=30), checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"training\.safetensors is damaged"):
        train(encoder(data), data, TrainingSettings(steps=30), checkpoint=file)


def test_validation_measures_do_not_touch_the_weights() -> None:
    data = examples()
    other = Examples(
        data.features,
        data.exact_part,
        data.train_pairs,
        data.train_distances,
        data.validation_pairs,
        data.validation_distances * 0 + 1e-3,
    )
    settings = TrainingSettings(steps=30, patience=1.0)
    seen: list[list[float]] = [[], []]
    for run, given in zip(seen, (data, other), strict=True):
        module = encoder(given)
        train(
            module,
            given,
            settings,
            progress=lambda *_, module=module, run=run: run.append(float(module.linear.weight.detach().sum())),
        )
    assert seen[0] == seen[1]


def test_many_pairs_take_more_steps_and_few_smaller_batches() -> None:
    few, some, many = (TrainingSettings().resolved(pairs) for pairs in (4_000, 16_000, 256_000))
    assert few.learning_rate == some.learning_rate == many.learning_rate == 2e-3
    assert (some.steps, many.steps) == (2_000, 8_000)
    assert TrainingSettings().resolved(10**9, steps=100).steps == 25 * 100
    assert [one.batch_pairs for one in (few, some, many)] == [896, 1792, 1792]
    assert [one.batch_measures for one in (few, some, many)] == [256, 512, 512]
    assert TrainingSettings().resolved(4_000, batch_pairs=100).batch_pairs == 50
    asked = TrainingSettings(learning_rate=0.5, batch_pairs=7, batch_measures=9).resolved(256_000)
    assert (asked.learning_rate, asked.batch_pairs, asked.batch_measures) == (0.5, 7, 9)


def test_the_learning_rate_rises_and_falls_once() -> None:
    settings = TrainingSettings(learning_rate=1.0)
    rates = np.array([settings.rate(step, 200) for step in range(201)])
    top = int(rates.argmax())
    assert rates.max() == pytest.approx(1.0, abs=1e-3)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert rates[-1] < 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_pairs": 0},
        {"batch_measures": 0},
        {"warm_up": 1.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"patience": 0.0},
        {"patience": 1.5},
        {"auxiliary": -1.0},
        {"auxiliary": float("inf")},
        {"reconstruction": float("nan")},
        {"weight_decay": -0.1},
        {"seed": -1},
        {"steps": 2.5},
        {"batch_pairs": 28.5},
        {"checks": 2.5},
        {"checks": 0},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(SettingError, match=f"^{name}={value}; give a "):
        past_types(TrainingSettings, **wrong)


def test_numbers_of_numpy_are_kept_as_plain_ones() -> None:
    counts = ("steps", "batch_pairs", "batch_measures", "checks", "seed")
    shares = ("learning_rate", "weight_decay", "warm_up", "patience", "auxiliary", "reconstruction")
    given = {name: np.int64(5) for name in counts} | {name: np.float32(0.5) for name in shares}
    settings = past_types(TrainingSettings, **given)
    assert settings == TrainingSettings(**{name: value.item() for name, value in given.items()})
    assert {type(value) for value in asdict(settings).values()} == {int, float}


def test_the_encoder_starts_as_the_isometric_projection_of_its_features() -> None:
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    made = PerceptronEncoder(8, 8, width=16)
    made.start_from(features)
    with torch.no_grad():
        linear = made.linear(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(
        np.linalg.norm(linear[0] - linear[1]), np.linalg.norm(features[0] - features[1]), rtol=1e-5
    )


def test_dwe_is_the_network_of_the_paper() -> None:
    network = DWEEncoder((28, 28)).network
    kinds = [(type(layer).__name__, tuple(layer.weight.shape)) for layer in network if hasattr(layer, "weight")]
    assert kinds == [
        ("Conv2d", (20, 1, 3, 3)),
        ("Conv2d", (5, 20, 5, 5)),
        ("Linear", (100, 5 * 28 * 28)),
        ("Linear", (50, 100)),
    ]
    with pytest.raises(SettingError, match="3 axes"):
        DWEEncoder((4, 4, 4))
