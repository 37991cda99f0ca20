"""The settings of every part of a run, typed: defaults, bounds and what each one is for."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("the same seed stands twice; allowed: distinct whole numbers")
    return seeds


Seeds = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_distinct)]
Decay = Annotated[float, Field(ge=0, lt=1)]
RatioWidths = Annotated[tuple[Annotated[int, Field(ge=32, multiple_of=8)], ...], Field(min_length=1)]


RATIO_NETWORKS = {  # the paper's; MLP5 is wider for classes than for a scalar
    "mlp3": (512, 256, 128),
    "mlp5": (2048, 1024, 512, 256, 128),
    "mlp5_scalar": (1024, 512, 256, 128, 64),
}


class Settings(BaseModel):
    """Base of all settings: typed, frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    added: ClassVar[Mapping[str, Any]] = {}  # fields that came later, and what was done before there were any

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Without ``added`` fields that say what was done before, so that the keys of older results stay.

        With them where the context says ``whole``: what is shown to people has every setting.
        """
        dumped: dict[str, Any] = dump(self)
        if not (info.context or {}).get("whole"):
            for name, before in self.added.items():
                if name in dumped and getattr(self, name) == before:
                    del dumped[name]
        return dumped

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_as_one(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = typing.get_args(annotation := cls.model_fields[info.field_name or ""].annotation) or (annotation,)
        if isinstance(value, bool) and bool not in kinds and {int, float} & set(kinds):
            raise ValueError("a number is needed")
        return value


class DataSettings(Settings):
    """Which images, which of them are labelled, and how they are brought to one shape."""

    source: str = Field("digits", description="a built-in name (cgankd data lists them), a folder, .npz or .h5")
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: words and whole numbers are classes, decimals are scalars"
    )
    size: int | None = Field(None, ge=16, description="side in pixels; none: as the images are")
    shape: Literal["crop", "pad"] = Field(
        "crop", description="not square: crop (short side to size, centre crop) or pad (long side, black border)"
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 colour; none: as the images are")
    label_column: str | None = Field(None, description="metadata.csv: none means the column 'label'")
    group_column: str | None = Field(
        None, description="column or array whose equal values never straddle two splits (drive, object, person)"
    )
    label_range: tuple[float, float] | None = Field(
        None, description="regression: allowed labels; none: the range of the training split"
    )
    unit: str = Field("", description="regression: the label's unit, for tables")
    train_size: int | None = Field(None, ge=2, description="labelled images of the student's owner; none: all")
    train_per_class: int | None = Field(
        None, ge=1, description="the same, per class or per distinct label (excludes train_size)"
    )
    val_size: int | None = Field(
        None, ge=1, description="validation images, out of the training split; none: a tenth of the owner's"
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="test share where the source has no test split")
    seed: int = Field(0, description="of the split, the choice of labelled images and the turns")
    turns: int = Field(4, ge=1, description="rotated-fashion: how many angles each training image is turned by")


class AugmentSettings(Settings):
    """Random views of a training image."""

    shift: int = Field(2, ge=0, description="pixels, up to, in each direction; black comes in")
    flip: bool | None = Field(None, description="mirror half the views; none: where the task allows it")
    views: int = Field(
        64, ge=0, description="views of an image that recur, so that teacher outputs can be cached; 0: never"
    )
    randaugment: int = Field(0, ge=0, description="RandAugment: operations on each view; those that keep the label")
    magnitude: float = Field(0.5, gt=0, le=1, description="RandAugment: strength of the operations")
    cutmix: float = Field(0.0, ge=0, description="CutMix: a of Beta(a, a); classes only; 0: none")


class AttackSettings(Settings):
    """How far an attack on a network moves an image's pixels, which lie in [0, 1]."""

    eps: float = Field(8 / 255, gt=0, le=1, description="at most, in any pixel and channel (L-infinity)")
    steps: int = Field(20, ge=1, description="PGD: steps along the sign of the gradient")
    step_size: float | None = Field(None, gt=0, le=1, description="PGD: of one step; none: 2.5 eps / steps")

    @property
    def step(self) -> float:
        """``step_size``, or what it is where there is none."""
        return self.step_size or 2.5 * self.eps / self.steps


class AdversarialSettings(AttackSettings):
    """Adversarial training (arXiv 1706.06083): PGD against the network as it is at each step."""

    steps: int = Field(5, ge=1, description="of PGD, each of which costs a forward and a backward pass")


class FitSettings(Settings):
    """Supervised training of one network."""

    added = {"adversarial": None}

    steps: int = Field(2000, ge=1, description="optimiser steps")
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.05, gt=0, description="SGD with Nesterov momentum: the peak")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["onecycle", "cosine", "step", "constant"] = "onecycle"
    milestones: tuple[float, ...] = Field((0.625, 0.75, 0.875), description="step: where it is divided by 10")
    warmup: float = Field(0.2, ge=0, lt=1, description="onecycle: share of the steps before the peak")
    clip_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    augment: AugmentSettings = AugmentSettings()
    adversarial: AdversarialSettings | None = Field(
        None, description="images are attacked before the network learns from them, by labels alone; none: never"
    )


class JurorSettings(Settings):
    """One teacher, trained here or loaded, or what only answers in its place; one of a jury, by its own seed."""

    source: str | None = Field(
        None, description="what only answers in a network's place: module:function or an .onnx file; none: network"
    )
    network: str = "resnet8x4"
    weights: str | None = Field(None, description="a .safetensors file; then nothing is trained")
    start: str | None = Field(
        None,
        description="weights that training starts from: a .safetensors file or package:NAME; layers whose shapes "
        "differ, as the head's may, and a head that is not there start anew; none: random",
    )


class TeacherSettings(JurorSettings):
    """The strong network, and those that vote beside it in the filter and in replaced labels."""

    source: str | None = Field(
        None,
        description="what stands in the trained teacher's place and only answers: module:function, an .onnx "
        "file, or a .csv file of predictions; none: network",
    )
    trained_on: Literal["train", "pool"] = Field(
        "train", description="train: the owner's labelled images; pool: all of the training split"
    )
    fit: FitSettings = FitSettings()
    jury: tuple[JurorSettings, ...] = Field(
        (), description="more teachers; the filter takes the mean of all errors, labels that of all votes"
    )
    votes: Literal["first", "mean", "confidence"] = Field(
        "first",
        description="several teachers (jury): whose outputs distillation matches; the mean of all, or one weighted "
        "for each image by how sure each teacher is (confidence), as then are errors and replaced labels too",
    )

    def all(self) -> list[tuple[str, JurorSettings]]:
        """This one and its jurors, each with the setting that it stands under."""
        return [("teacher", self), *((f"teacher.jury.{place}", one) for place, one in enumerate(self.jury))]


class StudentSettings(Settings):
    """The small network; ``fit`` trains NOKD, ``transfer_steps`` every row that is compared."""

    network: str = "resnet8"
    fit: FitSettings = FitSettings()
    transfer_steps: int = Field(4000, ge=1, description="optimiser steps of the control and of every distilled row")
    start: Literal["scratch", "nokd"] = Field(
        "scratch", description="distilled rows start from new weights (v1) or from the NOKD student (final paper)"
    )
    finetune_learning_rate: float = Field(0.01, gt=0, description="peak rate where start is nokd")
    real_share: float | None = Field(
        None, gt=0, lt=1, description="share of real images in a batch; none: as many as their share of the images"
    )
    strong_augment: AugmentSettings = Field(
        AugmentSettings(randaugment=2, cutmix=1.0), description="the views of row augment"
    )
    temperature: float = Field(
        4.0, gt=0, description="of softened probabilities: kd and what is made of it, classes"
    )
    label_weight: float | None = Field(None, ge=0, description="KD: r; none: .1 classes, .5 scalar")
    teacher_weight: float | None = Field(None, ge=0, description="KD: a; none: .9 classes, .5 scalar")
    method_settings: dict[str, dict[str, float]] = Field(
        {}, description="numbers of other methods by name, as in crd: {weight: 0.8} (cgankd methods lists them)"
    )


class VicinitySettings(Settings):
    """Which real images count as being at a label (CcGAN; scalar labels only)."""

    kind: Literal["hard", "soft"] = "hard"
    draw: Literal["uniform", "weighted"] = Field(
        "uniform",
        description="soft: uniform draws and weighted losses (paper), or draws by weight and plain losses",
    )
    rule: Literal["robust", "paper"] = Field(
        "robust", description="robust: half-width that holds the nearest images; paper: multiple of the widest gap"
    )
    neighbours: int = Field(30, ge=1, description="robust: images inside the window")
    widest: float = Field(0.1, gt=0, description="robust: half-width at most, as a share of the label range")
    gaps: float = Field(5.0, gt=0, description="paper: k, half-width in widest gaps between distinct labels")
    noise: float | None = Field(
        None, ge=0, description="sigma added to target labels, in [0,1] labels; none: 1.06 std N^-1/5"
    )


class GeneratorSettings(Settings):
    """The conditional GAN, or what stands in its place."""

    added = {"mode_seeking": 0.0}

    source: str | None = Field(
        None,
        description="in the GAN's place: module:function, an .onnx file, or ready images with labels "
        "(a folder, .npz, .h5); none: a GAN is trained here",
    )
    network: Literal["sngan", "sagan", "biggan"] = "sngan"
    channels: int = Field(32, ge=4, description="base channels")
    discriminator_channels: int | None = Field(None, ge=4, description="none: as channels")
    multipliers: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="base channels times these, from the largest map to the smallest; none: 1, 2, 4, 4 ..."
    )
    attention: int | None = Field(
        None,
        ge=0,
        description="sagan, biggan: side of the maps with self-attention; none: half the image's; 0: off",
    )
    shared_embedding: bool = Field(
        True, description="one label embedding for all norms of the generator; false: each norm learns its own"
    )
    latent: int = Field(
        32, ge=2, description="length of z; short ones are learnt sooner, and give varied images sooner"
    )
    label_dim: int = Field(128, ge=4, description="length of the label embedding")
    steps: int = Field(3000, ge=1, description="generator steps")
    discriminator_steps: int = Field(1, ge=1, description="per generator step")
    batch_size: int = Field(64, ge=2)
    generator_rate: float = Field(3e-4, gt=0)
    discriminator_rate: float = Field(4e-4, gt=0)
    betas: tuple[Decay, Decay] = (0.0, 0.99)
    loss: Literal["hinge", "vanilla"] = "hinge"
    r1: float = Field(0.0, ge=0, description="gamma of R1: half of it times D's squared gradient at real images")
    r1_every: int = Field(
        16, ge=1, description="discriminator steps between two R1 penalties (then as much larger)"
    )
    lecam: float = Field(0.0, ge=0, description="weight of the LeCam regulariser")
    mode_seeking: float = Field(
        0.0, ge=0, description="weight of the term that keeps images of one label apart; against collapse"
    )
    ema: float = Field(0.995, ge=0, lt=1, description="decay of the generator's moving average")
    ema_start: int = Field(200, ge=0, description="steps before the average starts")
    diffaugment: tuple[Literal["color", "translation", "cutout"], ...] = ("translation",)
    pooling: Literal["sum", "flatten"] = Field(
        "flatten", description="of the discriminator's last map: keep positions, or add them up (SNGAN's)"
    )
    label_input: Literal["ili", "nli"] = Field(
        "ili", description="scalar labels: a pre-trained embedding (ILI), or the number itself (NLI)"
    )
    vicinity: VicinitySettings = VicinitySettings()
    embedding_steps: int = Field(600, ge=1, description="scalar labels: steps of each of the two ILI networks")


class RatioSettings(Settings):
    """The conditional density ratio h(x, y)."""

    features: Literal["teacher", "nokd", "classifier", "autoencoder"] = Field(
        "teacher",
        description="of images, computed once: the penultimate layer of teacher, NOKD student or a classifier of "
        "its own, or the code of a sparse auto-encoder with a regression branch (paper, scalar labels)",
    )
    feature_network: str = Field("cnn24", description="classifier, autoencoder: the network that is trained for it")
    feature_steps: int = Field(2000, ge=1, description="classifier, autoencoder: training steps")
    hidden: Literal["mlp3", "mlp5", "mlp5_scalar"] | RatioWidths = Field(
        (512, 256, 128), description="widths, normalised in eight groups, or the paper's networks by name"
    )
    vicinity_gaps: float | None = Field(
        None,
        gt=0,
        description="scalar labels: fakes whose predicted label is more widest gaps than this from the real label "
        "are left out of h's training (paper: 6); none: all are in",
    )
    dropout: float = Field(0.5, ge=0, lt=1)
    penalty: float = Field(
        1.0, ge=0, description="lambda: holds the fakes' mean ratio at 1; the paper's .01 leaves few to accept"
    )
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(5e-4, gt=0)
    milestones: tuple[float, ...] = (0.4, 0.75)
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    weight_decay: float = Field(1e-4, ge=0)
    fakes_per_image: int = Field(10, ge=1, description="fakes drawn at each real image's label")

    @property
    def widths(self) -> tuple[int, ...]:
        """``hidden`` as numbers."""
        return self.hidden if isinstance(self.hidden, tuple) else RATIO_NETWORKS[self.hidden]


class SynthesisSettings(Settings):
    """Which generated images the student sees."""

    images: int = Field(10_000, ge=1, description="M: images kept")
    subsampling: Literal["maximum", "quantile", "budget", "none"] = Field(
        "maximum",
        description="M1: accept with h / M; M the rising maximum (paper), or a quantile of h, or h scaled to a "
        "budget of draws; or keep all",
    )
    cap_quantile: float = Field(0.99, gt=0, lt=1, description="quantile: which quantile of the burn-in's h is M")
    draw_budget: float = Field(4.0, ge=1, description="budget: draws per accepted image, in expectation")
    fall_back: bool = Field(
        True,
        description="keep all where h fails its held-out checks, rather than spoil the images; the run says so",
    )
    filter_quantile: float | None = Field(None, gt=0, le=1, description="M2: rho; none: .9 classes, .7 scalar")
    filter: bool = Field(True, description="M2: drop what the teacher disagrees with most")
    filter_by: Literal["auto", "label", "all", "bin"] = Field(
        "auto",
        description="thresholds per class (Algorithm 1), one over all (Algorithm 2), or per label bin, which keeps "
        "the labels' frequencies; auto: label for classes, all for scalars",
    )
    filter_bins: int = Field(20, ge=2, description="bin: how many, evenly over the label range")
    replace: Literal["auto", "none", "hard", "soft"] = Field(
        "auto",
        description="M2: the label becomes the teacher's prediction (hard), or its probabilities (soft, classes); "
        "auto: none for classes, hard for scalars (final paper)",
    )
    labels: Literal["even", "distinct", "empirical"] = Field(
        "even", description="scalar: evenly spaced, or each distinct training label, or as frequent as in training"
    )
    even_labels: int = Field(500, ge=2, description="scalar: how many evenly spaced labels")
    calibration: int = Field(1000, ge=10, description="fakes that the filter's quantile is taken over, per class")
    burn_in: int = Field(500, ge=1, description="fakes that the first maximum ratio is taken over, per class")
    max_draws: int = Field(50, ge=1, description="generated per image kept, at most")
    batch_size: int = Field(500, ge=1)


class SearchSettings(Settings):
    """rho, M and the label law, chosen on the validation split (the grid of the paper's v1)."""

    enabled: bool = Field(False, description="otherwise the synthesis settings are used as they stand")
    quantiles: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    images: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="values of M; none: synthesis.images alone"
    )
    labels: tuple[Literal["even", "distinct", "empirical"], ...] = Field(
        (), description="scalar labels: label laws; none: synthesis.labels alone"
    )
    steps: int | None = Field(None, ge=1, description="of each trial student; none: student.transfer_steps")
    patience: int = Field(2, ge=1, description="values in a row that don't improve before a setting's search stops")


class RobustnessSettings(AttackSettings):
    """What is left of each row's score, and of the teacher's, where test images are changed to mislead it."""

    enabled: bool = False
    attacks: tuple[Literal["pgd", "autoattack"], ...] = Field(
        ("pgd",),
        min_length=1,
        description="pgd, both tasks; autoattack, four classes or more (pip install 'cgankd[robust]')",
    )
    images: int = Field(500, ge=1, description="test images that are attacked, the same for every network")


class MetricsSettings(Settings):
    """How the generator is judged (FID and its kin, copies of training images), and how robust each row is."""

    enabled: bool = True
    images: int = Field(2000, ge=50, description="fakes that are compared")
    features: tuple[Literal["teacher", "nokd"], ...] = Field(
        ("teacher", "nokd"), description="penultimate layers that the distances are taken in; a score names its own"
    )
    window: float = Field(0.05, gt=0, le=0.5, description="SFID: half-width of a label window, share of the range")
    windows: int = Field(20, ge=2, description="SFID: windows, evenly over the label range")
    robustness: RobustnessSettings = RobustnessSettings()


class CompareSettings(Settings):
    """The rows of the table."""

    methods: tuple[str, ...] = Field(
        ("nokd", "nokd_longer", "kd", "cgan", "cgan_kd"),
        description="nokd, nokd_longer (the control), augment, pseudo, any distillation method as kd or kd+pkt "
        "(cgankd methods lists them), cgan, and cgan+ before a method (cgan_kd is cgan+kd)",
    )
    ablation: bool = Field(False, description="also raw fakes, + subsampling, + filter, + replacement")

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods or len(set(methods)) != len(methods):
            raise ValueError("one method stands twice, or there is none; allowed: distinct methods, at least one")
        return methods


class RuntimeSettings(Settings):
    """Where and how it is computed; device, precision and threads are part of every result's key."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the processor has it")
    threads: int | None = Field(None, ge=1, description="CPU threads; none: all cores")
    checkpoint_seconds: float = Field(60.0, ge=0, description="a training loop saves where it stands this often")
