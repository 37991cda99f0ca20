"""`cgankd lm`: the table, a run in pieces, a teacher from a folder, and what is said where something is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Said, artifacts, same

from cgankd.core.checkpoint import Checkpoint
from cgankd.core.errors import OutOfTime

Typed = Callable[..., Said]

TINY = """
text: {source: texts, vocabulary: 280}
teacher: {width: 16, layers: 1, heads: 2, fit: {steps: 4, batch_size: 2}}
student: {width: 8, layers: 1, heads: 2, fit: {steps: 4, batch_size: 2}}
sampling: {prompt: 3, length: 5, top_k: 20, gamma: 2}
distil: {fit: {steps: 3, batch_size: 2}}
seeds: [0, 1]
test_prompts: 4
runtime: {threads: 1, precision: fp32, checkpoint_seconds: 0.0}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe of seconds, beside the texts that it reads."""
    (tmp_path / "texts").mkdir()
    for number in range(6):
        words = " ".join(f"word{(number * k) % 11}" for k in range(60))
        (tmp_path / "texts" / f"{number}.txt").write_text(words)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


def trained_with(out: Path, width: int) -> Path:
    """The folder of the model of that width: the recipe's teacher has 16, its students 8."""
    made = {
        folder: json.loads((folder / "artifact.json").read_text()) for folder in out.glob("artifacts/train_model-*")
    }
    (folder,) = [folder for folder, record in made.items() if record["arguments"]["settings"]["width"] == width]
    return folder


@pytest.mark.long
def test_the_table_and_what_is_used_again(tiny: Path, typed: Typed) -> None:
    said = typed("lm", tiny, "--out", "whole", "--quiet")
    assert said.code == 0, said.err
    found = json.loads((tiny.parent / "whole" / "results.json").read_text())
    methods = ["sft", "kd", "atkd", "onpolicy", "skd"]
    assert [row["method"] for row in found["rows"]] == methods
    for row in found["rows"]:
        bits = row["bits_per_byte"]
        line = next(line for line in said.out.splitlines() if line.startswith(f"{row['method']} "))
        assert f" {bits['mean']:.3f} ± {bits['std']:.3f} " in line
        assert line.endswith(f" {100 * row['acceptance']['std']:.1f} %")
        assert 0 <= row["acceptance"]["mean"] <= 1
        if row["method"] == "sft":
            assert row["kl"]["difference"] is None
        else:
            pairs = zip(row["kl"]["values"], found["rows"][0]["kl"]["values"], strict=True)
            assert row["kl"]["difference"]["values"] == pytest.approx([a - b for a, b in pairs])
    assert (tiny.parent / "whole" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "! Fewer than three seeds" in said.out

    # a changed method makes only itself anew
    before = artifacts(tiny.parent / "whole", "read_text", "train_model")
    words = ("lm", tiny, "--out", "whole", "--quiet", "distil.methods=[sft,skd]", "sampling.top_k=5")
    assert typed(*words).code == 0
    assert artifacts(tiny.parent / "whole", "read_text", "train_model") == before
    assert len(artifacts(tiny.parent / "whole", "distil")) == 14

    # a teacher from a folder is used as it is, tokens and all
    folder = trained_with(tiny.parent / "whole", width=16)
    words = ("lm", tiny, "--out", "lent", "--quiet", "distil.methods=[sft,kd]", f"teacher.folder={folder}")
    assert typed(*words).code == 0
    lent = json.loads((tiny.parent / "lent" / "results.json").read_text())
    for name in ("text", "teacher", "student"):
        assert lent[name] == found[name]
    for mine, theirs in zip(lent["rows"], found["rows"][:2], strict=True):
        assert {**mine, "artifacts": []} == {**theirs, "artifacts": []}


@pytest.mark.long
def test_a_run_in_pieces_ends_with_the_numbers_of_one_in_one_piece(
    tiny: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("lm", tiny, "--quiet", "seeds=[3]", "distil.methods=[sft,skd]", "student.dropout=0.5")
    assert typed(*words, "--out", "whole").code == 0
    save = Checkpoint.save

    def save_and_stop(self: Checkpoint, *state: Any) -> None:
        save(self, *state)
        raise OutOfTime("the time limit is reached")

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    pieces = 0
    while (said := typed(*words, "--out", "pieces")).code == 75:
        assert "the time limit is reached" in said.err
        pieces += 1
    assert said.code == 0, said.err
    assert pieces == 4 + 4 + 3 + 3  # after every step of the four trainings
    same(tiny.parent / "pieces", tiny.parent / "whole")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["nothing"],
            "recipe 'nothing' is neither a ready recipe nor an existing YAML file; ready recipes: pydoc",
        ),
        (["pydoc", "sampling.gama=2"], "key 'sampling.gama' is not known (did you mean 'gamma'?)"),
        (["pydoc", "student.heads=5"], "5 heads need a width that is a multiple of 10"),
        (["pydoc", "distil.methods=[skd,skd]"], "a method is listed twice"),
        (["tiny.yaml", "sampling.length=5000"], "is 5003, but the"),
        (["tiny.yaml", "text.source=nowhere"], "text.source = 'nowhere' is not there"),
        (["tiny.yaml", "student.folder=nowhere"], "student.folder = 'nowhere' has no config.json"),
    ],
)
def test_what_is_not_allowed_is_said(words: list[str], sentence: str, tiny: Path, typed: Typed) -> None:
    assert sentence in typed("lm", *words, "--out", "out").sentence()
    assert not (tiny.parent / "out" / "results.json").exists()


def test_without_transformers_it_is_said_what_to_install(
    tiny: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    said = typed("lm", tiny, "--out", "out").sentence()
    assert "a language model needs transformers: " in said
    assert "pip install 'cgankd[lm]'" in said
    assert not (tiny.parent / "out").exists()
