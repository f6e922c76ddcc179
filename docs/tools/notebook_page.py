"""The notebook as a page: its words as they stand, its code as code."""

from __future__ import annotations

import json


def as_markdown(text: str) -> str:
    """Markdown of a notebook's JSON."""
    parts = ["<!-- written from notebook.ipynb -->", ""]
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
    parts.append("The file itself: [notebook.ipynb](notebook.ipynb).")
    return "\n".join(parts) + "\n"
