"""Text: documents and their splits, tokens there and back, windows; what is said of text that is not there."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from cgankd.core.errors import UserError
from cgankd.core.store import Store
from cgankd.lm import text
from cgankd.lm.run import tokenizer_warnings
from cgankd.lm.settings import LanguageRecipe, TextSettings
from cgankd.lm.stages import LanguageRun
from cgankd.lm.text import Corpus

TEXTS = [f"document {n}: " + "déjà vu, " * (n % 7 + 1) + "\n" for n in range(40)]


def test_whole_documents_are_split_by_their_share() -> None:
    parts = text.split(TEXTS, TextSettings(val_share=0.2, test_share=0.3))
    assert sorted(itertools.chain.from_iterable(parts.values())) == sorted(TEXTS)
    total, longest = sum(map(len, TEXTS)), max(map(len, TEXTS))
    for name, share in (("test", 0.3), ("val", 0.2)):
        assert share * total <= sum(map(len, parts[name])) < share * total + longest
    assert parts == text.split(TEXTS, TextSettings(val_share=0.2, test_share=0.3))


def test_of_three_documents_each_split_has_one() -> None:
    parts = text.split(["a" * 100, "b", "c"], TextSettings(val_share=0.4, test_share=0.4))
    assert sorted(len(found) for found in parts.values()) == [1, 1, 1]


def test_pythons_documentation_is_there() -> None:
    found = text.documents("pydoc")
    assert len(found) > 50
    assert any('The "with" statement' in document for document in found)


def test_a_folder_or_one_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b", "a", "deep/c"):
        (tmp_path / f"{name}.txt").write_text(f"I am {name}.")
    (tmp_path / "empty.txt").write_text(" \n")
    assert text.documents(str(tmp_path)) == ["I am a.", "I am b.", "I am deep/c."]
    lines = [f"line {n} of many\n" for n in range(1500)]
    (tmp_path / "one.txt").write_text("".join(lines))
    pieces = text.documents(str(tmp_path / "one.txt"))
    assert "".join(pieces) == "".join(lines)
    assert all(4000 <= len(piece) < 4020 and piece.endswith("\n") for piece in pieces[:-1])


def test_a_folder_that_is_called_like_a_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "old.txt").mkdir()
    for name in ("a", "b", "old.txt/c"):
        (tmp_path / f"{name}.txt").write_text(f"I am {name}.")
    assert text.documents(str(tmp_path)) == ["I am a.", "I am b.", "I am old.txt/c."]


def test_a_link_to_a_text_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"gone\.txt can't be read: No such file"):
        text.documents(str(tmp_path))


def test_a_long_line_is_cut_too(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("word " * 3000)
    pieces = text.documents(str(tmp_path / "line.txt"))
    assert [len(piece) for piece in pieces] == [4000, 4000, 4000, 3000]
    assert "".join(pieces) == "word " * 3000


def test_text_that_can_not_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'nowhere' is not there; allowed: pydoc, a folder"):
        text.documents("nowhere")
    (tmp_path / "notes.md").write_text("words")
    with pytest.raises(UserError, match=r"notes\.md' is no \.txt file; allowed: pydoc, a folder"):
        text.documents(str(tmp_path / "notes.md"))
    (tmp_path / "one.txt").write_text("short")
    with pytest.raises(UserError, match="has 1 document; needed: three"):
        text.documents(str(tmp_path / "one.txt"))
    (tmp_path / "one.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"one\.txt is not UTF-8 text: byte 3"):
        text.documents(str(tmp_path))


def test_tokens_are_read_back_as_the_text(tmp_path: Path) -> None:
    tokenizer = text.make_tokenizer(TEXTS, 300)
    end = tokenizer.token_to_id(text.END)
    unseen = ["été in 中文\t\x00", f"sec{text.END}ond"]
    row = text.encode(tokenizer, unseen, end).tolist()
    places = [n for n, token in enumerate(row) if token == end]
    assert (len(places), places[0], places[-1]) == (3, 0, len(row) - 1)
    assert [tokenizer.decode(row[a + 1 : b]) for a, b in itertools.pairwise(places)] == unseen
    assert tokenizer.get_vocab_size() == 300
    tokenizer.save(str(tmp_path / text.TOKENIZER))
    assert text.read_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert text.make_tokenizer(TEXTS, 300).to_str() == tokenizer.to_str()


def test_a_tokenizer_that_changes_text_is_told(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = text.make_tokenizer(TEXTS, 300)
    assert text.changed(tokenizer, [*TEXTS, "été  in\n中文\t\x00", "<|end|>"]) == 0
    tokenizer.save(str(tmp_path / text.TOKENIZER))
    assert tokenizer_warnings(tmp_path, TEXTS) == []
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    assert text.changed(words, ["a  b\n", "A b", "a c"]) == 2
    words.save(str(tmp_path / text.TOKENIZER))
    (warning,) = tokenizer_warnings(tmp_path, ["a b", "A b", "a c"])
    assert "changes 2 of 3 test documents" in warning


def test_windows_are_pieces_of_the_text_and_a_function_of_seed_and_step(corpus: Corpus) -> None:
    row = corpus.tokens["train"]
    found = corpus.windows(0, 3, 50, 6)
    every = row.unfold(0, 6, 1)
    assert all((every == piece).all(1).any() for piece in found)
    assert torch.equal(found, corpus.windows(0, 3, 50, 6))
    assert torch.equal(found[:10], corpus.windows(0, 15, 10, 6))  # by the number of the sequence
    assert not torch.equal(found, corpus.windows(0, 4, 50, 6))
    assert not torch.equal(found, corpus.windows(1, 3, 50, 6))
    assert torch.equal(corpus.windows(0, 0, 5, len(row)), row.expand(5, -1))


def test_kept_tokens_are_found_again_by_the_text_which_is_not_kept_itself(tmp_path: Path, fabric: Fabric) -> None:
    store = Store(tmp_path, fabric)

    def kept(texts: list[str], source: str) -> Path:
        recipe = LanguageRecipe.model_validate(
            {"text": {"source": source, "vocabulary": 300}, "sampling": {"prompt": 4, "length": 6}}
        )
        return LanguageRun(recipe, text.split(texts, recipe.text), None, store).text.folder

    first = kept(TEXTS, "here")
    assert kept(TEXTS, "there") == first
    assert kept([TEXTS[0] + "!", *TEXTS[1:]], "here") != first
    assert "document" not in (first / "artifact.json").read_text().replace('"documents"', "")
