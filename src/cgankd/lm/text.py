"""Real text as tokens: whole documents are split into train, val and test; the tokenizer is trained on train.

The end token stands before and after every document, so a split is one row of tokens.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgankd.core import rng
from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.lm.settings import TextSettings

END = "<|end|>"
TOKENIZER = "tokenizer.json"
PIECE = 4000  # characters of the documents that a single file is cut into
SPLITS = ("train", "val", "test")


def documents(source: str) -> list[str]:
    """The documents that ``text.source`` names; UserError where there are fewer than three.

    pydoc: the topics of Python's own documentation. A folder: its .txt files, one document each. One .txt file: pieces
    of about 4,000 characters, cut between lines where these are shorter.
    """
    path = Path(source)
    if source == "pydoc":
        from pydoc_data.topics import topics  # half a megabyte

        texts = [text for _, text in sorted(topics.items())]
    elif path.is_dir():
        texts = [_read(file) for file in sorted(path.rglob("*.txt")) if not file.is_dir()]
    elif path.suffix == ".txt" and path.is_file():
        texts = _pieces(_read(path))
    else:
        what = "is no .txt file" if path.exists() else "is not there"
        raise UserError(f"text.source = {source!r} {what}; allowed: pydoc, a folder of .txt files, one .txt file")
    texts = [text for text in texts if text.strip()]
    if len(texts) < 3:
        documents = counted(len(texts), "document", "documents")
        raise UserError(f"text.source = {source!r} has {documents}; needed: three, one for each split")
    return texts


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} can't be read") from None
    except OSError as error:  # a link to a file that is gone, or one that this user may not read
        raise UserError(f"{path} can't be read: {error.strerror}") from None


def _pieces(text: str) -> list[str]:
    pieces, size = [""], 0
    lines = (line[at : at + PIECE] for line in text.splitlines(keepends=True) for at in range(0, len(line), PIECE))
    for line in lines:
        if size >= PIECE:
            pieces.append("")
            size = 0
        pieces[-1] += line
        size += len(line)
    return pieces


def split(texts: list[str], settings: TextSettings) -> dict[str, list[str]]:
    """Split whole documents, in an order that is always the same: first one for each split; the others go to test,
    then to val, while these are below their shares, then to train."""
    order = rng.uniform(0, "lm/split", torch.arange(len(texts))).argsort().tolist()
    total = sum(map(len, texts))
    wanted = {"test": settings.test_share * total, "val": settings.val_share * total}
    parts = {name: [texts[index]] for name, index in zip(SPLITS, order, strict=False)}
    for index in order[len(SPLITS) :]:
        short = (name for name, share in wanted.items() if sum(map(len, parts[name])) < share)
        parts[next(short, "train")].append(texts[index])
    return parts


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The splits as tokens, int64 [N] each."""

    tokens: dict[str, Tensor]
    vocabulary: int
    end: int
    sizes: dict[str, int]  # of each split's documents, in bytes of UTF-8

    def windows(self, seed: int, step: int, batch: int, width: int, part: str = "train") -> Tensor:
        """``batch`` random pieces of ``width`` tokens, int64 [batch, width], which depend on (seed, step) alone."""
        tokens = self.tokens[part]
        rows = step * batch + torch.arange(batch)
        starts = rng.integers(len(tokens) - width + 1, seed, f"lm/windows/{part}", rows)
        return tokens[starts[:, None] + torch.arange(width)]


def make_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer (of the library tokenizers) with at most ``vocabulary`` tokens, including END."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.encode_special_tokens = True  # a document that holds the characters of END does not end there
    return tokenizer


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in a model's folder, with truncation and padding turned off."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Any, texts: list[str], end: int) -> Tensor:
    """end, document, end, document, .., end: int64 [N]."""
    row = [end]
    for text in texts:
        row += [*tokenizer.encode(text, add_special_tokens=False).ids, end]
    return torch.tensor(row)


def changed(tokenizer: Any, texts: list[str]) -> int:
    """How many texts do not come back from their tokens: in lower case, or with unknown tokens in place of words.

    Space is not compared, because a tokenizer may decode it in other places, nor Unicode's NFC form.
    """

    def bare(text: str) -> str:
        return "".join(unicodedata.normalize("NFC", text).split())

    tokens = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    back = (tokenizer.decode(row, skip_special_tokens=False) for row in tokens)
    return sum(bare(text) != bare(decoded) for text, decoded in zip(texts, back, strict=True))
