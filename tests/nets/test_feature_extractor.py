"""The extractor: outputs and features in one pass, the jury's votes, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cgankd.core.errors import UserError
from cgankd.nets.feature_extractor import FeatureExtractor

IMAGES = torch.randint(0, 256, (7, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Linear(nn.Module):
    def __init__(self, seed: int, width: int = 5, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.fc = nn.Linear(256, width), nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.body(images.flatten(1)))


def test_outputs_and_features_are_the_teachers(fabric: Fabric) -> None:
    teacher = Linear(0)
    extractor = FeatureExtractor(teacher, fabric)
    outputs, features = extractor(IMAGES)
    x = IMAGES.float() / 255
    assert torch.allclose(outputs, teacher(x))
    assert torch.allclose(features, teacher.body(x.flatten(1)))


def test_the_jury_votes_after_the_teacher(fabric: Fabric) -> None:
    teacher, juror, shows = Linear(0), Linear(1, width=9), Linear(2, width=4)
    extractor = FeatureExtractor(teacher, fabric, shows, [juror, lambda x: 2 * teacher(x)])
    votes, features = extractor.votes(IMAGES)
    x = IMAGES.float() / 255
    assert votes.shape == (3, 7, 3)
    assert torch.allclose(votes, torch.stack([teacher(x), juror(x), 2 * teacher(x)]))
    assert torch.allclose(features, shows.body(x.flatten(1)))
    assert torch.equal(extractor(IMAGES)[0], votes[0])


@pytest.mark.parametrize("place", ["teacher", "juror 1"])
def test_outputs_without_a_second_dimension_are_refused(place: str, fabric: Fabric) -> None:
    def flat(images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))

    good = Linear(0, outputs=1)
    extractor = (
        FeatureExtractor(flat, fabric, good) if place == "teacher" else FeatureExtractor(good, fabric, others=[flat])
    )
    with pytest.raises(UserError, match=rf"{place} gives outputs \[7\] for 7 images; .*\[7, 1\] for a scalar"):
        extractor.votes(IMAGES)


def test_a_callable_shows_no_features(fabric: Fabric) -> None:
    with pytest.raises(UserError, match="features_of must be a module"):
        FeatureExtractor(lambda images: images, fabric)
