"""What a setting may be, in words: for the reference pages, and for errors."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cgankd.config.settings.base import Also, OnOrOff
from cgankd.config.yaml_values import alternatives, is_model, kind_of

WORDS = {int: "whole number", float: "number", str: "text", type(None): "none"}
SIGNS = {
    annotated_types.Ge: ("at least", "ge"),
    annotated_types.Gt: ("above", "gt"),
    annotated_types.Le: ("at most", "le"),
    annotated_types.Lt: ("below", "lt"),
    annotated_types.MultipleOf: ("a multiple of", "multiple_of"),
}
Metadata = Sequence[Any]


def in_a_table(annotation: Any, metadata: Metadata = ()) -> str:
    """The types of a setting and their bounds, for a cell of a table in Markdown.

    >>> in_a_table(typing.Optional[Literal["a", "b"]])
    '`a`, `b`, none'
    """
    return ", ".join(_options(annotation, metadata, sentence=False))


def in_a_sentence(annotation: Any, metadata: Metadata = ()) -> str:
    """The same for an error, where it follows the word "allowed".

    >>> in_a_sentence(typing.Optional[int]), in_a_sentence(tuple[float, float]), in_a_sentence(Literal["a", "b"])
    ('a whole number, or none', 'a list of two, each a number', 'a, b')
    """
    options = _options(annotation, metadata, sentence=True)
    if len(options) == 1 or not any(" " in option for option in options):
        return ", ".join(options)
    return f"{', '.join(options[:-1])}, or {options[-1]}"


def literals(annotation: Any) -> list[str]:
    """The fixed words that a setting may be, and the names of its kinds."""
    if typing.get_origin(annotation) is Literal:
        return [word for word in typing.get_args(annotation) if isinstance(word, str)]
    if is_model(annotation):
        return [kind] if (kind := kind_of(annotation)) else []
    return [word for inner in alternatives(annotation) if inner is not annotation for word in literals(inner)]


def _options(annotation: Any, metadata: Metadata, sentence: bool) -> list[str]:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        own = [part for entry in inner[1:] for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        return _options(inner[0], [*own, *metadata], sentence)
    if origin is Literal:
        return [str(word) if sentence else f"`{word}`" for word in inner]
    if origin in (types.UnionType, typing.Union):
        if sentence and OnOrOff in metadata:
            return _switch(inner, metadata)
        return [option for part in inner for option in _options(part, () if part is type(None) else metadata, sentence)]
    if annotation is bool:
        return ["true", "false"]
    if is_model(annotation):
        return [kind_of(annotation) or _group(annotation)]
    return [_collection(origin, inner, metadata, sentence) or _plain(annotation, metadata, sentence)]


def _plain(annotation: Any, metadata: Metadata, sentence: bool) -> str:
    if annotation is str and any(isinstance(bound, annotated_types.MinLen) for bound in metadata):
        return "text that is not empty"
    article = "a " if sentence and annotation in (int, float) else ""
    return article + WORDS.get(annotation, str(annotation)) + _bounds(metadata)


def _collection(origin: Any, inner: tuple[Any, ...], metadata: Metadata, sentence: bool) -> str:
    """A list or a mapping; empty for other types."""
    if origin is dict:
        groups = typing.get_origin(inner[1]) is dict
        form = (" as in {NAME: {NAME: 0.5}}" if groups else " as in {NAME: 0.5}") if sentence else ""
        return f"{'groups of ' if groups else ''}numbers by name{form}"
    if origin is not tuple:
        return ""
    two = len(inner) == 2 and inner[1] is not ...
    if not sentence:
        return f"{'two' if two else 'list'} of: {in_a_table(inner[0])}"
    if is_model(inner[0]) and kind_of(inner[0]) is None:
        return f"a list of {_group(inner[0])}"
    filled = any(isinstance(bound, annotated_types.MinLen) for bound in metadata)
    size = " of two" if two else " of one or more" if filled else ""
    each = in_a_sentence(inner[0])
    return f"a list{size}, each {each if each.startswith(('a ', 'text')) else f'one of {each}'}"


def _switch(inner: tuple[Any, ...], metadata: Metadata) -> list[str]:
    """An optional group of settings, which true switches on."""
    (group,) = (part for part in inner if part is not type(None))
    return ["true", "false", *(entry.words for entry in metadata if isinstance(entry, Also)), _group(group)]


def _group(model: type[BaseModel]) -> str:
    return f"settings ({', '.join(name for name in model.model_fields if name != 'kind')})"


def _bounds(metadata: Metadata) -> str:
    texts = [f"{SIGNS[type(b)][0]} {getattr(b, SIGNS[type(b)][1])}" for b in metadata if type(b) in SIGNS]
    return " " + ", ".join(texts) if texts else ""
