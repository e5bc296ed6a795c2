"""GET /openapi.json: the routes with their bodies, answers and refusals, in OpenAPI 3.1.

It says what is accepted to the letter, so that a program which generates requests from it (schemathesis does)
finds the server in agreement. Two rules JSON Schema cannot say stand in descriptions: V2's `shape` counts
`data`, and no output is asked for twice.
"""

from __future__ import annotations

from typing import Any

from prottune import __version__
from prottune.serving.exchange import WITHOUT_TOKEN
from prottune.serving.explaining import MAX_WAITING
from prottune.serving.predictor import LocationPredictor
from prottune.serving.questions import INPUT_NAME, MAX_NAME
from prottune.serving.settings import MODEL_NAME, ServeConfig

Schema = dict[str, Any]

_SPACE = r"[\t-\r ]*"
_RESIDUES = rf"^{_SPACE}[A-Za-z][A-Za-z\t-\r ]*(\*{_SPACE})?$"
_FASTA = r"^[\t-\r ]*>[!-~]{1,200}( [ -~]*)?\r?\n[\t\n ]*[A-Za-z][A-Za-z\t\n ]*(\*[\t\n ]*)?$"
_NAME = r"^[^\u0000-\u001f\u007f]*$"


def openapi(model: LocationPredictor, config: ServeConfig) -> dict[str, Any]:
    """Describe every route that `routes.application` makes of the same model and settings."""
    v1, v2 = f"/v1/models/{MODEL_NAME}", f"/v2/models/{MODEL_NAME}"
    paths: dict[str, Any] = {
        f"{v1}:predict": _post(
            "predict", "Where in the cell these proteins live", _v1_request(config), "Predictions"
        ),
        f"{v2}/infer": _infer(model, config),
        v1: _get("modelReady", "Whether the model answers as it should", "ModelReady"),
        "/v1/models": _get("models", "Name of the model", "Models"),
        "/v2": _get("server", "Name and version of the server", "Server"),
        "/v2/health/live": _get("live", "Whether the server runs", "Live"),
        "/v2/health/ready": _get("ready", "Whether the model answers as it should", "Ready"),
        "/v2/models": _get("modelsV2", "Name of the model", "Models"),
        v2: _get("metadata", "Inputs, outputs and version of the model", "Metadata"),
        f"{v2}/ready": _get("modelReadyV2", "Whether the model answers as it should", "ModelReady"),
        "/metrics": _metrics(),
        "/openapi.json": _get("openapi", "This description", {"type": "object"}),
    }
    if config.explain:
        words = "Which residues speak for an answer"
        paths[f"{v1}:explain"] = _post("explain", words, _to_explain(model, config), "Explanations")
    if config.page:
        html = {"text/html": {"schema": {"type": "string"}}}
        paths["/"] = {"get": _operation("page", "A page to paste proteins into", html)}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "prottune", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": _schemas(config), "responses": _REFUSALS},
    }
    if config.token_file:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
        _ask_for_tokens(paths)
    return described


def _ask_for_tokens(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for method, operation in operations.items():
            route = path.replace(MODEL_NAME, "{model_name}")
            if method == "get" and route in WITHOUT_TOKEN:
                operation["security"] = []
            else:
                operation["responses"]["401"] = _refusal("Unauthorized")


_ABOUT = (
    "In which part of the cell does a protein live? KServe's V1 protocol and the Open Inference Protocol "
    '(V2). Every refusal is JSON, {"error": "..."}, and names the field and its position. V2 also takes and '
    "gives tensors as bytes behind the JSON (header Inference-Header-Content-Length)."
)


def _schemas(config: ServeConfig) -> dict[str, Schema]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    text, flag = {"type": "string"}, {"type": "boolean"}
    prediction = _object(
        accession={"type": ["string", "null"]},
        location=text,
        probability=probability,
        probabilities={"type": "object", "additionalProperties": probability},
        confident=flag,
        unlike_training=flag,
        membrane={"type": ["number", "null"], "minimum": 0, "maximum": 1},
        truncated=flag,
        num_residues={"type": "integer", "minimum": 1},
    )
    number = {"type": "number"}
    explained = {name: schema for name, schema in prediction["properties"].items() if name != "membrane"}
    explanation = _object(
        **explained,
        explained=text,
        method=text,
        sequence=text,
        scores=_list_of({"type": ["number", "null"]}),
        left_out={"type": ["array", "null"], "items": {"type": "integer"}},
        difference=number,
        sum=number,
        error=number,
        complete=flag,
        steps={"type": "integer"},
        max_steps={"type": "integer"},
    )
    tensor = _object(name=text, datatype=text, shape=_list_of({"type": "integer"}))
    output = {**tensor["properties"], "data": {"type": "array"}}
    return {
        "Error": _object(error={"type": "string", "minLength": 1}),
        "Sequence": {
            "type": "string",
            "description": f"Residues, or one FASTA record; at most {config.max_residues} residues. White "
            "space and a stop (*) at the end are left out, lower case is raised, U Z O B J are read as X.",
            "anyOf": [{"pattern": _RESIDUES}, {"pattern": _FASTA}],
        },
        "Predictions": _object(predictions=_list_of(prediction), model_version=text),
        "Explanations": _object(explanations=_list_of(explanation), model_version=text),
        "Inference": _object(
            id=text, model_name=text, model_version=text, outputs=_list_of(_object(**output))
        ),
        "Models": _object(models=_list_of(text)),
        "ModelReady": _object(name=text, ready={"const": True}),
        "Server": _object(name=text, version=text, extensions=_list_of(text)),
        "Live": _object(live={"const": True}),
        "Ready": _object(ready={"const": True}),
        "Metadata": _object(
            name=text,
            platform=text,
            versions=_list_of(text),
            inputs=_list_of(tensor),
            outputs=_list_of(tensor),
        ),
    }


def _v1_request(config: ServeConfig) -> Schema:
    name = {"type": ["string", "null"], "maxLength": MAX_NAME, "pattern": _NAME}
    protein = _object(sequence=_ref("Sequence"))
    protein["properties"] |= {
        "accession": name | {"description": "Sent back; without one, a FASTA header names the protein"},
        "location": name | {"description": "What an explanation shall be about; not for predictions"},
    }
    instances = _list_of({"anyOf": [_ref("Sequence"), protein]})
    return _object(instances=instances | {"minItems": 1, "maxItems": config.max_sequences})


def _to_explain(model: LocationPredictor, config: ServeConfig) -> Schema:
    """V1's body with fewer and shorter proteins, and locations that the model knows."""
    request = _v1_request(config)
    request["description"] = f"Proteins of at most {config.max_explained_residues} residues"
    instances = request["properties"]["instances"]
    instances["maxItems"] = min(MAX_WAITING, config.max_sequences)
    instances["items"]["anyOf"][1]["properties"]["location"] = {"enum": [*model.labels, "", None]}
    return request


def _infer(model: LocationPredictor, config: ServeConfig) -> Schema:
    names = [output["name"] for output in model.get_output_types()]
    parameters = {"type": ["object", "null"], "additionalProperties": False}
    flags = parameters | {"properties": {"binary_data": {"type": "boolean"}}}
    number = {"type": "integer", "minimum": 1, "maximum": config.max_sequences}
    shape = {"type": "array", "prefixItems": [number, {"const": 1}], "minItems": 1, "maxItems": 2}
    row = {"anyOf": [_ref("Sequence"), _list_of(_ref("Sequence")) | {"minItems": 1, "maxItems": 1}]}
    data = _list_of(row) | {"minItems": 1, "maxItems": config.max_sequences}
    tensor = _object(name={"const": INPUT_NAME}, datatype={"const": "BYTES"}, shape=shape, data=data)
    tensor["properties"]["parameters"] = parameters
    output = _object(name={"enum": names})
    output["properties"]["parameters"] = flags
    request = _object(inputs=_list_of(tensor) | {"minItems": 1, "maxItems": 1})
    request["properties"] |= {
        "id": {"type": ["string", "null"], "maxLength": MAX_NAME, "pattern": _NAME},
        "parameters": {
            "type": ["object", "null"],
            "properties": {"binary_data_output": {"type": "boolean"}},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
        "outputs": {"type": ["array", "null"], "items": output},
    }
    words = "The same over V2; shape is [n] or [n, 1] for n rows of data, and each output is asked for once"
    described = _post("infer", words, request, "Inference")
    answer = described["post"]["responses"]["200"]
    answer["content"]["application/octet-stream"] = {"schema": {}}
    answer["headers"] = {"inference-header-content-length": {"schema": {"type": "integer", "minimum": 1}}}
    return described


def _metrics() -> Schema:
    text = {"schema": {"type": "string"}}
    content = {"text/plain": text, "application/openmetrics-text": text}
    return {"get": _operation("metrics", "For Prometheus", content)}


def _post(name: str, words: str, request: Schema, answer: str) -> Schema:
    operation = _operation(name, words, _json(_ref(answer)))
    operation["requestBody"] = {"required": True, "content": _json(request)}
    for status, refusal in _OF_BODIES.items():
        operation["responses"][status] = _refusal(refusal)
    return {"post": operation}


def _get(name: str, words: str, answer: str | Schema) -> Schema:
    described = {"get": _operation(name, words, _json(_ref(answer) if isinstance(answer, str) else answer))}
    described["get"]["responses"]["503"] = _refusal("Unavailable")
    return described


def _operation(name: str, words: str, content: Schema) -> Schema:
    responses: Schema = {"200": {"description": words, "content": content}}
    return {"operationId": name, "summary": words, "responses": responses}


_OF_BODIES = {
    "400": "BadRequest",
    "408": "Timeout",
    "413": "TooLarge",
    "415": "Encoded",
    "429": "Overloaded",
    "503": "Unavailable",
}


def _object(**properties: Schema) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _refusal(name: str) -> Schema:
    return {"$ref": f"#/components/responses/{name}"}


def _refused(words: str, *, later: bool = False) -> Schema:
    again = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
    return {"description": words, "content": _json(_ref("Error"))} | ({"headers": again} if later else {})


_REFUSALS = {
    "BadRequest": _refused("The body is not what this route takes; the words name field and position"),
    "Unauthorized": _refused("Authorization: Bearer TOKEN is missing or wrong"),
    "Timeout": _refused("The body did not come in time"),
    "TooLarge": _refused("The body is too long, or asks for more than can be answered within the deadline"),
    "Encoded": _refused("Packed bodies (Content-Encoding) are not taken"),
    "Overloaded": _refused("More is asked than can be answered in time", later=True),
    "Unavailable": _refused("Not ready, stopping, or too late", later=True),
}
