"""The reference of the reward server, written from its own OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from copl_core.serving.openapi import DOCUMENT

_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_NAMES["object"] = "object"


def http_reference() -> str:
    """Markdown: a section for each address, with the fields of its body and of its answer."""
    parts = [
        _section(path, method, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]
    return "\n\n".join(parts)


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"## {method.upper()} {path}", operation["summary"]]
    for one in operation.get("parameters", ()):
        parts.append(f"- `{one['name']}` in the {one['in']}: {one['description']}")
    if body := operation.get("requestBody"):
        parts += _schema("Body", body["content"]["application/json"]["schema"])
    if content := operation["responses"]["200"].get("content"):
        parts += _schema("Answer", content["application/json"]["schema"])
    refusals = [f"| {code} | {one['description']} |" for code, one in operation["responses"].items() if code != "200"]
    if refusals:
        parts.append("\n".join(["| status | when |", "|---|---|", *refusals]))
    return "\n\n".join(parts)


def _schema(title: str, schema: dict[str, Any]) -> list[str]:
    parts = [f"{title}:", "\n".join(["| field | what it is |", "|---|---|", *_rows(schema, "")])]
    if words := schema.get("description"):
        parts.append(words)
    if example := schema.get("example"):
        parts.append("```json\n" + json.dumps(example, indent=1, ensure_ascii=False) + "\n```")
    return parts


def _rows(schema: dict[str, Any], before: str) -> list[str]:
    """One row for each field, those of objects within lists too."""
    found = []
    for name, one in schema.get("properties", {}).items():
        needed = ", needed" if name in schema.get("required", ()) else ""
        words = f". {one['description']}" if "description" in one else ""
        found.append(f"| `{before}{name}` | {_kind(one)}{needed}{words} |")
        found += _rows(one.get("items", {}), f"{before}{name}[].")
    return found


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{one}`" for one in schema["enum"])
    kinds = schema.get("type", "object")
    return " or ".join(_named(one, schema) for one in ([kinds] if isinstance(kinds, str) else kinds))


def _named(kind: str, schema: dict[str, Any]) -> str:
    if kind != "array":
        return _NAMES[kind]
    limits = f" of {schema['minItems']} to {schema['maxItems']}" if "minItems" in schema else ""
    return f"list{limits}: {_kind(schema['items'])}"
