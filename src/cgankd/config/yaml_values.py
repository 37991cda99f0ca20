"""YAML values as the user typed them: no, on, 2024, null and dates stay text where a setting is text.

YAML reads ``label_column: no`` as false and ``unit: 2024`` as a number. What the user means depends on the setting, so
a value without quotes keeps its text until its setting is known (:func:`resolve`).
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

# YAML 1.1 reads these in base 8 (0100 is 64) or in base 60 (1:30 is 90), which no user means.
OTHER_BASE = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9_]+(:[0-9_.]+)+")


@dataclasses.dataclass(frozen=True)
class Typed:
    """A value that YAML does not read as text, with the text that was typed."""

    text: str
    value: Any

    @property
    def usual(self) -> Any:
        """The value, for a setting that is not text."""
        return self.text if OTHER_BASE.fullmatch(self.text) else self.value


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and not isinstance(value, str)
        return Typed(node.value, value) if plain else value


def load(text: str) -> Any:
    """YAML, with :class:`Typed` where a plain value is not text; keys are text. Raises yaml.YAMLError.

    What an alias (``*name``) repeats is a copy, so a change of the one place does not change the other.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        for key in _keys(node, set()):
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        return _copied(loader.construct_document(node), inside=())
    finally:
        loader.dispose()


def _copied(value: Any, inside: tuple[int, ...]) -> Any:
    """The value with a dict or list of its own at each place. inside: the ids of those that contain it."""
    if not isinstance(value, dict | list):
        return value
    if id(value) in inside:
        raise yaml.YAMLError("an alias repeats what it is itself a part of")
    inside = (*inside, id(value))
    if isinstance(value, list):
        return [_copied(item, inside) for item in value]
    return {key: _copied(item, inside) for key, item in value.items()}


def as_typed(text: str, *annotations: Any) -> Any:
    """The value of ``text`` from the command line for a setting of these types; raises yaml.YAMLError.

    For a text setting it is the text itself, without the quotes around it; null and ~ are None where None is allowed.
    """
    options = [option for annotation in annotations for option in alternatives(annotation)]
    if not _is_text(options):
        return load(text)
    text = text.strip()
    if text[:1] in {"'", '"'}:
        try:
            value = load(text)
        except yaml.YAMLError:
            return text
        return value if isinstance(value, str) else text
    if type(None) in options and re.fullmatch(r"~|null|Null|NULL|", text):
        return None
    return text


def resolve(value: Any, *annotations: Any) -> Any:
    """The tree without :class:`Typed`: its text where the setting has only text types, else YAML's value."""
    options = [option for annotation in annotations for option in alternatives(annotation)]
    if isinstance(value, Typed):
        return _resolve_one(value, options)
    if isinstance(value, Mapping):
        models = [option for option in options if is_model(option)]
        kind = value.get("kind")
        models = [model for model in models if kind_of(model) in (None, kind)] or models
        inner = [typing.get_args(option)[1] for option in options if typing.get_origin(option) is dict]
        return {
            key: resolve(item, *inner, *(m.model_fields[key].annotation for m in models if key in m.model_fields))
            for key, item in value.items()
        }
    if value == "none" and _is_none(options):
        return None
    if isinstance(value, list):
        inner = [
            part
            for option in options
            if typing.get_origin(option) is tuple
            for part in typing.get_args(option)
            if part is not Ellipsis
        ]
        return [resolve(item, *inner) for item in value]
    return value


def _resolve_one(value: Typed, options: Sequence[Any]) -> Any:
    if value.value is None and (type(None) in options or not _is_text(options)):
        return None
    literals = [item for option in options if typing.get_origin(option) is typing.Literal for item in _items(option)]
    return value.text if _is_text(options) or value.text in literals else value.usual


def _is_text(options: Sequence[Any]) -> bool:
    """Whether only text or some fixed words are allowed, and perhaps None."""
    kinds = [option for option in options if option is not type(None)]

    def text(option: Any) -> bool:
        literal = typing.get_origin(option) is typing.Literal
        return option is str or (literal and all(isinstance(item, str) for item in _items(option)))

    return bool(kinds) and all(text(option) for option in kinds)


def _is_none(options: Sequence[Any]) -> bool:
    """Whether the word none can only mean that a setting has no value."""
    literals = [option for option in options if typing.get_origin(option) is typing.Literal]
    words = [word for literal in literals for word in typing.get_args(literal)]
    return type(None) in options and str not in options and "none" not in words


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a setting may have, one by one."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from alternatives(part)
    elif annotation is not None:
        yield annotation


def _items(literal: Any) -> tuple[Any, ...]:
    return typing.get_args(literal)


def kind_of(model: type[BaseModel]) -> str | None:
    """The name of a kind of settings; None for settings that have no kinds."""
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _keys(node: yaml.Node, visited: set[int]) -> Iterator[yaml.Node]:
    """The keys of all mappings in a document; ``visited``: ids of nodes, because aliases may form a cycle."""
    if id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key
            yield from _keys(value, visited)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _keys(value, visited)


def is_model(annotation: Any) -> bool:
    """Whether a type is a class of settings. In Python 3.10 ``tuple[int, ...]`` also counts as an instance of type."""
    is_class = isinstance(annotation, type) and typing.get_origin(annotation) is None
    return is_class and issubclass(annotation, BaseModel)
