"""The data set, and which of its images are labelled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cgankd.config.settings.base import Settings, SourceText


class DataSettings(Settings):
    """The data set, which of its images are labelled, and how images get one shape."""

    source: SourceText = Field(
        "digits",
        min_length=1,
        description="a built-in name (cgankd data lists them), a folder, .csv, .npz, .h5, .parquet or .tar, the "
        "address of one (s3://bucket/images), or hf://owner/name",
    )
    unlabelled: SourceText | None = Field(
        None,
        min_length=1,
        description="images without labels, for rows such as pseudo+fm: a folder, at any depth, an .npz, .h5, .parquet "
        "or .tar, the address of one, or hf://owner/name; labels in it are not read; none: the training images that "
        "train_size leaves out",
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: words and whole numbers are classes, decimals are scalars"
    )
    size: int | None = Field(None, ge=16, description="side in pixels; none: the images' own size")
    shape: Literal["crop", "pad"] = Field(
        "crop",
        description="images that are not square: crop (short side to size, centre crop) or pad (long side to size, "
        "black border)",
    )
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 colour; none: the images' own channels")
    bits: int | None = Field(
        None,
        ge=8,
        le=16,
        description="16-bit images: how many of the bits are in use; none: the fewest of 8, 10, 12, 14 and 16 that "
        "hold the largest value of the data set",
    )
    skip_bad: bool = Field(
        False,
        description="go on without the images that can't be read or have no label, which rejected.csv lists with the "
        "reasons; false: they are an error",
    )
    split_folders: bool | None = Field(
        None,
        description="whether the folders at the top are splits (true) or classes (false); none: their names decide, "
        "and unclear names are an error",
    )
    label_column: str | None = Field(
        None, description="column of the labels, in a table (metadata.csv, ..) or .parquet files; none: 'label'"
    )
    group_column: str | None = Field(
        None, description="column or array: images of equal value stay in one split (a drive, an object, a person)"
    )
    group_pattern: str | None = Field(
        None,
        description="a regular expression for the path of each image file below the source, with / between folders: "
        "the text that it matches (or its group in brackets, if it has one) is the image's group, as in group_column",
    )
    label_range: tuple[float, float] | None = Field(
        None, description="regression: allowed labels; none: the range of the training split"
    )
    circular: float | None = Field(
        None,
        gt=0,
        description="regression: the period of a label that wraps, in its unit (360 for degrees, 24 for hours); none: "
        "the label does not wrap",
    )
    unit: str = Field("", description="regression: the label's unit, for tables")
    train_size: int | None = Field(None, ge=2, description="number of labelled images; none: all training images")
    train_per_class: int | None = Field(
        None, ge=1, description="labelled images per class or per distinct label (instead of train_size)"
    )
    val_size: int | None = Field(
        None,
        ge=1,
        description="validation images, taken from the training split; none: a tenth of the labelled "
        "ones, at least 100, at most a third of the training split",
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="test share where the source has no test split")
    seed: int = Field(0, description="for the split, the choice of labelled images and the angles of rotated-fashion")
    turns: int = Field(4, ge=1, description="rotated-fashion: number of angles that each training image is rotated by")
