"""The Open Inference Protocol's request, from HTTP or gRPC, every field checked -> KServe's `InferRequest`.

Over HTTP a body is JSON alone, or JSON and the tensor's bytes behind it; the header
`Inference-Header-Content-Length` then says where the JSON ends. In bytes, each element of a BYTES tensor
stands behind its length (4 bytes, little-endian), as in gRPC's `raw_input_contents`.
Source: kserve/open-inference-protocol; triton-inference-server/server docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

from prottune.serving.questions import kind, name_of
from prottune.serving.sdk import InferInput, InferRequest, InvalidInput, RequestedOutput
from prottune.serving.strict_json import MAX_PARTS, read_json, shown

BINARY_HEADER = "inference-header-content-length"

_LENGTH = struct.Struct("<I")


def request_of_http(
    body: bytes, json_length: str | None, model_name: str, output_names: Collection[str]
) -> InferRequest:
    """Read the body of `POST /v2/models/.../infer`; `json_length` is what the binary header says.

    Raises: InvalidInput (400) naming the field: no JSON, a field of another type, an output that the model
        does not have, bytes that are not as long as they are said to be.
    """
    split = len(body) if json_length is None else _split(json_length, len(body))
    document = read_json(body[:split])
    if not isinstance(document, dict):
        raise InvalidInput(f'body: expected an object like {{"inputs": [...]}}, got {kind(document)}')
    parameters = _parameters("parameters", document.get("parameters"))
    wants_bytes = _flag("parameters.binary_data_output", parameters.get("binary_data_output", False))
    raw = _Raw(body[split:])
    inputs = [_input(f"inputs[{index}]", entry, raw) for index, entry in enumerate(_list("inputs", document))]
    raw.check_end()
    return InferRequest(
        model_name,
        inputs,
        name_of("id", document.get("id")),
        parameters=parameters,
        request_outputs=_outputs(document, output_names, wants_bytes) or None,
    )


def request_of_grpc(message: Any, output_names: Collection[str]) -> InferRequest:
    """Read a `ModelInferRequest`; one that came with raw contents is answered with raw contents.

    Raises: InvalidInput as `request_of_http` does.
    """
    _check_size(message)
    raws = list(message.raw_input_contents)
    if raws and len(raws) != len(message.inputs):
        raise InvalidInput(
            f"raw_input_contents: expected as many as inputs, {len(message.inputs)}, got {len(raws)}"
        )
    inputs = []
    for index, tensor in enumerate(message.inputs):
        if raws and tensor.HasField("contents"):
            raise InvalidInput(f"inputs[{index}].contents: expected nothing beside raw_input_contents")
        data = tensor.contents.bytes_contents
        rows = rows_of(raws[index], f"raw_input_contents[{index}]") if raws else list(data)
        _check_datatype(f"inputs[{index}]", tensor.datatype)
        inputs.append(InferInput(tensor.name, list(tensor.shape), tensor.datatype, rows))
    asked = [{"name": entry.name, "parameters": _plain(entry.parameters)} for entry in message.outputs]
    return InferRequest(
        message.model_name,
        inputs,
        name_of("id", message.id) or None,
        raw_inputs=raws,
        from_grpc=True,
        request_outputs=_outputs({"outputs": asked}, output_names, False) or None,
    )


def rows_of(raw: bytes, where: str) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises: InvalidInput (400) if a length leads beyond the end, or for more elements than anybody asks about.
    """
    rows: list[bytes] = []
    position = 0
    while position < len(raw):
        if len(rows) == MAX_PARTS:
            raise InvalidInput(f"{where}: expected at most {MAX_PARTS} elements, got more")
        start = position + _LENGTH.size
        length = _LENGTH.unpack_from(raw, position)[0] if start <= len(raw) else _LENGTH.size
        if start + length > len(raw):
            raise InvalidInput(
                f"{where}: element {len(rows)} of {length} bytes begins at byte {position} of {len(raw)}; "
                "expected each element behind its length (4 bytes, little-endian)"
            )
        rows.append(raw[start : start + length])
        position = start + length
    return rows


def _check_size(message: Any) -> None:
    """Raises: InvalidInput for a message of so many parts that reading them would hold up everybody."""
    num_parts = len(message.inputs) + len(message.outputs) + len(message.raw_input_contents)
    if num_parts <= MAX_PARTS:
        num_parts += sum(len(entry.parameters) for entry in message.outputs)
        num_parts += sum(len(entry.shape) + len(entry.contents.bytes_contents) for entry in message.inputs)
    if num_parts > MAX_PARTS:
        raise InvalidInput(
            f"message: expected at most {MAX_PARTS} tensors, dimensions, elements and parameters, got more"
        )


class _Raw:
    """The bytes behind the JSON, taken by one tensor after the other."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._taken = raw, 0

    def take(self, where: str, size: Any) -> list[bytes]:
        left = len(self._raw) - self._taken
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidInput(
                f"{where}.parameters.binary_data_size: expected 0 to {left}, the bytes that are there, "
                f"got {shown(size)}"
            )
        start, self._taken = self._taken, self._taken + size
        return rows_of(self._raw[start : self._taken], f"{where}, binary data")

    def check_end(self) -> None:
        if left := len(self._raw) - self._taken:
            raise InvalidInput(f"body: {left} bytes behind the JSON belong to no input's binary_data_size")


def _split(json_length: str, num_bytes: int) -> int:
    digits = json_length.strip()
    if digits.isascii() and digits.isdecimal() and len(digits) < 16 and 0 < int(digits) <= num_bytes:
        return int(digits)
    raise InvalidInput(
        f"header {BINARY_HEADER}: expected 1 to {num_bytes}, the bytes of the body that are JSON, "
        f"got {shown(json_length)}"
    )


def _input(where: str, entry: Any, raw: _Raw) -> InferInput:
    fields = _fields(where, entry)
    name = _required(f"{where}.name", fields.get("name"), str, "text")
    datatype = _required(f"{where}.datatype", fields.get("datatype"), str, "text")
    shape = _required(f"{where}.shape", fields.get("shape"), list, "a list")
    for index, size in enumerate(shape):
        if type(size) is not int:
            raise InvalidInput(f"{where}.shape[{index}]: expected a whole number, got {kind(size)}")
    parameters = _parameters(f"{where}.parameters", fields.get("parameters"))
    _check_known(f"{where}.parameters", parameters, "binary_data_size")
    if "binary_data_size" not in parameters:
        data = _required(f"{where}.data", fields.get("data"), list, "a list")
    elif fields.get("data") is None:
        data = raw.take(where, parameters["binary_data_size"])
    else:
        raise InvalidInput(f"{where}.data: expected nothing beside binary_data_size")
    _check_datatype(where, datatype)
    return InferInput(name, shape, datatype, data, parameters)


def _check_datatype(where: str, datatype: str) -> None:
    """Before KServe raises its letters, whatever they are."""
    if datatype != "BYTES":
        raise InvalidInput(f"{where}.datatype: expected 'BYTES', got {shown(datatype)}")


def _outputs(
    document: dict[str, Any], output_names: Collection[str], wants_bytes: bool
) -> list[RequestedOutput]:
    """The outputs asked for, in their order; none asked for by name means all."""
    asked: list[RequestedOutput] = []
    for index, entry in enumerate(_list("outputs", document) if document.get("outputs") is not None else []):
        where = f"outputs[{index}]"
        fields = _fields(where, entry)
        name = _required(f"{where}.name", fields.get("name"), str, "text")
        if name not in output_names or name in [output.name for output in asked]:
            raise InvalidInput(
                f"{where}.name: expected one of {', '.join(output_names)}, each once, got {shown(name)}"
            )
        parameters = _parameters(f"{where}.parameters", fields.get("parameters"))
        _check_known(f"{where}.parameters", parameters, "binary_data")
        as_bytes = _flag(f"{where}.parameters.binary_data", parameters.get("binary_data", wants_bytes))
        asked.append(RequestedOutput(name, {"binary_data": as_bytes}))
    return asked


def _list(where: str, document: dict[str, Any]) -> list[Any]:
    found: list[Any] = _required(where, document.get(where), list, "a list")
    return found


def _fields(where: str, entry: Any) -> dict[str, Any]:
    fields: dict[str, Any] = _required(where, entry, dict, "an object")
    return fields


def _required(where: str, value: Any, expected: type, words: str) -> Any:
    if not isinstance(value, expected):
        raise InvalidInput(f"{where}: expected {words}, got {'nothing' if value is None else kind(value)}")
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{where}: expected true or false, got {shown(value)}")
    return value


def _parameters(where: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: expected an object, got {kind(value)}")
    for name, entry in value.items():
        if not isinstance(entry, (str, int, float)):
            raise InvalidInput(
                f"{where}, {shown(name)}: expected text, a number, true or false, got {kind(entry)}"
            )
    return value


def _plain(parameters: Any) -> dict[str, Any]:
    """gRPC's parameters as JSON has them."""
    chosen = {name: entry.WhichOneof("parameter_choice") for name, entry in parameters.items()}
    return {name: getattr(parameters[name], field) if field else "" for name, field in chosen.items()}


def _check_known(where: str, parameters: dict[str, Any], known: str) -> None:
    """A parameter of a tensor says how its data lie, so an unknown one cannot be passed over."""
    if strangers := [name for name in parameters if name != known]:
        raise InvalidInput(f"{where}: expected only {known!r}, got {shown(strangers[0])}")
