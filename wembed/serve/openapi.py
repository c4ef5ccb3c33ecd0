"""The OpenAPI document: bodies of many kinds, with examples that run on the index that is served."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from wembed.index import Index
from wembed.serve import schemas
from wembed.serve.answers import ARROW, NPY
from wembed.serve.bodies import BINARY

__all__ = ["describe"]

_REF = "#/components/schemas/{model}"
_BODIES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "/v1/embed": (schemas.MeasuresBody, schemas.Nothing),
    "/v1/distance": (schemas.DistanceBody, schemas.DistanceOptions),
    "/v1/pairwise": (schemas.PairwiseBody, schemas.DistanceOptions),
    "/v1/neighbors": (schemas.NeighborsBody, schemas.NeighborsOptions),
    "/v1/barycenter": (schemas.BarycenterBody, schemas.BarycenterOptions),
    "/v1/interpolate": (schemas.InterpolateBody, schemas.InterpolateOptions),
    "/v1/measures": (schemas.AddBody, schemas.AddOptions),
}
_FORMS = {
    "/v1/embed": (NPY, ARROW),
    "/v1/distance": (NPY, ARROW),
    "/v1/pairwise": (NPY, ARROW),
    "/v1/neighbors": (ARROW,),
    "/v1/barycenter": (NPY, ARROW),
    "/v1/interpolate": (NPY, ARROW),
}
_REFUSALS = {
    "401": "no key, or one that is not known",
    "403": "a key without the scope for this",
    "408": "a body that does not come",
    "413": "a body, measures or atoms over a limit, which `limit` names",
    "422": "not measures, options out of range, or more work than a limit allows",
    "503": "too many requests are under way; come again",
}


def describe(app: FastAPI, index: Callable[[], Index]) -> None:
    """Have the app describe itself; examples are of the measures that the index holds at the time."""

    def document() -> dict[str, Any]:
        found = get_openapi(
            title="wembed",
            version=app.version,
            description="Wasserstein distance at the speed of Euclidean distance, with an honest word on the error.",
            routes=app.routes,
        )
        models: list[type[BaseModel]] = [*(model for pair in _BODIES.values() for model in pair)]
        models += [schemas.RemoveBody, schemas.Failure]
        _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
        components = found.setdefault("components", {}).setdefault("schemas", {})
        components |= definitions["$defs"]
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        examples = _examples(index())
        for path, verbs in found["paths"].items():
            for verb, told in verbs.items():
                _refusals(path, verb, told)
                if verb == "post":
                    told["requestBody"], parameters = _body(path, examples.get(path), components)
                    told["parameters"] = told.get("parameters", []) + parameters
                    (good,) = [status for status in told["responses"] if status.startswith("2")]
                    for kind in _FORMS.get(path, ()):
                        told["responses"][good]["content"][kind] = {"schema": _binary()}
        wanted = {"type": "array", "items": {"type": "string"}, "minItems": 1}
        for verb in ("get", "delete"):
            found["paths"]["/v1/measures"][verb]["parameters"] = [
                {"name": "id", "in": "query", "required": verb == "get", "schema": wanted}
            ]
        found["paths"]["/v1/measures"]["delete"]["requestBody"] = {
            "description": "In place of ids in the query, of which there may be too many for a URL.",
            "content": {"application/json": {"schema": {"$ref": _REF.format(model=schemas.RemoveBody.__name__)}}},
        }
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"key": []}]
        return found

    app.openapi = document  # type: ignore[method-assign]


def _examples(index: Index) -> dict[str, dict[str, Any]]:
    """Bodies that can be sent as they are; none for what this model cannot do."""
    first, last = index.first().tolist()[0], index.first().tolist()[-1]
    one = index.at([first])
    measure: dict[str, Any]
    if one.grid is not None and len(one.grid) == 2:
        measure = {"image": one.histograms()[0].reshape(one.grid).round(6).tolist()}
    else:
        measure = {"points": one[0].support.tolist(), "weights": one[0].weights.tolist()}
    known, other = {"id": first}, {"id": last}
    model = index.embedder
    how = "exact" if model.decoder is None and model.cost.splits_translation else "learned"
    making: dict[str, dict[str, Any]] = {
        "/v1/barycenter": {"measures": [known, other], "weights": [0.25, 0.75], "method": how},
        "/v1/interpolate": {"a": [known], "b": [other], "t": [0, 0.5], "method": how},
    }
    found: dict[str, dict[str, Any]] = {
        "/v1/embed": {"measures": [measure]},
        "/v1/distance": {"a": [measure], "b": [measure]},
        "/v1/pairwise": {"a": [known, other]},
        "/v1/neighbors": {"measures": [measure], "k": 1},
        "/v1/measures": {"measures": [measure], "ids": [first], "update": True},
    }
    return found | making if how == "exact" or model.decoder else found


def _body(
    path: str, example: dict[str, Any] | None, components: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a path takes, and the options that are in the query where the body is not JSON."""
    body, options = _BODIES[path]
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": _REF.format(model=body.__name__)}}
        | ({} if example is None else {"example": example})
    }
    content |= {kind: {"schema": _binary(what)} for kind, what in BINARY.items()}
    if "a" in body.model_fields:
        sides = {"type": "object", "required": ["a"], "properties": {"a": _binary(), "b": _binary()}}
        content["multipart/form-data"] = {"schema": sides}
    told = components[options.__name__].get("properties", {})
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
        for name, schema in told.items()
        if name != "payloads"
    ]
    return {"required": True, "content": content}, parameters


def _refusals(path: str, verb: str, told: dict[str, Any]) -> None:
    """The errors that a path may answer with."""
    failure = {"application/json": {"schema": {"$ref": _REF.format(model="Failure")}}}
    known = {"400": "no whole HTTP request or form, or one with too long a URL"}
    known |= dict(_REFUSALS) if path not in ("/healthz", "/readyz") else {"503": "the service is ending"}
    if verb == "post":
        known |= {"406": "no such form of this answer", "415": "another content type"}
    if path.startswith("/v1/measures") and verb != "get":
        known |= {"507": "the disk is full, and nothing was changed"}
    if "{" in path:
        known |= {"404": "there is none"}
    told["responses"] = {status: said for status, said in told["responses"].items() if status != "422"}
    told["responses"] |= {status: {"description": what, "content": failure} for status, what in known.items()}
    plain = {"text/plain": {"schema": {"type": "string"}}}  # what is no HTTP does not come as far as the app
    told["responses"]["400"]["content"] = failure | plain


def _binary(what: str = "") -> dict[str, Any]:
    return {"type": "string", "format": "binary"} | ({"description": what} if what else {})
