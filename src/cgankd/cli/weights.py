"""``cgankd convert-weights``: convert PyTorch weights to a .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cgankd.cli import completion
from cgankd.cli.screen import console
from cgankd.core.errors import UserError
from cgankd.core.terminal import on_one_line


def convert_weights(
    source: Annotated[
        Path, typer.Argument(help="a checkpoint with a state dict: .pth, .pt, .bin, .ckpt, .pth.tar, ..")
    ],
    destination: Annotated[Path, typer.Argument(help="the .safetensors file to write")],
    mean: Annotated[str | None, typer.Option(help="channel means of its training images: 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option(help="channel standard deviations of its training images")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="the network that the weights are for; it is tested with them first",
            autocompletion=completion.network_names,
        ),
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", min=1, max=3, help="its input channels; none: by its first layer")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=1, help="its outputs, 1 for a scalar; none: by its last layer")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=16, help="side of the images for the test, in pixels")] = 32,
    entry: Annotated[
        str | None, typer.Option("--entry", help="the entry of the file that holds the weights, if it has several")
    ] = None,
) -> None:
    """Convert PyTorch weights to .safetensors. Only tensors are read, nothing is executed."""
    import torch

    from cgankd.nets.conversion import Target, convert_pth

    def numbers(text: str | None, option: str) -> Any:
        try:
            return None if text is None else torch.tensor([float(part) for part in text.split(",")])
        except ValueError:
            raise UserError(f"{option} {text!r} is not a list of numbers such as 0.49,0.48,0.45") from None

    if network is None and (channels or classes):
        raise UserError("--channels and --classes are sizes of a network; needed: --network, its name")
    target = None if network is None else Target(network, channels, classes, (size, size))
    constants = {"mean": numbers(mean, "--mean"), "std": numbers(std, "--std")}
    for sentence in convert_pth(source, destination, **constants, target=target, entry=entry):
        console.print(on_one_line(sentence), soft_wrap=True)
