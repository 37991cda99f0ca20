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
HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes of file names that are not UTF-8
UNKNOWN = {"set", "omap", "pairs", "binary"}  # tags of values that no setting has
MOST = 100_000  # values of a file, with those that aliases repeat
LONGEST = 40  # characters of a value in an error


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
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError):  # 2024-02-31, 0x_, 5,000 digits, !!bool maybe
            kind = node.tag.rpartition(":")[2]
            problem = f"{str(node.value)[:LONGEST]!r} can't be read as {kind}; text needs quotes"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
        plain = isinstance(node, yaml.ScalarNode) and node.style is None and not isinstance(value, str)
        return Typed(node.value, value) if plain else value


def load(text: str) -> Any:
    """YAML, with :class:`Typed` where a plain value is not text; keys are text. Raises yaml.YAMLError.

    What an alias (``*name``) repeats is a copy, so a change of the one place does not change the other. A key that is
    there twice is an error, and so are aliases that repeat each other until nothing could hold them.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {})
        return _copied(loader.construct_document(node))
    except RecursionError:
        raise yaml.YAMLError("lists or mappings are nested too deeply") from None
    finally:
        loader.dispose()


def _check(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node holds, with what its aliases repeat; makes the keys of all mappings text.

    sizes: of the nodes checked so far, by their ids; 0: the node is being checked, so what it holds repeats it.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise _wrong("an alias repeats what it is itself a part of", node)
        return sizes[id(node)]
    sizes[id(node)] = 0
    size, kind = 1, node.tag.rpartition(":")[2]
    if kind in UNKNOWN:
        raise _wrong(f"the tag !!{kind} is not allowed", node)
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        names = [key.value for key in keys]
        for key in keys:
            if names.count(key.value) > 1:
                raise _wrong(f"the key {key.value!r} is there twice; allowed: once", key)
        size += sum(_check(part, sizes) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(value, sizes) for value in node.value)
    elif HALF.search(node.value):
        raise _wrong("a text holds half of a pair of surrogates, which no file can hold", node)
    if size > MOST:
        raise _wrong(f"aliases make more than {MOST:,} values of this", node)
    sizes[id(node)] = size
    return size


def _wrong(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _copied(value: Any) -> Any:
    """The value with a dict or list of its own at each place."""
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


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


def is_model(annotation: Any) -> bool:
    """Whether a type is a class of settings. In Python 3.10 ``tuple[int, ...]`` also counts as an instance of type."""
    is_class = isinstance(annotation, type) and typing.get_origin(annotation) is None
    return is_class and issubclass(annotation, BaseModel)
