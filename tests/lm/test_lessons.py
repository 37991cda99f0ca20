"""What each method shows the student and minimises; scores of a model; models in folders."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cgankd.core.errors import UserError
from cgankd.core.store import Work
from cgankd.lm import losses, models, scoring, text
from cgankd.lm.methods import METHODS, Lesson, from_labels, from_teacher
from cgankd.lm.sampling import sample
from cgankd.lm.settings import LanguageRecipe, SamplingSettings, TrainSettings
from cgankd.lm.text import Corpus
from cgankd.lm.train import train
from cgankd.training.faults import NotFinite

Make = Callable[..., nn.Module]


def recipe(**sampling: object) -> LanguageRecipe:
    return LanguageRecipe.model_validate(
        {
            "sampling": {"prompt": 4, "length": 6, "top_k": 3, "gamma": 2, **sampling},
            "distil": {"fit": {"batch_size": 3}},
        }
    )


def lesson(
    method: str, student: nn.Module, teacher: nn.Module, corpus: Corpus, settings: LanguageRecipe, seed: int
) -> Lesson:
    return from_teacher(method, student, teacher, corpus, settings.distil.lesson, settings.sampling, seed)


@pytest.mark.parametrize(
    "method", [pytest.param("sft", marks=pytest.mark.long), "kd", pytest.param("atkd", marks=pytest.mark.long)]
)
def test_on_real_text_the_tokens_after_the_prompt_count(make: Make, corpus: Corpus, method: str) -> None:
    student, teacher = make(0), make(1)
    tokens = corpus.windows(9, 2, 3, 10)
    s, t = (model(input_ids=tokens).logits[:, 3:-1] for model in (student, teacher))
    labels, every = tokens[:, 4:], torch.ones(3, 6, dtype=torch.bool)
    expected = {
        "sft": losses.cross_entropy(s, labels, every),
        "kd": losses.divergence(s, t, every),
        "atkd": losses.atkd(s, t, labels, every, 0.2),
    }[method]
    found, _ = lesson(method, student, teacher, corpus, recipe(), 9)(2)
    torch.testing.assert_close(found, expected)
    found.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in student.parameters())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_skd_minimises_the_forward_divergence_on_interleaved_text(make: Make, corpus: Corpus) -> None:
    student, teacher = make(0), make(1)
    prompts = corpus.windows(9, 2, 3, 10)[:, :4]
    settings = SamplingSettings(length=6, top_k=3)
    made = sample(student, prompts, settings, ids=torch.arange(6, 9), seed=9, teacher=teacher, end=11)
    found, notes = lesson("skd", student, teacher, corpus, recipe(), 9)(2)
    total, count = 0.0, 0
    for prompt, tokens, mask in zip(prompts, made.tokens, made.mask, strict=True):
        row = torch.cat([prompt, tokens])
        for n in range(int(mask.sum())):
            with torch.no_grad():
                s, t = (
                    torch.log_softmax(m(input_ids=row[None, : 4 + n]).logits[0, -1].double(), 0)
                    for m in (student, teacher)
                )
            total, count = total + float((t.exp() * (t - s)).sum()), count + 1
    assert float(found.detach()) == pytest.approx(total / count, rel=1e-4)
    assert notes["acceptance"] == pytest.approx(made.acceptance)
    assert student.training
    assert not teacher.training


def test_skd_becomes_on_policy_distillation_where_every_token_is_allowed(make: Make, corpus: Corpus) -> None:
    settings = recipe(top_k=12)
    found = [lesson(m, make(0), make(1), corpus, settings, 4)(1)[0] for m in ("skd", "onpolicy")]
    torch.testing.assert_close(*found)
    other = lesson("kd", make(0), make(1), corpus, settings, 4)(1)[0]
    assert float((other - found[0]).abs().detach()) > 1e-3


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_every_weight_of_the_student_learns_and_none_of_the_teachers(
    make: Make, corpus: Corpus, method: str, half: bool
) -> None:
    student, teacher = make(0).train(), make(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found, _ = lesson(method, student, teacher, corpus, recipe(), 9)(2)
    found.backward()  # type: ignore[no-untyped-call]
    slopes = {name: weight.grad for name, weight in student.named_parameters()}
    assert [name for name, slope in slopes.items() if slope is None or not slope.any()] == []
    assert all(slope is not None and torch.isfinite(slope).all() for slope in slopes.values())
    assert all(weight.grad is None for weight in teacher.parameters())


def test_before_the_distillation_every_token_counts(make: Make, corpus: Corpus) -> None:
    model, tokens = make(0), corpus.windows(2, 5, 3, 10)
    found, _ = from_labels(model, corpus, 3, 10, 2)(5)
    expected = nn.functional.cross_entropy(
        model(input_ids=tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("spoilt", "fault"), [("loss", "the loss is nan"), ("gradient", r"weight \S+ is not finite")])
def test_what_is_not_finite_ends_the_training(make: Make, fabric: Fabric, spoilt: str, fault: str) -> None:
    model = make(0)

    def spoil(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        loss = next(model.parameters()).sum()
        if spoilt == "loss":
            return loss * math.nan, {}
        loss.register_hook(lambda slope: slope * math.nan)  # the loss of the only step is finite
        return loss, {}

    with pytest.raises(NotFinite, match=f"student: {fault} at step 1; a lower learning_rate than 0.003 may help"):
        train(Work(fabric, title="student"), model, spoil, TrainSettings(steps=1), seed=0, validate=lambda: 0.0)


@pytest.mark.parametrize("count", [2, 8, 9, 15, 22])
def test_every_token_but_the_first_is_scored_once(make: Make, count: int) -> None:
    """In windows of 8: tokens 1 to 7 from token 0 on, tokens 8 to 14 from token 7 on, and so forth."""
    model = make(0)
    tokens = torch.randint(0, 12, (count,), generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for n in range(1, count):
        start = (n - 1) // 7 * 7
        with torch.no_grad():
            logits = model(input_ids=tokens[None, start:n]).logits[0, -1]
        expected -= float(torch.log_softmax(logits.double(), 0)[tokens[n]])
    assert scoring.nats(model, tokens, 8) == pytest.approx(expected, rel=1e-5)


def test_bits_and_perplexity_of_a_model_that_knows_nothing(make: Make, corpus: Corpus) -> None:
    found = scoring.scores(make(0, sharp=0.0), corpus, "test", 8)
    assert found["perplexity"] == pytest.approx(12, rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(49 * math.log2(12) / 150, rel=1e-5)


def test_a_perplexity_that_no_float_holds_is_a_fault_of_the_training(make: Make, corpus: Corpus) -> None:
    model = make(0, sharp=0.0)
    with torch.no_grad():  # the logits of a training whose learning rate was far too high
        model.get_output_embeddings().weight.copy_(1e4 * torch.arange(12.0)[:, None].expand(-1, 16))
    with pytest.raises(NotFinite, match=r"a token of the val split costs the model \d.*a lower learning_rate may help"):
        scoring.scores(model, corpus, "val", 8)


def test_a_teacher_is_as_near_to_itself_as_can_be(make: Make, corpus: Corpus) -> None:
    teacher = make(1)
    same = scoring.against_teacher(teacher, teacher, corpus, recipe(top_k=12).sampling, 40)
    assert same == {"kl": pytest.approx(0, abs=1e-6), "acceptance": 1.0}
    other = scoring.against_teacher(make(0), teacher, corpus, recipe().sampling, 40)
    assert other["kl"] > 0.1
    assert 0 < other["acceptance"] < 1


def test_every_method_has_its_words_and_settings_name_no_other() -> None:
    assert set(LanguageRecipe().distil.methods) == set(METHODS)


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(make: Make, tmp_path: Path) -> Path:
    tokenizer = text.make_tokenizer(["abc abd"], 258)
    tokenizer.save(str(tmp_path / text.TOKENIZER))
    models.save(make(3, tokenizer.get_vocab_size()), tmp_path / text.TOKENIZER, tmp_path / "model")
    return tmp_path / "model"


def checked(teacher: Path, **more: object) -> Path | None:
    tree = {"teacher": {"folder": str(teacher)}, "sampling": {"prompt": 4, "length": 6}, **more}
    return models.check(LanguageRecipe.model_validate(tree))


def test_a_model_is_read_back_as_it_was(make: Make, folder: Path) -> None:
    read, tokens = models.load(folder), torch.arange(10)[None]
    vocabulary = read.config.vocab_size  # type: ignore[union-attr]
    torch.testing.assert_close(read(input_ids=tokens).logits, make(3, vocabulary)(input_ids=tokens).logits)
    assert checked(folder) == folder
    assert models.tokens(folder)["end"] == vocabulary - 1


def test_folders_that_can_not_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.folder = '.*none' has no config\.json; needed:"):
        checked(tmp_path / "none")
    with pytest.raises(UserError, match=r"the model has 32 places, but .* is 44; allowed: 32 at most"):
        checked(folder, sampling={"prompt": 4, "length": 40})
    config = json.loads((folder / "config.json").read_text())

    def changed(name: str, **entries: object) -> Path:
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **entries}))
        return tmp_path / name

    with pytest.raises(UserError, match="names no eos_token_id"):
        checked(changed("endless", eos_token_id=None))
    with pytest.raises(UserError, match="can't be read as a causal language model"):
        checked(changed("unknown", model_type="nothing"))
    sliding = changed("sliding", model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=4)
    with pytest.raises(UserError, match="a mistral attends to a sliding window"):
        checked(sliding)
    (tmp_path / "sliding" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="can't be read as a causal language model"):
        checked(sliding)
    other = changed("other", eos_token_id=3)
    with pytest.raises(UserError, match="differ in their tokens"):
        checked(folder, student={"folder": str(other)})


def test_models_that_can_not_take_back_a_token_are_refused(folder: Path, tmp_path: Path) -> None:
    import transformers

    config = transformers.Lfm2Config(
        vocab_size=models.tokens(folder)["vocabulary"], hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, layer_types=["conv", "full_attention"],
        max_position_embeddings=64, eos_token_id=models.tokens(folder)["end"],
    )  # fmt: skip
    torch.manual_seed(0)
    models.save(transformers.Lfm2ForCausalLM(config), folder / text.TOKENIZER, tmp_path / "conv")
    said = r"a lfm2 can't take back a token .*; allowed: a transformer with full att"
    with pytest.raises(UserError, match=f"{said}|can't be read as a causal language model"):  # as transformers 5.0 says
        checked(tmp_path / "conv")


def test_a_tokenizer_that_cuts_and_fills_reads_whole_texts(folder: Path) -> None:
    whole = text.read_tokenizer(folder)
    cutting = text.read_tokenizer(folder)
    cutting.enable_truncation(4)
    cutting.enable_padding(length=6)
    cutting.save(str(folder / text.TOKENIZER))
    words = ["abc abd abc", "a"]
    assert text.encode(text.read_tokenizer(folder), words, 0).tolist() == text.encode(whole, words, 0).tolist()
