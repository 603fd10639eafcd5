"""The JSON Schema and the AsyncAPI document: as committed, true to the server, and valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from tests.support_protocol import CASES
from triows import requests
from triows.codec import decode, decode_data
from triows.config import LogLimits
from triows.conformance.vectors import PLACE
from triows.errors import ErrorCode, RequestError
from triows.logs import Log
from triows.messages import PUBLISHED, MessageType, check_channel
from triows.peer import channel_of
from triows.schema import asyncapi, json_schema
from triows.schema.declarations import ANSWERS

SCHEMA: Final = json_schema()
SAMPLES: Final = {"$timestamp": "2026-11-22T21:07:20.050054Z", "$number": 1, "$any": None}


def _validator(name: str, schema: dict[str, Any] = SCHEMA) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


def _strict(schema: Any) -> Any:
    """Return `schema`, refusing members that it does not name."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _strict(item) for name, item in schema.items()}
    if schema.get("type") == "object" and schema.get("title") not in ("EndData", None):
        schema.setdefault("additionalProperties", False)
    return schema


CLIENT: Final = _validator("ClientMessage")
WHOLE: Final = Draft202012Validator(SCHEMA)
STRICT: Final = _strict(SCHEMA)


def _sample(value: Any) -> Any:
    """Return `value` with every placeholder replaced by something of its kind."""
    if isinstance(value, str) and value.startswith("$"):
        return SAMPLES.get(value, "0123456789ab")
    if isinstance(value, dict):
        return {name: _sample(item) for name, item in value.items()}
    return [_sample(item) for item in value] if isinstance(value, list) else value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _parse(text: str) -> Any:
    """Return what `text` says; None, which is no message, if it is no JSON."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError:
        return None


@pytest.mark.parametrize("name", CASES)
def test_requests_against_the_schema(name: str) -> None:
    """What the server understands is valid; what a vector calls invalid is not."""
    for step in CASES[name]["steps"]:
        if "send" in step or "text" in step:
            message = _sample(step["send"]) if "send" in step else _parse(step["text"])
            assert CLIENT.is_valid(message) is step.get("valid", True), step


@pytest.mark.parametrize("name", CASES)
def test_answers_against_the_schema(name: str) -> None:
    """What the server says is valid, has no member that the schema does not name, and answers
    what was asked.
    """
    asked: dict[Any, str] = {}
    for step in CASES[name]["steps"]:
        message = step.get("send") or step.get("expect")
        if not isinstance(message, dict):
            continue
        key = step.get("as", "ann"), message.get("id")
        if "send" in step:
            type_ = "publish" if message["type"] in PUBLISHED else message["type"]
            asked[key] = type_ if type_ in ANSWERS else "own"
        else:
            kind = ANSWERS[asked[key]][1].__name__ if message["type"] == "ack" else "ServerMessage"
            _validator(kind, STRICT).validate(_sample(message))
            WHOLE.validate(_sample(message))


def test_refusals_of_handshakes_against_the_schema() -> None:
    """The body of an HTTP answer carries the same data as an `error`."""
    bodies = [s["body"] for case in CASES.values() for s in case["steps"] if "body" in s]
    assert bodies
    for body in bodies:
        _validator("ErrorData", STRICT).validate(_sample(body["data"]))


@given(st.from_regex(r"(system|[a-zA-Z][a-z_-]{0,32}:?[A-Za-z0-9._~/ *é-]{0,5})", fullmatch=True))
def test_channel_names_agree(name: str) -> None:
    """The schema takes those names that the server takes."""
    try:
        check_channel(name)
        valid = True
    except RequestError:
        valid = False
    message = {"type": "subscribe", "channel": name}
    assert CLIENT.is_valid(message) is valid


VALUES: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2000),
    st.just(1.5),
    st.sampled_from(
        ["", "start", "gap", "close", "e", "x" * 64, "x" * 65, "session:42", "session"]
    ),
    st.just([]),
    st.fixed_dictionaries({}, optional={"epoch": st.just("e"), "offset": st.integers(-1, 1)}),
)
DATA: Final = st.dictionaries(
    st.sampled_from(
        ["since", "tail", "from", "on_lag", "to", "limit", "epoch", "token", "exit_code", "reason"]
    ),
    VALUES,
    max_size=3,
)
ENVELOPES: Final = st.fixed_dictionaries(
    {"type": st.sampled_from([*map(str, MessageType), "own"])},
    optional={
        "id": VALUES,
        "channel": VALUES | st.just("session:42"),
        "data": VALUES | DATA,
        "timestamp": VALUES,
        "offset": VALUES,
        "other": VALUES,
    },
)


READERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "auth": requests.AUTH,
    "subscribe": requests.SUBSCRIBE,
    "history": requests.HISTORY,
    "end": requests.END,
}


def _understood(text: bytes) -> bool:
    """Whether the server makes sense of a request, before it looks who asks and what is there."""
    try:
        message = decode(text)
        if message.type not in ("auth", "ping", "own"):
            channel_of(message)
        elif message.type == "own" and message.channel is not None:
            check_channel(message.channel)
        data = decode_data(message, READERS[message.type]) if message.type in READERS else None
        if isinstance(data, requests.SubscribeData):
            data.check()
        elif isinstance(data, requests.HistoryData):
            data.bounds(Log("session:42", LogLimits(), 0))
    except RequestError as error:
        return error.code == ErrorCode.BAD_POSITION
    return message.type not in ("ack", "error", "gap", "pong", "reconnect")


@settings(max_examples=200)
@given(ENVELOPES)
def test_schema_and_server_agree(message: dict[str, Any]) -> None:
    """The schema takes exactly those requests of which the server makes sense."""
    assert CLIENT.is_valid(message) is _understood(json.dumps(message).encode())


def test_every_type_is_declared() -> None:
    """No type of the server is missing from the schema."""
    types = [d.get("properties", {}).get("type", {}) for d in SCHEMA["$defs"].values()]
    declared = {word for type_ in types for word in type_.get("enum", ())}
    assert declared == set(MessageType)


def test_schema_is_as_committed() -> None:
    """After a change: `triows schema > docs/protocol/schema.json`."""
    assert json.loads((PLACE / "schema.json").read_text()) == SCHEMA


def test_asyncapi_is_as_committed() -> None:
    """After a change: `triows schema --asyncapi > docs/protocol/asyncapi.json`."""
    assert json.loads((PLACE / "asyncapi.json").read_text()) == asyncapi()


def test_schema_is_valid() -> None:
    """It is JSON Schema 2020-12, and every reference leads somewhere."""
    Draft202012Validator.check_schema(SCHEMA)
    _check_references(SCHEMA)


def test_asyncapi_is_valid() -> None:
    """It is AsyncAPI 3.0, its schemas are of draft 7, and every reference leads somewhere."""
    official = json.loads((Path(__file__).parent / "fixtures" / "asyncapi-3.0.0.json").read_text())
    document = asyncapi()
    Draft7Validator(official).validate(document)
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
    _check_references(document)


@pytest.mark.parametrize("broken", ["info", "channels", "operations", "components"])
def test_official_schema_sees_nonsense(broken: str) -> None:
    """The official schema, cut down, still refuses what is wrong."""
    official = json.loads((Path(__file__).parent / "fixtures" / "asyncapi-3.0.0.json").read_text())
    document = asyncapi() | {broken: {"nonsense": 5}}
    assert not Draft7Validator(official).is_valid(document)


def _check_references(document: dict[str, Any]) -> None:
    """Follow every `$ref`; no draft before 2019-09 reads a word beside one."""
    todo: list[Any] = [document]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if isinstance(item.get("$ref"), str):
                place: Any = document
                for part in item["$ref"].removeprefix("#/").split("/"):
                    place = place[part]
                assert item.keys() - {"default"} == {"$ref"}
            todo += item.values()
        elif isinstance(item, list):
            todo += item
