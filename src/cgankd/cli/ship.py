"""The commands after a run: ``export``, ``export-images``, ``predict``, ``bench`` and ``generate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cgankd.cli.screen import console
from cgankd.cli.watch import Quiet, one_loop
from cgankd.core import run_text
from cgankd.core.errors import UserError
from cgankd.core.numbers import counted
from cgankd.core.paths import portable
from cgankd.core.terminal import on_one_line

Run = Annotated[Path, typer.Argument(metavar="DIR", help="the --out folder of a finished run")]
Row = Annotated[str | None, typer.Option("--row", help="a row of the table; default the student that ships")]
Seed = Annotated[int | None, typer.Option("--seed", help="one of the run's seeds; default the best on validation")]


def export(
    folder: Run,
    row: Row = None,
    seed: Seed = None,
    to: Annotated[str, typer.Option("--to", help="onnx, torch-export or safetensors")] = "onnx",
    floats: Annotated[
        bool, typer.Option("--float", help="the file takes floats in [0, 1]; without it bytes, 0 to 255")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="also a file with 8-bit weights, and its score")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="the file; default DIR/student.onnx, for another row student-ROW.onnx")
    ] = None,
) -> None:
    """Write a student to a file that needs no cgankd, and check on the test images that it gives the same."""
    from cgankd.shipping.export import export as write

    exported = write(folder, row=row, seed=seed, to=to, kind="float32" if floats else "uint8", int8=int8, out=out)
    show_export(exported)


def show_page(path: Path) -> None:
    """Where the report is."""
    console.print(f"{path}  (open it in a browser)", soft_wrap=True)


def show_export(exported: Any) -> None:
    """What was written, and how it was checked."""
    facts = exported.facts

    def scored(value: float) -> str:
        return f"{run_text.metric_name(facts['metric'])} {run_text.rounded(value)} {facts['unit']}".rstrip()

    weights = ", best weights on validation" if facts.get("weights") == "best" else ""
    scores = {split: scored(facts[split]) for split in ("validation", "test") if split in facts}
    trained = f", trained {'again on all' if 'labelled' in facts else 'on'} {facts['trained_on']}"
    console.print(
        f"{exported.path}: row {facts['row']}, seed {facts['seed']}, {facts['network']}{weights}{trained}; "
        f"{', '.join(f'{split} {score}' for split, score in scores.items())}",
        soft_wrap=True,
    )
    if exported.note:
        console.print(on_one_line(exported.note), soft_wrap=True)
    if exported.difference is not None:
        own = "" if exported.score is None else f"; its own test {scored(exported.score)}"
        which = "labelled images of the run" if exported.score is None else "test images"
        console.print(
            f"checked on {exported.compared:,} {which}: it gives what the student gives, within "
            f"{exported.difference:.0e}{own}",
            soft_wrap=True,
        )
    if exported.int8 is not None:
        change = exported.int8.score - exported.score
        console.print(
            f"{exported.int8.path}: {scored(exported.int8.score)} ({change:+.3g} against float32)", soft_wrap=True
        )


def export_images(
    folder: Run,
    out: Annotated[str, typer.Option("--out", help="a new folder for the images, or an address: s3://bucket/folder")],
    to: Annotated[str, typer.Option("--to", help="imagefolder, parquet, webdataset or hdf5")] = "imagefolder",
    row: Annotated[
        str | None, typer.Option("--row", help="a row with generated images; default cgan, else the first")
    ] = None,
) -> None:
    """Write the generated images of a run as a data set with a data card. It can be a data.source again."""
    from cgankd.shipping.images import export_images as write

    with one_loop() as progress:
        written = write(folder, out, to=to, row=row, progress=progress)
    console.print(
        f"{out}: {counted(written.images, 'generated image', 'generated images')} of row {written.row}, and README.md",
        soft_wrap=True,
    )
    if written.note:
        console.print(f"! near copies were not counted: {on_one_line(written.note)}", soft_wrap=True)
    elif written.near is not None and written.near.near is not None:
        near = written.near
        console.print(
            f"near copies of training images: {near.near:,} of {near.compared:,} compared ({near.expected:.1%} are "
            f"expected of new images); {out.rstrip('/')}/nearest.png shows training images",
            soft_wrap=True,
        )


def predict(
    model: Annotated[Path, typer.Argument(metavar="DIR|FILE.onnx", help="a finished run, or a file of cgankd export")],
    images: Annotated[list[Path], typer.Argument(help="image files, or folders of them")],
    to: Annotated[str, typer.Option("--to", help="table, csv or json")] = "table",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="write them to this file: JSON if .json, else CSV, or as --to says"),
    ] = None,
    row: Row = None,
    seed: Seed = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="go on without images that can't be read, and name them on stderr")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Print what a student says of image files, which are brought to its size as in training."""
    from cgankd.core.files import write_text
    from cgankd.data.image_files import UnusableImages
    from cgankd.shipping import predict as predictions

    if to not in predictions.FORMATS:
        raise UserError(f"--to {to}: allowed are {', '.join(predictions.FORMATS)}")
    opened = predictions.open_model(model, row, seed)
    files = predictions.image_files(images)
    if skip_bad:
        files, left_out = predictions.readable(files)
        if left_out:
            typer.echo(on_one_line(left_out), err=True)
    if to == "table" and out is not None:
        to = "json" if out.suffix == ".json" else "csv"
    try:
        with one_loop(quiet, at_stderr=True) as progress:
            records = predictions.predict(opened, files, None if to == "json" else 1, progress)
    except UnusableImages as error:
        raise UserError(f"{error}; --skip-bad goes on without") from None
    unit = opened[0].deployed_facts.get("unit", "")
    if out is not None:
        write_text(out, predictions.as_text(records, to, unit))
        console.print(f"{out}: {len(records):,} predictions", soft_wrap=True)
    elif to == "table":
        _print_predictions(records, opened[0].deployed_facts)
    else:
        typer.echo(predictions.as_text(records, to, unit), nl=False)


def _print_predictions(records: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    classes, unit = "probabilities" in records[0], facts.get("unit", "")
    low, high = facts.get("range", (0.0, 1.0))
    digits = run_text.digits_for(low, high)
    table = Table("image", "prediction", *(["probability"] if classes else []), box=None, pad_edge=False)
    for record in records:
        best = [f"{next(iter(record['probabilities'].values())):.1%}"] if classes else []
        text = record["prediction"] if classes else f"{run_text.rounded(record['prediction'], digits)} {unit}".rstrip()
        table.add_row(on_one_line(record["file_name"]), on_one_line(text), *best)
    console.print(table)


def bench(
    model: Annotated[Path, typer.Argument(metavar="DIR|FILE.onnx", help="a finished run, or a file of cgankd export")],
    row: Row = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print a student's parameters, arithmetic, file size, and latency on this machine."""
    from cgankd.shipping import bench as measure

    facts = measure.bench(model, row, seed)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            table.add_row(f"{name} {inner}".strip(), _number(number))
    console.print(table)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else on_one_line(str(value))


def generate(
    folder: Run,
    label: Annotated[str, typer.Option("--label", help="a class, or a number in the label's unit")],
    count: Annotated[int, typer.Option("--count", min=1, help="how many images")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="another seed gives other images")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="a .png for one grid, or a new folder for one file each; default a grid"),
    ] = None,
) -> None:
    """Generate images of one label with a run's trained generator; the data set is not needed."""
    from cgankd.shipping import generate as images

    pictures = images.generate(folder, label, count, seed)
    path = out or Path(f"{portable(f'{folder.absolute().name}-{label}')}.png")
    if path.suffix.lower() == ".png":
        images.write_grid(pictures, path)
    else:
        from cgankd.shipping.finished import FinishedRun

        images.write_files(pictures, FinishedRun.open(folder).task, label, path)
    console.print(f"{path}: {counted(count, 'image', 'images')} of label {on_one_line(label)}", soft_wrap=True)
