"""Which images, and which of them are labelled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import PathText, Settings


class DataSettings(Settings):
    """Which images, which of them are labelled, and how they are brought to one shape."""

    source: PathText = Field(
        "digits", min_length=1, description="a built-in name (cgankd data lists them), a folder, .npz or .h5"
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: words and whole numbers are classes, decimals are scalars"
    )
    size: int | None = Field(None, ge=16, description="side in pixels; none: as the images are")
    shape: Literal["crop", "pad"] = Field(
        "crop", description="not square: crop (short side to size, centre crop) or pad (long side, black border)"
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 colour; none: as the images are")
    bits: int | None = Field(
        None,
        ge=8,
        le=16,
        description="16-bit images: how many of the bits are in use; none: 8, 10, 12, 14 or 16, as the largest value "
        "of the whole set says",
    )
    split_folders: bool | None = Field(
        None,
        description="folders: whether those at the top are splits (true) or classes (false); none: by their names, "
        "and asked where these are unclear",
    )
    label_column: str | None = Field(None, description="metadata.csv: none means the column 'label'")
    group_column: str | None = Field(
        None, description="column or array whose equal values never straddle two splits (drive, object, person)"
    )
    group_pattern: str | None = Field(
        None,
        description="a regular expression for the path of an image file below the source, with / between folders: "
        "what its one group matches, or all that it matches, names the file's group, as group_column does",
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
