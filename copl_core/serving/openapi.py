"""The description of the server: an OpenAPI 3.1 document, and the same as a page that needs no other site."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from copl_core import turns
from copl_core.records import Kind
from copl_core.serving import bodies

_TEXT = {"type": "string", "minLength": 1, "maxLength": bodies.TEXT_LENGTH}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_KEY = {"type": ["string", "integer"]}


def _object(required: list[str], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False, **more}


def _list(items: Any, least: int, most: int, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most, **more}


_MESSAGE = _object(["role", "content"], {"role": {"enum": list(turns.ROLES)}, "content": _TEXT})
_LABEL = _object(["prompt", "preferred", "rejected"], {"prompt": _TEXT, "preferred": _TEXT, "rejected": _TEXT})
_REQUEST = _object(
    ["responses"],
    {
        "prompt": {**_TEXT, "description": "A question.  Either this or messages."},
        "messages": _list(_MESSAGE, 1, 1000, description="A conversation that ends before the responses."),
        "responses": _list(_TEXT, 2, bodies.MOST_RESPONSES, description="Different answers to the prompt."),
        "user": {**_KEY, "description": "Name or id of a user: whose rewards."},
        "group": {**_KEY, "description": "Name of a group, or its number on the pages."},
        "labels": _list(_LABEL, 1, bodies.MOST_LABELS, description="All that is known of somebody, given on the spot."),
    },
    description="At most one of user, group and labels says whose rewards; without them, those of every group.",
    example={
        "prompt": "How do I get red wine out of a rug?",
        "responses": ["Blot, then salt.", "Oh no! First, breathe."],
        "user": "sim-001",
    },
)
_ROW = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "kind": {"enum": [*(kind.noun for kind in Kind), "group"]},
        "people": {"type": "integer"},
        "placed_by": {"type": "string"},
        "rewards": {**_NUMBERS, "description": "Log-odds, mean zero over the responses."},
        "win": {**_NUMBERS, "description": "Probability to be preferred to all other responses; they sum to 1."},
        "win_low": _NUMBERS,
        "win_high": _NUMBERS,
        "interval": {"type": "string", "description": "What win_low and win_high are."},
    },
}
_ANSWER = {
    "type": "object",
    "properties": {
        "snapshot": {"type": "string"},
        "basis": {"type": "string", "description": "Which parts of the model gave the rewards."},
        "labelled": {"type": "boolean", "description": "Whether every response has labels in the snapshot."},
        "rows": {"type": "array", "items": _ROW},
    },
}
_QUERIES = {
    "type": "object",
    "required": ["query", "prompts"],
    "properties": {
        "query": _list(_TEXT, 1, bodies.MOST_QUERIES, description="Prompt and response in one string."),
        "prompts": _list(_TEXT, 1, bodies.MOST_QUERIES, description="The prompt with which each query begins."),
    },
    "description": "As OpenRLHF sends it; other fields are ignored.",
    "example": {"query": ["Name a bird. A wren."], "prompts": ["Name a bird. "]},
}
_POSITION = {
    "type": "object",
    "properties": {
        "user": {"type": "integer"},
        "name": {"type": "string"},
        "embedding": _NUMBERS,
        "source": {"enum": ["trained", "neighbours", "population mean"]},
        "labels": {"type": "integer"},
        "group": {"type": ["string", "null"]},
        "group_probability": {"type": "number"},
        "map": {"type": ["array", "null"], "items": {"type": "number"}},
        "snapshot": {"type": "string"},
    },
}
_ERRORS = {
    "400": "The body is no JSON.",
    "401": "The token is missing, unknown or revoked.",
    "403": "The token has another role.",
    "404": "There is no such user or group.",
    "409": "The study has no snapshot yet.",
    "413": "The body is too large.",
    "422": "A field is wrong; the sentence names it.",
    "429": "Too many requests; Retry-After holds the seconds to wait.",
    "503": "The studio cannot answer now; the sentence says why.",
}


def _operation(summary: str, answer: dict[str, Any], body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {code: {"description": text, "content": error} for code, text in _ERRORS.items()}
    found = {"summary": summary, "responses": {"200": {"description": "The answer.", "content": answer}, **refusals}}
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return {**found, "security": [{"token": []}, {"address": []}], **more}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _parameter(name: str, where: str, text: str) -> dict[str, Any]:
    return {
        "name": name, "in": where, "required": where == "path", "schema": {"type": "string"}, "description": text,
    }  # fmt: skip


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "CoPL Studio rewards",
        "version": "1",
        "description": "Rewards of texts for the people of a study.  A token belongs to one study and has a role: "
        "“groups” asks for rewards of groups of five or more people, “rewards” of single people too, “people” for "
        "embeddings of users too.  Rewards are multiples of 0.1 and probabilities of 0.02, but for “people”, "
        "or for every token where the server was started with --exact.",
    },
    "paths": {
        "/v1/rewards": {
            "post": _operation("Rewards and win probabilities of responses to one prompt.", _json(_ANSWER), _REQUEST)
        },
        "/v1/rewards/batch": {
            "post": _operation(
                "The same for several prompts; each counts as one request.",
                _json({"type": "object", "properties": {"answers": {"type": "array", "items": _ANSWER}}}),
                _object(["requests"], {"requests": _list(_REQUEST, 1, bodies.MOST_REQUESTS)}),
            )
        },
        "/get_reward": {
            "post": _operation(
                "One reward for each text, as OpenRLHF asks a remote reward model.",
                _json({"type": "object", "properties": {"rewards": _NUMBERS}}),
                _QUERIES,
                parameters=[
                    _parameter("user", "query", "Name of a user; either this or group."),
                    _parameter("group", "query", "Name or number of a group."),
                ],
            )
        },
        "/v1/users/{id}/embedding": {
            "get": _operation(
                "A user's embedding, group and place on the map, by their present labels.",
                _json(_POSITION),
                parameters=[_parameter("id", "path", "Id or name of a user.")],
            )
        },
        "/healthz": {
            "get": {
                "summary": "Whether the server can read its database.",
                "responses": {"200": {"description": "It can."}},
            }
        },
        "/metrics": {
            "get": {
                "summary": "Counts for Prometheus, for this machine and for holders of a token.",
                "responses": {
                    "200": {"description": "Text."},
                    "403": {"description": "The caller is on another machine and has no token."},
                },
            }
        },
    },
    "components": {
        "schemas": {"Error": _object(["error"], {"error": {"type": "string", "description": "One sentence."}})},
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "address": {"type": "http", "scheme": "basic", "description": "Any user name; the token as password."},
        },
    },
}

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{overflow:auto;padding:.8rem;border:1px solid #8886}h2{margin-top:2.5rem}code{font-size:.95em}"
)


def page() -> str:
    """The document as HTML, without scripts."""
    info = DOCUMENT["info"]
    parts = [f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>"]
    parts.append('<p>The same for programs: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(path, method, operation))
    head = f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><meta charset="utf-8">{head}{"".join(parts)}</html>'


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"]
    rows = [
        f"<li><code>{one['name']}</code>: {escape(one['description'])}</li>" for one in operation.get("parameters", ())
    ]
    parts.append(f"<ul>{''.join(rows)}</ul>" if rows else "")
    if body := operation.get("requestBody"):
        parts.append(f"<p>Body</p><pre>{_shown(body['content']['application/json']['schema'])}</pre>")
    if content := operation["responses"]["200"].get("content"):
        parts.append(f"<p>Answer</p><pre>{_shown(content['application/json']['schema'])}</pre>")
    codes = [
        f"<li>{code}: {escape(one['description'])}</li>"
        for code, one in operation["responses"].items()
        if code != "200"
    ]
    return "".join(parts) + (f"<p>Errors</p><ul>{''.join(codes)}</ul>" if codes else "")


def _shown(schema: dict[str, Any]) -> str:
    return escape(json.dumps(schema, indent=1, ensure_ascii=False))
