"""Whatever is given as a recipe, as weights or as the state of a run is read, or refused with a sentence.

See test_any_data.
"""

from __future__ import annotations

import json
import struct
import typing
from pathlib import Path
from typing import Any

import bad_checkpoints
import torch
from hypothesis import strategies as st
from pydantic import BaseModel
from random_inputs import LETTERS, TEXTS, VALUES, any_input, changed, read_or_refused, rewritten

from cgankd.config import recipe, yaml_values
from cgankd.core.checkpoint import Checkpoint
from cgankd.core.store import open_artifact
from cgankd.nets.conversion import convert_pth
from cgankd.nets.weights import load_weights

# --- recipes -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["data", "seeds", "size", "source", "digits", "search", "extends", "name", "kind", "null", "~", "0x_", "0b_",
     "1:30", ".inf", "1e3", "2024-13-45", "---", "...", "[", "]", "{", "}", "@", "`", "'", "#", ">", "|", "\\", "?",
     ":", ",", "-", "<<:", "&a", "*a", "!!int", "!!float", "!!timestamp", "!!set", "!x", "%YAML", ": ", ":\n  ",
     "- ", "\n", "\n  ", ", ", "&a ", "<<: ", "!!int ", "!!float ", "? ", "| ", "\t", '"', " "]
)  # fmt: skip
YAML = st.lists(WORDS | LETTERS, max_size=25).map("".join)


@any_input(YAML.map(str.encode) | st.binary(max_size=100))
def test_any_file_as_a_recipe(content: bytes, folder: Path) -> None:
    found = read_or_refused(lambda: recipe.load(str(rewritten(folder / "any.yaml", content))))
    if found is not None:
        again = rewritten(folder / "again.yaml", found.to_yaml().encode())
        assert recipe.load(str(again)) == found


def settings_tree(model: type[BaseModel], depth: int = 0) -> st.SearchStrategy[Any]:
    """Mappings with keys of the model, and now and then others; values of any kind."""
    fields = {}
    for name, field in model.model_fields.items():
        inner = [kind for kind in yaml_values.alternatives(field.annotation) if yaml_values.is_model(kind)]
        below = [settings_tree(kind, depth + 1) for kind in inner] if depth < 3 else []
        literals = [item for kind in yaml_values.alternatives(field.annotation) for item in typing.get_args(kind)]
        fields[name] = st.one_of(VALUES, *below, *([st.sampled_from(literals)] if literals else []))
    known = st.fixed_dictionaries({}, optional=fields)
    few = known.map(lambda tree: dict(list(tree.items())[:3]))
    return few | few.flatmap(lambda tree: st.dictionaries(TEXTS, VALUES, max_size=1).map(lambda more: {**tree, **more}))


@any_input(settings_tree(recipe.Recipe))
def test_any_tree_as_a_recipe(tree: Any, folder: Path) -> None:
    read_or_refused(lambda: recipe.from_tree(tree))


KEYS = st.sampled_from(
    ["data", "size", "seeds", "label_range", "teacher", "student", "fit", "steps", "kind", "synthesis",
     "subsampling", "q", "search", "jury", "0", "1", "compare"]
)  # fmt: skip


@any_input(
    st.lists(
        st.builds(
            lambda keys, sign, text: ".".join(keys) + sign + text,
            st.lists(KEYS | TEXTS, min_size=1, max_size=4),
            st.sampled_from(["=", "=", "=", ""]),
            YAML | TEXTS,
        ),
        max_size=3,
    )
)
def test_any_overrides(overrides: list[str], folder: Path) -> None:
    read_or_refused(lambda: recipe.from_tree({}, overrides))


# --- weights and checkpoints ---------------------------------------------------------------------------------------


def _safetensors(header: Any, content: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


HEADERS = st.dictionaries(
    TEXTS.filter(str.isprintable) | st.just("__metadata__"),
    VALUES
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F77"]),
            "shape": st.lists(st.integers(-1, 2**40), max_size=3),
            "data_offsets": st.lists(st.integers(0, 2**63), min_size=2, max_size=2),
        }
    ),
    max_size=3,
)
GOOD = _safetensors(bad_checkpoints.tensor(), bytes(16))


@any_input(changed(GOOD) | st.builds(_safetensors, HEADERS, st.binary(max_size=64)))
def test_any_file_as_safetensors(content: bytes, folder: Path) -> None:
    path = rewritten(folder / "any.safetensors", content)
    read_or_refused(lambda: convert_pth(path, folder / "own.safetensors"))
    network = torch.nn.Linear(2, 2)
    read_or_refused(lambda: load_weights(network, path))


OLD = bad_checkpoints._bytes_of(bad_checkpoints.STATE, _use_new_zipfile_serialization=False)


@any_input(changed(bad_checkpoints.WHOLE, OLD))
def test_any_file_as_a_checkpoint_of_torch(content: bytes, folder: Path) -> None:
    path = rewritten(folder / "any.pth", content)
    read_or_refused(lambda: convert_pth(path, folder / "own.safetensors"))


@any_input(st.tuples(HEADERS, st.dictionaries(TEXTS, TEXTS, max_size=2), st.binary(max_size=64)))
def test_any_file_as_the_state_of_a_loop(content: Any, folder: Path) -> None:
    header, metadata, rest = content
    names = {f"module/net/{name}": value for name, value in header.items()}
    path = rewritten(folder / "checkpoint.safetensors", _safetensors({**names, "__metadata__": metadata}, rest))
    network = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(network.parameters())
    read_or_refused(lambda: Checkpoint(path).load({"net": network}, {"adam": optimiser}))


@any_input(
    VALUES
    | st.fixed_dictionaries(
        {},
        optional={
            "key": TEXTS,
            "files": st.dictionaries(TEXTS, VALUES, max_size=2) | VALUES,
            "seconds": VALUES,
            "summary": VALUES,
        },
    )
)
def test_any_description_of_an_artifact(content: Any, folder: Path) -> None:
    rewritten(folder / "artifact" / "artifact.json", json.dumps(content).encode())
    read_or_refused(lambda: open_artifact(folder / "artifact"))
