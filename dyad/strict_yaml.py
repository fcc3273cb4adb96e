"""YAML that says one thing: a key that is there twice is refused, and a mistake is one line with its place.

YAML's own loaders let the last of two equal keys win: a second AU12 in a robot's calibration would change its face
unseen.
"""

from typing import Any

import yaml
from yaml.reader import ReaderError


def read(text: str) -> Any:
    """Plain data of a YAML text; ValueError in one line, which begins with the line's number."""
    try:
        loader = _EachOnce(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{place}not valid YAML ({error.problem})") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}: not valid YAML ({error.reason})") from None


class _EachOnce(yaml.SafeLoader):
    """Plain data only, and no key twice in one mapping; what a merge brings may be written over, as YAML says."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    twice = f"the key {key.value!r} is there a second time, first in line {lines[name]}; keep one"
                    raise ValueError(f"line {line}: {twice}")
                lines[name] = line
        return node
