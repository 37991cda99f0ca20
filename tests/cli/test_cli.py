"""The small commands, and how every failure ends in one sentence and an exit code."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgankd import __version__
from cgankd.cli import main
from cgankd.cli.screen import console
from cgankd.config import recipe
from cgankd.config.settings import DataSettings
from cgankd.core import checkpoint
from cgankd.core.errors import TrainingError, UserError
from cgankd.data import public
from cgankd.data.apart import check_apart
from cgankd.experiments import trials

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """run("show", "digits") -> exit code, stdout, stderr; in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)

    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cgankd", *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as stop:
            main.main()
        found = capsys.readouterr()
        return int(stop.value.code or 0), found.out, found.err

    return typed


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["convert-weights", "--help"]])
def test_help_names_what_can_be_given(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert "Usage" in out or "usage" in out
    wanted = {"--help": "convert-weights", "run": "--out", "convert-weights": "--mean"}[words[0]]
    assert wanted in out


def test_recipes_are_listed_with_their_descriptions(run: Run) -> None:
    code, out, _ = run("recipes")
    assert code == 0
    for name, command in (("fashion", "run"), ("continual-fashion", "continual"), ("pydoc", "lm")):
        assert [name, command] in [line.split()[:2] for line in out.splitlines()]
        assert f"name: {name}" in run("show", name)[1]
    for name in recipe.ready():
        assert name in out
        assert recipe.load(name).description.split(";")[0][:30] in out


@pytest.mark.parametrize(("command", "name"), [("continual", "continual-fashion"), ("lm", "pydoc")])
def test_a_command_lists_its_own_recipes_and_says_whose_another_is(run: Run, command: str, name: str) -> None:
    code, out, _ = run(command)
    assert code == 0
    assert [name, command] in [line.split()[:2] for line in out.splitlines()]
    assert not [line for line in out.splitlines() if line.split()[:2] == ["fashion", "run"]]
    for typed in (["run", name], ["table", name], ["ablate", name], ["synthesize", name, "--export", "x"]):
        code, _, said = run(*typed)
        assert code == 2
        assert f"recipe '{name}' is for cgankd {command}, not for cgankd run; ready recipes: chairs, " in said
    code, _, said = run(command, "fashion")
    assert code == 2
    assert f"recipe 'fashion' is for cgankd run, not for cgankd {command}; ready recipes: " in said
    assert name in said


def test_report_takes_the_results_of_run_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"rows": [], "warnings": [], "teacher": {}}))  # as of lm
    code, _, said = run("report", str(tmp_path))
    assert code == 2
    assert "results.json lacks control: it is not of cgankd run" in said


def test_show_holds_settings_that_keys_of_older_results_lack(run: Run) -> None:
    code, out, _ = run("show", "rotated-fashion")
    assert code == 0
    assert "mode_seeking: 0.0" in out
    assert "adversarial: null" in out


@pytest.mark.parametrize("name", sorted(recipe.ready()))
def test_what_show_prints_reads_back_equal(run: Run, tmp_path: Path, name: str) -> None:
    code, out, err = run("show", name, "student.fit.steps=77", "seeds=[3,4]")
    assert (code, err) == (0, "")
    (tmp_path / "shown.yaml").write_text(out)
    expected = recipe.load(name, ["student.fit.steps=77", "seeds=[3,4]"])
    assert recipe.load("shown.yaml") == expected
    assert expected.student.fit.steps == 77


def test_networks_are_listed_with_their_sizes(run: Run) -> None:
    code, out, _ = run("networks")
    assert code == 0
    # resnet20's published 278,324 with 10 classes in place of 100: 90 * (64 weights + 1 bias) less
    assert ["resnet20", f"{278_324 - 90 * 65:,}"] in [line.split() for line in out.splitlines()]
    assert "cgankd[timm]" in out


def wide_images(folder: Path) -> None:
    """40 images in two class folders, 24 wide and 16 high."""
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 24), dtype=np.uint8)).save(path)


def test_a_run_among_class_folders_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder would be read as a class, so the run could not be continued, and no other could be made."""
    wide_images(tmp_path / "wide")
    (tmp_path / "mine.yaml").write_text("name: mine\ndata: {source: wide}\n")
    before = sorted(tmp_path.rglob("*"))
    for name, out in (("wide", "wide"), ("mine.yaml", "wide/runs/mine")):
        code, _, err = run("run", name, "--out", out)
        assert code == 2
        assert f"--out {out} lies in data.source wide, where every folder is a class or a split; needed: a" in err
    monkeypatch.chdir(tmp_path / "wide")
    code, _, err = run("run", ".")
    assert code == 2
    assert "--out runs/wide lies in data.source ., where every folder is a class" in err
    assert sorted(tmp_path.rglob("*")) == before
    names = "".join(f"{path.relative_to(tmp_path / 'wide')},1\n" for path in before if path.suffix == ".png")
    (tmp_path / "wide" / "metadata.csv").write_text(f"file_name,label\n{names}")
    check_apart(tmp_path / "wide" / "runs", DataSettings(source=str(tmp_path / "wide")))  # a table names the images


def test_a_run_in_the_folder_of_unlabelled_images_is_refused(run: Run, tmp_path: Path) -> None:
    wide_images(tmp_path / "wide")
    (tmp_path / "more").mkdir()
    code, _, err = run("run", "wide", "unlabelled=more", "--out", "more/run")
    assert code == 2
    assert "--out more/run lies in data.unlabelled more; needed: a folder elsewhere" in err
    assert not list((tmp_path / "more").iterdir())


def test_sizes_are_width_by_height(run: Run, tmp_path: Path) -> None:
    wide_images(tmp_path / "wide")
    code, out, _ = run("data", "wide")
    assert code == 0
    assert "wide: classification, 24x16 pixels, 1 channel(s)" in out


def test_data_says_which_classes_are_not_measured(run: Run, tmp_path: Path) -> None:
    for number in range(40):  # ten images of one track are of b: they are all in one split
        folder = tmp_path / "tracks" / ("b" if number < 10 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), number).save(folder / f"{number // 10}_{number:02}.png")
    code, out, _ = run("data", "tracks", r"data.group_pattern=(\d)_\d+\.png$")
    assert code == 0
    assert out.count("image is of b, so nothing is measured there") >= 1


def test_data_lists_the_builtin_sets(run: Run) -> None:
    code, out, _ = run("data")
    assert code == 0
    for name in ("digits", "fashion", "rotated-fashion"):
        assert name in out


def test_data_counts_and_draws_samples(run: Run, tmp_path: Path) -> None:
    code, out, err = run("data", "digits", "train_size=100", "data.val_size=50")
    assert (code, err) == (0, "")
    assert "classification, 16x16 pixels, 1 channel(s)" in out
    # 1,797 digits: 449 test, 50 validation, 100 labelled out of a pool of 1,298
    last = next(line.split() for line in out.splitlines() if line.startswith("all"))
    assert last == ["all", "100", "1298", "50", "449"]
    with Image.open(tmp_path / "digits.png") as sheet:
        assert sheet.width > 16 * 10
    assert run("data", "digits", "--out", "grid.png")[0] == 0
    assert (tmp_path / "grid.png").is_file()


def test_a_word_that_is_no_data_command_is_a_source(run: Run, tmp_path: Path) -> None:
    assert run("data", "--out", "first.png", "digits", "val_size=50")[0] == 0
    assert (tmp_path / "first.png").is_file()


def test_data_reads_a_recipe_as_it_reads_a_source(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {source: digits, train_size: 100, val_size: 50}\nseeds: [0]\n")
    code, of_recipe, err = run("data", "mine.yaml")
    assert (code, err) == (0, "")
    of_source = run("data", "digits", "train_size=100", "val_size=50")[1]
    assert of_recipe.splitlines()[1:] == of_source.splitlines()[1:]  # the first line is the bar
    changed = run("data", "mine.yaml", "train_size=60", "--out", "other.png")[1]
    assert next(line.split() for line in changed.splitlines() if line.startswith("all"))[1] == "60"
    assert (tmp_path / "other.png").is_file()
    code, ready, _ = run("data", "fashion-equal", "--out", "ready.png")  # the name of a ready recipe
    assert code == 0
    assert "fashion: classification, 32x32 pixels" in ready


def test_data_names_what_is_wrong_in_a_recipe(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {sauce: digits}\n")
    code, _, err = run("data", "mine.yaml")
    assert code == 2
    assert "'data.sauce' is not known (did you mean 'source'?)" in err
    assert "missing.yaml" in run("data", "missing.yaml")[2]


def test_data_help_names_its_commands(run: Run) -> None:
    code, out, _ = run("data", "--help")
    assert code == 0
    for word in ("SOURCE", "get", "render"):
        assert word in out


def test_data_get_fetches_what_has_an_address(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(1000)
    (tmp_path / "from" / "set.tar.gz").parent.mkdir()
    (tmp_path / "from" / "set.tar.gz").write_bytes(content)
    made = public.Archive(
        (tmp_path / "from" / "set.tar.gz").as_uri(),
        len(content),
        hashlib.md5(content).hexdigest(),
        hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setitem(public.PUBLIC, "cifar10", public.Public("set.tar.gz", "a page", made))
    monkeypatch.setenv(public.VARIABLE, str(tmp_path / "home"))
    code, out, err = run("data", "get", "cifar10")
    assert (code, err) == (0, "")
    assert (tmp_path / "home" / "cifar10" / "set.tar.gz").read_bytes() == content
    code, out, _ = run("data", "get", "cifar10", "--to", "other")
    assert code == 0
    assert (tmp_path / "other" / "cifar10" / "set.tar.gz").is_file()
    assert f"set {public.VARIABLE}=other" in out


def test_data_get_says_where_the_others_are_to_be_had(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(public.VARIABLE, str(tmp_path))
    code, _, err = run("data", "get", "rc49")
    assert code == 2
    assert "fetch RC-49_64x64.h5 from the links of https://github.com/UBCDingXin/improved_CcGAN" in err
    (tmp_path / "rc49").mkdir()
    (tmp_path / "rc49" / "RC-49_64x64.h5").touch()
    assert run("data", "get", "rc49")[0] == 0
    code, _, err = run("data", "get", "digits")
    assert code == 2
    assert "'digits' is not fetched (it comes with the package" in err
    code, _, err = run("data", "get", "imagenette")
    assert code == 2
    assert "'imagenette' is not known; allowed: fashion-mnist, cifar10" in err


def test_data_get_knows_where_a_debian_package_puts_a_set(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(public.VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(public, "SYSTEM", tmp_path / "system")
    code, _, err = run("data", "get", "fashion-mnist")
    assert code == 2
    assert "from https://github.com/zalandoresearch/fashion-mnist and put it into" in err
    assert err.rstrip().endswith("or install Debian's package dataset-fashion-mnist")
    (tmp_path / "system" / "fashion-mnist").mkdir(parents=True)
    (tmp_path / "system" / "fashion-mnist" / "train-images-idx3-ubyte.gz").touch()
    code, out, _ = run("data", "get", "fashion-mnist")
    assert code == 0
    assert f"{tmp_path / 'system' / 'fashion-mnist'} already exists; cgankd data fashion-mnist reads it" in out


def test_data_render_writes_where_chairs_are_looked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(public.VARIABLE, str(tmp_path / "home"))
    for name in ("a", "b"):
        (tmp_path / f"{name}.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    code, out, err = run("data", "render", ".", "--angles", "20", "--size", "16")
    assert (code, err) == (0, "")
    assert "40 images" in out
    code, out, _ = run("data", "chairs", "val_size=4")
    assert code == 0
    assert "regression, 16x16 pixels, 3 channel(s)" in out


def test_commands_that_train_nothing_do_not_wait_for_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from cgankd.cli import main as cli\n"
        "for words in ['--help'], ['recipes'], ['show', 'digits'], ['run', 'nope']:\n"
        "    sys.argv = ['cgankd', *words]\n"
        "    try: cli.main()\n"
        "    except SystemExit: print(*words, sorted({'torch', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    seen = [line for line in done.stderr.splitlines() if not line.startswith("cgankd: ")]
    assert seen == ["--help []", "recipes ['pydantic']", "show digits ['pydantic']", "run nope ['pydantic']"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("data.source is 3; allowed: a folder"), 2, "data.source is 3; allowed: a folder"),
        (UserError("a [bold]name[/bold] as it is"), 2, "a [bold]name[/bold] as it is"),
        (UserError("x" * 500), 2, "x" * 500),
        (TrainingError("the loss is nan"), 1, "the loss is nan"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; the same command goes on: cgankd show digits"),
        (OSError(errno.ENOSPC, "", "weights"), 2, "No space left on device while writing weights; free space"),
        (OSError(errno.ENOSPC, ""), 2, "No space left on device; free space"),
        (OSError(errno.EDQUOT, ""), 2, "allow writing there; the same command goes on: cgankd show digits"),
        (OSError(errno.EFBIG, ""), 2, "File too large; free space"),
        (PermissionError(errno.EACCES, "", "out"), 2, "Permission denied while writing out"),
    ],
)
def test_every_failure_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(recipe, "load", fail)
    found, out, err = run("show", "digits")
    assert (found, out) == (code, "")
    assert err.startswith("cgankd: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("error", [RuntimeError("ours"), OSError(errno.EIO, "broken"), ZeroDivisionError()])
def test_our_own_mistakes_are_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(recipe, "load", fail)
    monkeypatch.setattr(sys, "argv", ["cgankd", "show", "digits"])
    with pytest.raises(type(error)):
        main.main()


def test_report_needs_results(run: Run, tmp_path: Path) -> None:
    assert run("report", str(tmp_path))[0] == 2
    (tmp_path / "results.json").write_text(json.dumps({"half": 1}))
    code, _, err = run("report", str(tmp_path))
    assert code == 2
    assert "results.json" in err


def test_the_default_folder_of_a_run_has_a_name_that_every_system_allows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cgankd.pipeline import run as pipeline

    folders: list[Path] = []

    def go(settings: object, folder: Path, *_: object, **__: object) -> None:
        folders.append(folder)
        raise UserError("far enough")

    monkeypatch.setattr(pipeline, "run", go)
    for name in ("C:\\x", "../up", "con"):
        run("run", "digits", f"name={name}")
    assert folders == [Path("runs", "C--x"), Path("runs", "..-up"), Path("runs", "_con")]


def test_looking_at_images_takes_its_part_of_max_minutes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> tuple[str, list[str]]:
        now = time.monotonic()
        monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now + 90.0)  # it took so many seconds
        return "digits", []

    def stop(*_: object, deadline: float) -> None:
        raise UserError(f"{deadline - time.monotonic():.0f} seconds are left")

    monkeypatch.setattr(main.init, "is_source", lambda _: True)
    monkeypatch.setattr(main.init, "check_exists", lambda _: None)
    monkeypatch.setattr(main.init, "recipe_for", look)
    monkeypatch.setattr(trials, "run_with", stop)
    assert "30 seconds are left" in run("run", "images", "--max-minutes", "2")[2]
