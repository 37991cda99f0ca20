"""``cgankd data``: read a data set as a run reads it, fetch a public data set, or render one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from cgankd.cli.init import is_source
from cgankd.cli.recipes import SKIP_BAD, SkipBad
from cgankd.cli.screen import console
from cgankd.cli.watch import one_loop
from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.core.paths import REJECTED
from cgankd.core.terminal import on_one_line

if TYPE_CHECKING:
    from cgankd.config.settings import DataSettings

FEW = 20  # names in one sentence


class _SourceOrCommand(TyperGroup):
    """``cgankd data fashion`` and ``cgankd data get cifar10``: a word that is not a command is a data set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in {"--help", "--version"}):
            args = ["source", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_SourceOrCommand, rich_markup_mode=None, subcommand_metavar="[SOURCE [KEY=VALUE]... | COMMAND]")


@app.command()
def source(
    source: Annotated[
        str | None,
        typer.Argument(
            help="a data set's name, a folder, .csv, .npz, .h5, .parquet or .tar, the address of one, "
            "hf://owner/name, or a recipe"
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="data settings as key=value, such as label_column=steering")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="file of the sample grid; default NAME.png")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Read a data set as a run reads it. Prints counts and writes a PNG of samples; without a name, lists names.

    Of a recipe, its data section is read.

    The word "source" can be omitted.
    """
    from cgankd.config import recipe
    from cgankd.data import sources
    from cgankd.data.remote import at_hand

    if source is None:
        table = Table("data set", "what it is", box=None, pad_edge=False)
        for name, description in sources.builtin_names().items():
            table.add_row(name, description)
        console.print(table)
        return
    changes = [override if override.startswith("data.") else f"data.{override}" for override in overrides or []]
    changes += [SKIP_BAD] * skip_bad
    names_recipe = source in recipe.ready() and source not in sources.builtin_names()
    if names_recipe or Path(source).suffix.lower() in {".yaml", ".yml"}:
        settings = recipe.load(source, changes).data
    else:
        settings = recipe.from_tree({"data": {"source": source}}, changes, where=f"data {source}").data
    with one_loop() as progress, at_hand(settings.source, progress):
        progress.rest()
        if is_source(source):
            settings = _as_init_chooses(settings)
        _show_data(settings, out)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="a data set's name (cgankd data lists them)")],
    to: Annotated[Path | None, typer.Option("--to", help="the folder of all sets; default $CGANKD_DATA")] = None,
) -> None:
    """Fetch a public data set. If it can't be fetched, say where to find it; exit code 2 while it is missing."""
    from cgankd.data import download, public

    data_set = public.PUBLIC.get(name)
    if data_set is None:
        from cgankd.data.sources import builtin_names

        own = "is not fetched (it comes with the package, or `cgankd data render` makes it)"
        why = own if name in builtin_names() else "is not known"
        raise UserError(f"data set {name!r} {why}; allowed: {', '.join(public.PUBLIC)}")
    home = public.home() if to is None else to
    if data_set.archive is None:
        for folder in public.folders(name, home):
            if folder.is_dir() and any(folder.iterdir()):
                console.print(f"{folder} already exists; cgankd data {name} reads it", soft_wrap=True)
                return
        raise UserError(public.how_to_get(name, home))
    archive = data_set.archive
    with one_loop() as progress, progress.bar(f"{archive.name} (MB)", round(archive.size / 1e6)) as bar:
        path = download.download(archive, home / name, lambda done, size: bar.to(done / 1e6))
    console.print(f"{path} is ready", soft_wrap=True)
    if home != public.home():
        console.print(f"set {public.VARIABLE}={home} so that runs find it", soft_wrap=True)


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="a folder with .obj or .glb files")],
    out: Annotated[
        Path | None, typer.Option("--out", help="the .npz file; default: the file that data.source=chairs reads")
    ] = None,
    angles: Annotated[int, typer.Option("--angles", help="angles per mesh, evenly over 0 to 90 degrees")] = 300,
    size: Annotated[int, typer.Option("--size", help="side of the images in pixels")] = 64,
    match: Annotated[str, typer.Option("--match", help="only meshes with names such as '*chair*'")] = "*",
) -> None:
    """Render a regression data set from meshes. Like RC-49: each mesh at many yaw angles, on white."""
    from cgankd.data import chairs

    path = chairs.default_path() if out is None else out
    with one_loop() as progress, progress.bar("render", 1) as bar:
        images, unreadable = chairs.render_folder(
            folder, path, angles, size, match, lambda done, total: bar.to(done / total)
        )
    for sentence in unreadable:
        console.print(f"- left out: {on_one_line(sentence)}")
    console.print(f"wrote {path}: {images:,} images", soft_wrap=True)


def _as_init_chooses(settings: DataSettings) -> DataSettings:
    """The settings with what ``cgankd init`` adds to them: columns, the task and so on, which are printed."""
    from cgankd.planning.look import as_chosen

    fixed = settings.model_dump(exclude_unset=True, exclude={"source"}, mode="json")
    settings, reasons = as_chosen(settings.source, fixed)
    for name, reason in reasons.items():
        console.print(on_one_line(f"data.{name}={getattr(settings, name)}: {reason}"), soft_wrap=True)
    return settings


def _show_data(settings: DataSettings, out: Path | None) -> None:
    from cgankd.data import preview, rejected, sources
    from cgankd.planning.look import not_measured
    from cgankd.report.sheet import sheet

    with one_loop() as progress, progress.bar("reading images", 1) as bar:
        splits = sources.load(settings, lambda done, total: bar.to(done / total), progress)
    summary = preview.describe(splits)
    console.print(
        f"{on_one_line(splits.name)}: {splits.task.name}, {summary['size'][1]}x{summary['size'][0]} pixels, "
        f"{summary['channels']} channel(s)"
    )
    path = out or Path(f"{Path(splits.name).stem}.png")
    numbered = sheet(preview.examples(splits.train, splits.task), summary["bins"], path)
    console.print(_counts(summary, numbers=bool(numbered)))
    if len(splits.pool) > len(splits.train):
        console.print("- pool: all training images of the owner; train: those of them whose labels are used")
    for note in (*splits.notes, *not_measured(splits)):
        console.print(f"- {on_one_line(note.removesuffix(rejected.WHERE))}")  # the file is beside the picture
    if numbered:
        legend = _with_numbers(summary["bins"], numbered)
        console.print(f"- no installed font can show every name, so the picture has numbers: {legend}")
    console.print(f"wrote {path}", soft_wrap=True)
    if splits.rejected:
        rejected.write_rejected(splits.rejected, path.parent)
        console.print(
            f"wrote {path.with_name(REJECTED)}: {counted(len(splits.rejected), 'image', 'images')}", soft_wrap=True
        )


def _counts(summary: dict[str, Any], numbers: bool) -> Table:
    """The number of images per label and split. numbers: with a column of label numbers in front."""
    same = summary["histogram"]["pool"] == summary["histogram"]["train"]
    parts = ("train", "val", "test") if same else ("train", "pool", "val", "test")
    table = Table(*["number"] * numbers, box=None, pad_edge=False)
    table.add_column("label", overflow="fold")
    for part in parts:
        table.add_column(part)
    for number, label in enumerate(summary["bins"]):
        counts = (str(summary["histogram"][part][number]) for part in parts)
        table.add_row(*[str(number)] * numbers, on_one_line(label), *counts)
    table.add_row(*[""] * numbers, "all", *(str(summary["counts"][part]) for part in parts), style="bold")
    return table


def _with_numbers(names: Sequence[str], numbers: Sequence[int]) -> str:
    """``3 = cat, 5 = dog``; at most the first ``FEW``."""
    legend = ", ".join(f"{number} = {on_one_line(names[number])}" for number in numbers[:FEW])
    return legend if len(numbers) <= FEW else f"{legend}, and {len(numbers) - FEW} more, as in the table"
