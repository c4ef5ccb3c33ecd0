"""What JSON bodies hold, and answers: the models behind the OpenAPI document."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "AddBody",
    "AddOptions",
    "Added",
    "BarycenterBody",
    "BarycenterOptions",
    "Chart",
    "DistanceBody",
    "DistanceOptions",
    "Distances",
    "Embedded",
    "Entries",
    "Entry",
    "Failure",
    "Info",
    "InterpolateBody",
    "InterpolateOptions",
    "Made",
    "MeasureBody",
    "MeasuresBody",
    "Neighbors",
    "NeighborsBody",
    "NeighborsOptions",
    "Nothing",
    "PairwiseBody",
    "RemoveBody",
    "Removed",
]

Id = Annotated[
    int | Annotated[str, Field(min_length=1, max_length=200)],
    Field(description="A whole number or a string, as the index has it."),
]
Ids = Annotated[list[Id], Field(fail_fast=True)]
Label = Annotated[str, Field(max_length=1_000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# The first problem in a list is told, and not one for each of a million numbers.
Numbers = Annotated[list[float], Field(fail_fast=True)]
Rows = Annotated[list[Numbers], Field(fail_fast=True)]


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, int | float) else given


class MeasureBody(_Strict):
    """One measure: `points`, perhaps with `weights`; an `image`; the `id` of one that the index holds; or, where the
    index holds histograms, `weights` alone."""

    points: Rows | None = Field(None, description="(atoms, dim), in data units")
    weights: Numbers | None = Field(None, description="(atoms,), >= 0; all the same without them")
    image: Rows | None = Field(None, description="(height, width), >= 0; its brightness is mass")
    id: Id | None = Field(None, description="of a measure in the index")


Listed = Annotated[list[MeasureBody], Field(fail_fast=True)]


class Nothing(_Strict):
    """No options."""


class MeasuresBody(Nothing):
    """Measures."""

    measures: Listed


class DistanceOptions(_Strict):
    """What is asked of distances; without any of these the predicted ones alone."""

    exact: bool = Field(False, description="solve all of them")
    interval: float | None = Field(None, description="share of exact distances that lie within the interval, as 0.9")
    tolerance: float | None = Field(None, description="relative error that is good enough; the others are solved")
    budget: int | None = Field(None, ge=0, description="most distances to solve")
    refine: bool | None = Field(None, description="narrower intervals, by a few solves for each measure")

    @property
    def plain(self) -> bool:
        """Whether predicted distances are all that is asked for."""
        return not self.exact and not self.refine and (self.interval, self.tolerance, self.budget) == (None, None, None)


class DistanceBody(DistanceOptions):
    """Measures in pairs: the first of `a` and the first of `b`, and so on."""

    a: Listed
    b: Listed


class PairwiseBody(DistanceOptions):
    """Measures, each of `a` to be compared with each of `b`; without `b`, with each of `a`."""

    a: Listed
    b: Listed | None = None


class NeighborsOptions(_Strict):
    """What is asked of neighbours."""

    k: int = Field(10, description="neighbours of each query")
    rerank: int = Field(0, description="candidates that are solved exactly before the best k are kept")
    recall: float | None = Field(
        None, gt=0, lt=1, description="share of the true neighbours to find, by exact solves, as 0.99"
    )
    among: Ids | None = Field(None, description="ids, of which alone the neighbours may be")


class NeighborsBody(NeighborsOptions):
    """Queries."""

    measures: Listed


class AddOptions(_Strict):
    """How measures are taken in."""

    ids: Ids | None = Field(None, description="of the measures, each its own; the next numbers without")
    labels: Annotated[list[Label | None], Field(fail_fast=True)] | None = Field(None, description="of the measures")
    payloads: list[Any] | None = Field(None, description="anything, of each measure")
    update: bool = Field(False, description="put them in the place of those with these ids")


class AddBody(AddOptions):
    """Measures for the index."""

    measures: Listed


class BarycenterOptions(_Strict):
    """Of what a barycenter is made, and how."""

    weights: Numbers | None = Field(None, description="of the measures, >= 0 and summing to 1; all the same without")
    normalize: bool = Field(False, description="divide the weights by their sum")
    method: str = Field("learned", description="learned, from vectors alone; polish, by couplings too; or exact")


class BarycenterBody(BarycenterOptions):
    """Measures, of all of which one is made."""

    measures: Listed


class InterpolateOptions(_Strict):
    """Where on the way, and how that is found."""

    t: Annotated[Numbers, BeforeValidator(_listed)] = Field([0.5], description="shares of the way, from 0 to 1")
    method: str = Field("learned", description="learned, from vectors alone; polish, by couplings too; or exact")


class InterpolateBody(InterpolateOptions):
    """Measures in pairs: from the first of `a` to the first of `b`, and so on."""

    a: Listed
    b: Listed


class Embedded(BaseModel):
    """Vectors, whose Euclidean distance is the predicted one, or under great-circle metrics the chord of it.

    Where the model was fitted with a residual, the first number is its length, and distances are read otherwise.
    """

    vectors: list[list[float]] = Field(description="(n, dim)")
    unusualness: list[float] = Field(description="(n,); 1 is the most unusual hundredth; doubt those from 2.5 on")


class Distances(BaseModel):
    """Distances in data units; (n,) of pairs, (n, m) of each against each."""

    predicted: list[Any] = Field(
        description="Euclidean distances of the vectors, unless they have residuals; under great-circle metrics the "
        "arcs over them"
    )
    estimate: list[Any] | None = Field(None, description="the exact distance where it was solved, else the best guess")
    lower: list[Any] | None = Field(None, description="lower end of the interval")
    upper: list[Any] | None = Field(None, description="upper end")
    exact: list[Any] | None = Field(None, description="whether it was solved")
    solved: int = Field(0, description="how many were")
    unusualness: list[Any] = Field(description="of the more unusual measure of each pair")


class Neighbors(BaseModel):
    """The nearest measures of each query, nearest first."""

    ids: list[list[Id]]
    distances: list[list[float]] = Field(description="predicted; exact where the query was reranked")
    labels: list[list[str | None]]
    solved: list[int] = Field(description="exact distances that were solved for each query")
    unusualness: list[float] = Field(description="of each query")


class Added(BaseModel):
    """The ids of measures that are in the index now, and on the disk."""

    ids: list[Id]


class RemoveBody(_Strict):
    """Measures to forget."""

    ids: Ids = Field(min_length=1)


class Removed(BaseModel):
    """How many measures are gone."""

    removed: int


class Chart(BaseModel):
    """Where each measure of the index is on a map."""

    ids: list[Id]
    x: list[float]
    y: list[float]
    labels: list[str | None]


class MadeMeasure(BaseModel):
    """A measure that was made."""

    points: list[list[float]]
    weights: list[float]
    grid: list[int] | None = Field(description="of an image, the pixels along its axes")


class Made(BaseModel):
    """Measures that were made, and their vectors; of each pair those at each `t`, pair after pair."""

    measures: list[MadeMeasure]
    vectors: list[list[float]] = Field(description="(n, dim)")


class Entry(MadeMeasure):
    """What the index holds of a measure."""

    id: Id
    label: str | None
    payload: Any
    vector: list[float]


class Entries(BaseModel):
    """What the index holds of some measures."""

    measures: list[Entry]


class Info(BaseModel):
    """What this service is."""

    wembed: str = Field(description="version")
    measures: int = Field(description="in the index")
    cost: dict[str, Any]
    encoder: str
    dim: int = Field(description="numbers in a vector")
    residuals: dict[str, float] | None = Field(
        description="the width of the kernel that distances between vectors are read by, and how many coordinates "
        "stand between a residual and a centroid; null where distances are plain"
    )
    point_dim: int = Field(description="numbers in a point")
    grid: list[int] | None = Field(description="of images, the pixels along their axes")
    box: list[list[float]] = Field(description="the least and the largest coordinates of some of the measures")
    maps: list[str] = Field(description="how a map can be made")
    method: str = Field(description="flat or hnsw")
    errors: dict[str, Any] | None = Field(description="of the model on unseen measures, as it was last evaluated")
    decoder: str | None = Field(description="what vectors are decoded to; null where the model has not learned it")
    highest_level: float = Field(description="the largest share of exact distances that an interval can be asked for")
    limits: dict[str, int]


class Problem(BaseModel):
    """What went wrong, in a sentence."""

    kind: str
    message: str
    request_id: str
    limit: str | None = None


class Failure(BaseModel):
    """An answer that is an error."""

    error: Problem
