"""Names of files and folders that Windows allows too; its own rules are those of PureWindowsPath."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest

from cgankd.core import files
from cgankd.core.paths import portable


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fashion", "fashion"),
        ("my run, 2 of 3", "my run, 2 of 3"),
        ("猫 42.5°", "猫 42.5°"),
        ("C:\\runs\\mine", "C--runs-mine"),
        ("a/b", "a-b"),
        ("../up", "..-up"),
        ("..", "_"),
        ("", "_"),
        ("con", "_con"),
        ("Aux.png", "_Aux.png"),
        ("lpt1", "_lpt1"),
        ("console", "console"),
        ("ends with a dot. ", "ends with a dot"),
        ('<>:"|?*', "-------"),
        ("tab\there", "tab-here"),
    ],
)
def test_a_text_becomes_one_name_that_every_system_allows(text: str, name: str) -> None:
    assert portable(text) == name
    path = PureWindowsPath("runs") / name
    assert (path.parts, path.drive) == (("runs", name), "")


def test_a_long_name_is_cut() -> None:
    assert portable("x" * 300) == "x" * 100


def test_a_file_with_the_longest_name_that_a_disk_allows_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    files.write_text(path, "text")
    assert path.read_text() == "text"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_on_windows_folders_are_not_synced_and_files_are_opened_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[Path, int]] = []
    real = files.os.open

    def spy(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append((Path(path), flags))
        return real(path, flags, mode)

    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files.os, "open", spy)
    files.sync(tmp_path)
    assert opened == []
    (tmp_path / "a").write_text("text")
    files.sync(tmp_path / "a")
    assert opened[-1] == (tmp_path / "a", files.os.O_RDWR)
