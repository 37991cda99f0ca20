"""Creates the networks that a method needs besides student and teacher, such as TAKD's assistant."""

from __future__ import annotations

import dataclasses
import math
import statistics

from torch import nn

from cgankd.core.errors import UserError
from cgankd.nets import zoo

WIDER = 1.2  # how many times the student's width counts as wider, at least


@dataclasses.dataclass(frozen=True)
class NetworkFactory:
    """``factory(name)``: a new network for the run's images and task; see :meth:`Method.networks`."""

    student: nn.Module
    teacher: nn.Module | None  # None: the teacher is a plain callable
    channels: int
    outputs: int
    size: tuple[int, int]  # height, width

    def __call__(self, name: str) -> nn.Module:
        """Random weights from torch's global generator; images are normalised as in the student.

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

        Size is the number of parameters. Networks of the student's or the teacher's family are preferred to others of
        the zoo. method: named in messages. Raises UserError if there is none, or the teacher's size is not known.
        """
        if self.teacher is None:
            raise UserError(
                f"method {method!r} needs a network between student and teacher, but the teacher is a plain "
                "callable, whose size is not known; allowed: a teacher that is a module"
            )
        small, large = (
            sum(weight.numel() for weight in network.parameters()) for network in (self.student, self.teacher)
        )
        relatives = sorted({*zoo.family(self.student), *zoo.family(self.teacher)})
        for names in (relatives, zoo.names()):
            counts = zoo.parameter_counts(self.channels, self.outputs, self.size, names)
            between = [name for name, count in counts.items() if small < count < large]
            if between:
                return min(between, key=lambda name: abs(math.log(counts[name] ** 2 / small / large)))
        raise UserError(
            f"method {method!r} needs a network between student and teacher, but none has between {small:,} and "
            f"{large:,} parameters; allowed: a larger teacher or a smaller student"
        )

    def wider(self, method: str, instead: str) -> str:
        """The name of the network of the student's family that is nearest to twice as wide, of those that are wider.

        Width is that of the last layer, or, if no network is wider there, the mean over the convolutions. Of several
        such networks the smallest is taken. Raises UserError if none is wider. method: named in the message. instead:
        what the user can do in that case.
        """
        relatives = zoo.sketches(self.channels, self.outputs, self.size, zoo.family(self.student))
        for width in (_last_width, _mean_width):
            ratios = {name: width(network) / (width(self.student) or math.inf) for name, network in relatives.items()}
            wider = {name: ratio for name, ratio in ratios.items() if ratio > WIDER}
            if wider:
                sizes = {name: sum(p.numel() for p in relatives[name].parameters()) for name in wider}
                return min(wider, key=lambda name: (abs(math.log(wider[name] / 2)), sizes[name]))
        raise UserError(
            f"method {method!r} needs a wider network of the student's family, but the family of "
            f"{type(self.student).__name__} has none; allowed: a narrower student, or {instead}"
        )


def _last_width(network: nn.Module) -> int:
    """The number of inputs of the last linear layer; 0 if there is none."""
    return ([layer.in_features for layer in network.modules() if isinstance(layer, nn.Linear)] or [0])[-1]


def _mean_width(network: nn.Module) -> float:
    """The mean number of output channels of the convolutions, which depends little on depth."""
    return statistics.fmean([layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] or [0])
