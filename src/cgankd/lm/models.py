"""Causal language models of transformers: new ones, and their folders.

A folder holds config.json, model.safetensors and tokenizer.json; nothing is downloaded, unpickled or executed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgankd.core import extras, rng
from cgankd.core.errors import UserError
from cgankd.lm import text
from cgankd.lm.sampling import forgets
from cgankd.lm.settings import LanguageRecipe, ModelSettings

FILES = ("config.json", "model.safetensors", text.TOKENIZER)


def transformers() -> Any:
    """The library, with its progress bars and messages off; UserError where it can't be imported."""
    extras.opened("tokenizers", "a language model", "lm")
    library = extras.opened("transformers", "a language model", "lm")
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    return library


def create(settings: ModelSettings, vocabulary: int, end: int, window: int, seed: int) -> nn.Module:
    """A model with random weights for ``vocabulary`` tokens and ``window`` places; token ``end`` ends a text."""
    library = transformers()
    shared = {"vocab_size": vocabulary, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    if settings.architecture == "gpt2":
        drop = settings.dropout
        config = library.GPT2Config(
            n_positions=window, n_embd=settings.width, n_layer=settings.layers, n_head=settings.heads,
            resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop, **shared,
        )  # fmt: skip
    else:
        config = library.LlamaConfig(
            hidden_size=settings.width, intermediate_size=8 * settings.width // 3,
            num_hidden_layers=settings.layers, num_attention_heads=settings.heads, max_position_embeddings=window,
            tie_word_embeddings=True, attention_dropout=settings.dropout, **shared,
        )  # fmt: skip
    with rng.seeded(seed, "lm/weights"):
        model: nn.Module = library.AutoModelForCausalLM.from_config(config)
    return model


def load(folder: Path) -> nn.Module:
    """The model in a folder, in eval mode at float32."""
    model: nn.Module = transformers().AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    return model.eval()


def save(model: nn.Module, tokenizer: Path, folder: Path) -> None:
    """Write the three files of a model to a folder; ``tokenizer`` is copied."""
    pretrained: Any = model
    pretrained.save_pretrained(folder)
    shutil.copyfile(tokenizer, folder / tokenizer.name)


def check(recipe: LanguageRecipe) -> Path | None:
    """The user's folder whose tokenizer the run uses; None: the run trains its own.

    Raises UserError where a folder has no model that the recipe can use, or student and teacher differ in tokens.
    """
    named = {"teacher": recipe.teacher.folder, "student": recipe.student.folder}
    folders = {f"{who}.folder": Path(folder) for who, folder in named.items() if folder is not None}
    for setting, folder in folders.items():
        _check_folder(folder, setting, recipe.window)
    if len({json.dumps(tokens(folder), sort_keys=True) for folder in folders.values()}) > 1:
        raise UserError("teacher.folder and student.folder differ in their tokens; allowed: the same tokens and ids")
    return next(iter(folders.values()), None)


def tokens(folder: Path) -> dict[str, Any]:
    """What must be equal for teacher and student: ``vocabulary`` (V), ``end`` and ``ids`` (token -> number)."""
    config = _config(folder)
    ends = config.eos_token_id
    return {
        "vocabulary": config.vocab_size,
        "end": ends[0] if isinstance(ends, list) else ends,
        "ids": text.read_tokenizer(folder).get_vocab(),
    }


def _config(folder: Path) -> Any:
    return transformers().AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _check_folder(folder: Path, setting: str, window: int) -> None:
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{setting} = {str(folder)!r} has no {name}; needed: {', '.join(FILES)}")
    library = transformers()
    try:
        model, token_set, config = load(folder), tokens(folder), _config(folder)
        sliding = any(library.DynamicCache(config=config).is_sliding) or "local" in getattr(
            config, "attention_layers", ()
        )
        forgetful = sliding or forgets(model)
    except Exception as error:  # the library raises any type of error for files that it can't read
        message = " ".join(str(error).split())[:200]
        raise UserError(
            f"{setting} = {str(folder)!r} can't be read as a causal language model ({type(error).__name__}: {message})"
        ) from error
    if not isinstance(token_set["end"], int):
        raise UserError(f"{setting}: config.json names no eos_token_id; needed: the token that ends a text")
    if max(token_set["ids"].values()) >= token_set["vocabulary"]:
        raise UserError(
            f"{setting}: tokenizer.json has token numbers up to {max(token_set['ids'].values())}; allowed: under the "
            f"model's vocabulary of {token_set['vocabulary']}"
        )
    if sliding:
        raise UserError(f"{setting}: a {config.model_type} attends to a sliding window; allowed: full attention")
    if not forgetful:
        raise UserError(
            f"{setting}: a {config.model_type} can't take back a token that it has read, but interleaved sampling "
            "does; allowed: a transformer with full attention"
        )
    places = getattr(config, "max_position_embeddings", window)
    if places < window:
        raise UserError(
            f"{setting}: the model has {places} places, but sampling.prompt + sampling.length is {window}; "
            f"allowed: {places} at most"
        )


def next_logits(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of each token [B, T] but the first, given the tokens before it; float32 [B, T - 1, V]."""
    logits: Tensor = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return logits.float()
