"""For api.md: reads docstrings whose entries are ``name : what it is``, where griffe expects a type after the colon."""

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^(\w[\w, ]*) : (.+(?:\n    .+)*)$", re.MULTILINE)
RETURNED_TEXT = re.compile(r"(?<=Returns\n-------\n)(?!\w+\n    )(?:.+\n?|\n(?!\w+\n---))+")


class Entries(griffe.Extension):
    """Gives each name its own entry, with what it is on the next line, and puts the returned type above its text."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = ENTRY.sub(
                lambda found: "\n".join(f"{name}\n    {found[2]}" for name in found[1].split(", ")), obj.docstring.value
            )
            returned = str(getattr(obj, "returns", ""))
            text = RETURNED_TEXT.sub(lambda found: f"{returned}\n" + re.sub("(?m)^(?=.)", "    ", found[0]), text)
            obj.docstring.value = text
