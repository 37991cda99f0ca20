"""From a folder to a recipe that runs, as a new user types it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import Said, write_bars

from cgankd.cli import main
from cgankd.cli.init import _seconds
from cgankd.config import recipe
from cgankd.core import status_file
from cgankd.data import sources
from cgankd.planning import look as looking
from cgankd.planning import plan as planning
from cgankd.planning.origin import origin_of
from cgankd.planning.timing import Seconds

Typed = Callable[..., Said]


def test_a_folder_becomes_a_recipe(tmp_path: Path, typed: Typed) -> None:
    write_bars(tmp_path / "bars")
    said = typed("init", "bars", "unit=degrees", "--budget", "2h")
    assert said.code == 0, said.err
    assert "task: regression, labels " in said.out
    assert "data.unit=degrees: as you said" in said.out
    assert "bars.yaml written. cgankd run bars.yaml takes about " in said.out
    made = recipe.load("bars.yaml")
    assert (made.data.source, made.data.unit, made.seeds) == ("bars", "degrees", (0,))
    assert made.compare.methods == "auto"
    assert "# unit" not in Path("bars.yaml").read_text()
    again = typed("init", "bars")
    assert "bars.yaml exists; give --out another name" in again.sentence()


def test_a_recipe_has_a_line_for_a_unit_that_is_not_known(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: [seconds(None)])
    said = typed("init", "bars")
    assert said.code == 0, said.err
    assert "unit of the label: not known; data.unit=NAME shows one in tables and reports" in said.out
    text = Path("bars.yaml").read_text()
    assert "\n  # unit: years  # the label's unit, for tables; not known here\n" in text
    Path("bars.yaml").write_text(text.replace("# unit:", "unit:"))
    assert recipe.load("bars.yaml").data.unit == "years"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "data.source 'nowhere' does not exist"),
        (["bars", "--budget", "soon"], "--budget 'soon' is no time; allowed: a number with s, m or h"),
        (["bars", "--out", "mine"], "--out mine is no name of a recipe; needed: one that ends in .yaml"),
        (["bars", "compare.methods=[kd,foo]"], "compare.methods holds 'foo', which is not known"),
        (["bars", "sise=32"], "key 'data.sise' is not known (did you mean 'size'?)"),
    ],
)
def test_what_is_not_allowed_is_answered_in_a_sentence(
    words: list[str], sentence: str, tmp_path: Path, typed: Typed
) -> None:
    write_bars(tmp_path / "bars", 20)
    assert sentence in typed("init", *words).sentence()
    assert not list(tmp_path.glob("*.yaml"))


def seconds(images: object, side: int = 16) -> Seconds:
    """Of a slow machine, where steps on images of 32 pixels take 20 times as long as on those of 16."""
    slow = 1.0 if side > 16 else 0.05
    return Seconds(slow, slow, slow, slow, 0.0001, 0.0001, 0.0001, 0.0001)


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "measure", lambda recipe, splits, *_: [seconds(splits, min(splits.train.size))])


def test_run_takes_the_settings_of_init_and_refuses_before_it_looks(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: pytest.fail("nothing is measured"))
    assert "key 'sise' is not known" in typed("run", "bars", "sise=32").sentence()
    assert "--budget 'soon' is no time" in typed("run", "bars", "--budget", "soon").sentence()
    assert "--budget is for images, but digits is a recipe" in typed("run", "digits", "--budget", "5m").sentence()
    assert "'nowhere/' is neither images (a folder, a .csv" in typed("run", "nowhere/").sentence()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars"]


def test_run_refuses_a_folder_that_it_cannot_use_before_it_looks(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(looking, "look", lambda *_: pytest.fail("the images are not looked at"))
    (tmp_path / "file").touch()
    assert "--out file is a file; a folder is needed" in typed("run", "bars", "--out", "file").sentence()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text('{"recipe": "fashion"}')
    sentence = typed("run", "bars", "--out", "other").sentence()
    assert "--out other holds the results of recipe 'fashion', which a run of 'bars' would overwrite" in sentence
    (tmp_path / "continual").mkdir()
    (tmp_path / "continual" / ".lock").write_text("continual")
    assert "is a folder of cgankd continual" in typed("run", "bars", "--out", "continual").sentence()
    assert not list(tmp_path.glob("*.yaml"))


def test_a_recipe_with_a_folder_that_it_cannot_use_is_refused_before_its_images_are_read(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "load", lambda *_: pytest.fail("the images are not read"))
    (tmp_path / "file").touch()
    assert "--out file is a file; a folder is needed" in typed("run", "digits", "--out", "file").sentence()


def test_status_tells_of_the_look(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bars(tmp_path / "bars")
    lines = []

    def measured(*_: object) -> list[Seconds]:
        folder = tmp_path / "runs" / "bars"
        lines.extend(status_file.as_lines(folder, status_file.read_status(folder)))
        return [Seconds(9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0)]

    monkeypatch.setattr(planning, "measure", measured)
    assert "is too short" in typed("run", "bars", "--budget", "1m").sentence()
    assert lines[0].endswith("last news 0 s ago")
    assert lines[1] == "before the run: measuring a few steps of each network at 16 pixels"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars"]


@pytest.mark.parametrize("command", ["run", "init"])
def test_a_recipe_that_would_break_its_budget_is_not_written(
    command: str, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    slow(monkeypatch)
    sentence = typed(command, "bars", "size=32", "--budget", "2m").sentence()
    assert "--budget 2m is too short, because " in sentence
    assert sentence.rstrip(".").endswith("m"), "32 pixels are the fewest, so no smaller images are proposed"
    assert ", or smaller images with data.size=32" in typed(command, "bars", "size=64", "--budget", "2m").sentence()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars"]


def test_the_look_stops_at_its_time_limit(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: pytest.fail("nothing is measured"))
    said = typed("run", "bars", "--max-minutes", "0")
    assert said.code == 75
    assert "the time limit is reached" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bars"]


def test_images_are_made_smaller_to_keep_to_the_budget(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars", size=64)
    monkeypatch.setattr(
        planning, "measure", lambda recipe, splits, *_: [seconds(splits, 16 if min(splits.train.size) == 32 else 64)]
    )
    said = typed("init", "bars", "--budget", "4m")
    assert said.code == 0, said.err
    assert "with 64 pixels, so 32 pixels are tried" in said.out  # 48 can't be ten times as fast
    assert "data.size=32: smaller images, to keep to the budget" in said.out
    assert recipe.load("bars.yaml").data.size == 32


def test_the_budget_of_a_recipe_is_kept_or_changed_while_nothing_was_trained(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: [Seconds(*[0.005] * 4, *[0.0001] * 4)])
    monkeypatch.setattr(main, "load", lambda *_: sys.exit(0))  # nothing is trained
    assert typed("init", "bars", "unit=degrees", "runtime.threads=1", "--budget", "10m").code == 0
    file, first = tmp_path / "bars.yaml", (tmp_path / "bars.yaml").read_text()
    assert recipe.load("bars.yaml").runtime.threads == 1
    assert "bars.yaml is used as it is; it was made for --budget 10m\n" in typed("run", "bars", "--budget", "600s").out
    assert file.read_text() == first

    said = typed("run", "bars", "--budget", "1m")
    assert "was made for --budget 10m, and runs/bars holds nothing that was trained yet, so it is written" in said.out
    made = origin_of(file)
    assert made is not None
    assert (made.budget, made.settings, made.edited) == ("1m", ("data.unit=degrees", "runtime.threads=1"), False)
    assert sum(made.parts.values()) <= 66
    assert recipe.load("bars.yaml").student.transfer_steps < 2000  # of 8,000 in ten minutes

    (tmp_path / "runs" / "bars" / "work" / "train_network-0").mkdir(parents=True)
    wanted = "delete bars.yaml to have it made for --budget 5m, or leave --budget out to use it as it is"
    trained = typed("run", "bars", "--budget", "5m").sentence()
    assert trained.endswith(  # of another --out folder bars.yaml may not be the recipe
        "bars.yaml was made for --budget 1m, and runs/bars holds what was trained with runs/bars/recipe.yaml; "
        f"{wanted}; cgankd run runs/bars/recipe.yaml --out runs/bars goes on there"
    )
    file.write_text(file.read_text() + "seeds: [1]\n")
    assert (
        f"was made for --budget 1m and was edited since; {wanted}" in typed("run", "bars", "--budget", "5m").sentence()
    )
    file.write_text("data: {source: bars}\n")
    sentence = typed("run", "bars", "--budget", "5m").sentence()
    assert f"bars.yaml does not say for which --budget it was made; {wanted}" in sentence


def test_the_last_value_of_a_setting_is_used_for_another_budget(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: [Seconds(*[0.005] * 4, *[0.0001] * 4)])
    monkeypatch.setattr(main, "load", lambda *_: sys.exit(0))  # nothing is trained
    for size, budget in ((16, "10m"), (32, "8m"), (16, "6m")):
        typed("run", "bars", "unit=degrees", f"size={size}", "--budget", budget)
        assert recipe.load("bars.yaml").data.size == size
    made = origin_of(tmp_path / "bars.yaml")
    assert made is not None
    assert made.settings == ("data.unit=degrees", "data.size=16")


def test_a_recipe_of_another_folder_of_the_same_name_is_not_used(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "bars")
    monkeypatch.setattr(planning, "measure", lambda *_: [seconds(None)])
    assert typed("init", "bars", "--out", "other.yaml").code == 0
    (tmp_path / "other").mkdir()
    assert "other.yaml was made for bars, not for other; rename or delete" in typed("run", "other").sentence()


def test_details_are_not_given_up_where_that_saves_no_time(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller images seem slower here, because another program works while they are measured."""
    write_bars(tmp_path / "bars", size=64)
    busy = iter([0.05, 0.1, 0.15])
    monkeypatch.setattr(planning, "measure", lambda *_: [Seconds(*[next(busy)] * 4, 0.0001, 0.0001, 0.0001, 0.0001)])
    said = typed("init", "bars", "--budget", "1m")
    assert said.code == 2
    times = re.findall(r"about (.+) with", said.out)
    assert len(set(times)) == 1  # as of 64 pixels
    assert "data.size" not in said.out


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("1h30m", 5400), ("2 h", 7200), ("1.5min", 90)])
def test_a_time_may_have_parts(text: str, expected: float) -> None:
    assert _seconds(text) == expected


def test_data_reads_what_init_would_choose(tmp_path: Path, typed: Typed) -> None:
    write_bars(tmp_path / "bars", 60)
    rows = [f"{n:03}.png,{min(n % 30, 24)},me" for n in range(60)]
    (tmp_path / "bars" / "metadata.csv").write_text("\n".join(["file_name,count,photographer", *rows]))
    said = typed("data", "bars")
    assert said.code == 0, said.err
    assert "data.label_column=count: its name says so; other columns: photographer\n" in said.out
    assert "data.task=regression: 25 different whole numbers with 2.4 images each seem to be amounts" in said.out
    assert "bars: regression, 16x16 pixels" in said.out
    assert "pool" not in said.out  # it equals train
    assert "25 classes" in typed("data", "bars", "task=classification").out


def test_a_name_that_is_not_there_is_answered_with_a_similar_one(tmp_path: Path, typed: Typed) -> None:
    write_bars(tmp_path / "my_images", 5)
    sentence = typed("run", "my_imgs", "--budget", "5m").sentence()
    assert sentence == (
        "cgankd: 'my_imgs' is neither images (a folder, a .csv, .npz, .h5, .parquet or .tar file, or the address of "
        "one), nor a YAML file, nor a ready recipe (did you mean 'my_images'?); cgankd recipes lists the ready ones"
    )


def test_a_file_of_images_in_a_folder_without_classes_is_named(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "images.h5").touch()
    (tmp_path / "exported" / "README.md").touch()
    assert (
        typed("data", "exported")
        .sentence()
        .endswith("; images.h5 in this folder may hold images: give exported/images.h5")
    )


def test_alone_it_shows_its_help(typed: Typed) -> None:
    said = typed()
    assert said.code == 0
    assert "Commands:" in said.out


def test_images_at_an_address_get_a_recipe_that_keeps_the_address(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(planning, "measure", lambda *_: [seconds(None)])
    (tmp_path / "far").mkdir()
    write_bars(tmp_path / "far" / "bars", 60)
    address = (tmp_path / "far" / "bars").as_uri()
    said = typed("init", address)
    assert said.code == 0, said.err
    assert "bars.yaml written. cgankd run bars.yaml" in said.out
    text = (tmp_path / "bars.yaml").read_text()
    assert yaml.safe_load(text)["data"]["source"] == address
    assert str(tmp_path / "home") not in text
    said = typed("data", "bars.yaml")
    assert said.code == 0, said.err
    assert "bars: regression, 16x16 pixels" in said.out
    shutil.rmtree(tmp_path / "far")
    said = typed("data", address)
    assert said.code == 2
    assert f"{address} can't be read: there is no such file or folder; an earlier copy is {tmp_path}" in said.err


def test_a_password_in_an_address_is_refused_and_printed_nowhere(tmp_path: Path, typed: Typed) -> None:
    for command in ("init", "run", "data"):
        said = typed(command, "ftp://me:secret@host/set", *["--json"] * (command == "run"))
        assert said.code == 2
        assert "data.source = 'ftp://...@host/set' is not allowed: it holds a password" in said.err
        assert "secret" not in said.out + said.err
    assert list(tmp_path.iterdir()) == []
