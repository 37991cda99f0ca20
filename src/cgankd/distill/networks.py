"""What makes the whole networks that a method wants beside student and teacher, such as TAKD's assistant."""

from __future__ import annotations

import dataclasses
import math
import statistics

from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo

WIDER = 1.2  # times as wide at least


@dataclasses.dataclass(frozen=True)
class Maker:
    """``make(name)``: a new network for the run's images and task; see :meth:`Method.networks`."""

    student: nn.Module
    teacher: nn.Module | None  # None: a plain callable
    channels: int
    outputs: int
    size: tuple[int, int]  # height, width

    def __call__(self, name: str) -> nn.Module:
        """Random weights from torch's global generator; it normalises images as the student does.

        Raises UserError as :func:`cgankd.nets.zoo.create`.
        """
        network = zoo.create(name, self.channels, self.outputs, self.size)
        for layer in self.student.modules():
            if isinstance(layer, zoo.Normalise) and layer.mean.shape[1] == self.channels:
                zoo.fix_normalisation(network, layer.mean.flatten().cpu(), layer.std.flatten().cpu())
                break
        return network

    def between(self, method: str) -> str:
        """The name of a network between student and teacher: nearest to the geometric mean of their sizes.

        Size is counted in parameters. Networks of the student's or the teacher's family come first, then any of the
        zoo's. ``method`` is who asks. Raises UserError where none lies between, or the teacher shows no size.
        """
        if self.teacher is None:
            raise UserError(
                f"method {method!r} needs a network between student and teacher, but the teacher is a plain "
                "callable, whose size is not known; allowed: a teacher that is a module"
            )
        small, large = (
            sum(weight.numel() for weight in network.parameters()) for network in (self.student, self.teacher)
        )
        kin = sorted({*zoo.family(self.student), *zoo.family(self.teacher)})
        for names in (kin, zoo.names()):
            counts = zoo.parameter_counts(self.channels, self.outputs, self.size, names)
            inside = [name for name, count in counts.items() if small < count < large]
            if inside:
                return min(inside, key=lambda name: abs(math.log(counts[name] ** 2 / small / large)))
        raise UserError(
            f"method {method!r} needs a network between student and teacher, but none has between {small:,} and "
            f"{large:,} parameters; allowed: a larger teacher or a smaller student"
        )

    def wider(self, method: str, instead: str) -> str:
        """The name of a wider network of the student's family, of those the one that is nearest to twice as wide.

        Wide is the last layer, or, where it has one width in the whole family, the convolutions. Of several the
        smallest. ``method`` is who asks, ``instead`` what the user may do where none is wider: then UserError is
        raised.
        """
        kin = zoo.sketches(self.channels, self.outputs, self.size, zoo.family(self.student))
        for width in (_last_width, _mean_width):
            ratios = {name: width(network) / (width(self.student) or math.inf) for name, network in kin.items()}
            wider = {name: ratio for name, ratio in ratios.items() if ratio > WIDER}
            if wider:
                sizes = {name: sum(p.numel() for p in kin[name].parameters()) for name in wider}
                return min(wider, key=lambda name: (abs(math.log(wider[name] / 2)), sizes[name]))
        raise UserError(
            f"method {method!r} needs a wider network of the student's family, but of "
            f"{type(self.student).__name__} none is; allowed: a narrower student, or {instead}"
        )


def _last_width(network: nn.Module) -> int:
    """How many numbers the last linear layer reads; 0 where there is none."""
    return ([layer.in_features for layer in network.modules() if isinstance(layer, nn.Linear)] or [0])[-1]


def _mean_width(network: nn.Module) -> float:
    """How many channels a convolution makes, on average; a deeper network's differs by little."""
    return statistics.fmean([layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] or [0])
