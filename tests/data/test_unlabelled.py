"""data.unlabelled: images without labels, from every kind of source, in the shape of the labelled ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from bad_inputs import good_folders, good_png
from PIL import Image

from cgankd.config.settings import DataSettings
from cgankd.core.errors import UserError
from cgankd.data.imageset import Splits, contents
from cgankd.data.sources import load
from cgankd.planning.look import look

COUNT = 7
Pixels = npt.NDArray[np.uint8]


def pixels(count: int = COUNT, seed: int = 99, side: int = 16) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def read(folder: Path, unlabelled: object, **settings: object) -> Splits:
    labelled = good_folders(folder / "labelled")
    return load(DataSettings.model_validate({"source": str(labelled), "unlabelled": str(unlabelled), **settings}))


def files(folder: Path, images: Pixels) -> Path:
    for number, image in enumerate(images):
        path = folder / ("deep/er" if number % 2 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def npz(folder: Path, images: Pixels) -> Path:
    np.savez(folder / "u.npz", images=images)
    return folder / "u.npz"


def split_npz(folder: Path, images: Pixels) -> Path:
    np.savez(folder / "s.npz", x_train=images[:4], x_test=images[4:], y_train=np.zeros(4))
    return folder / "s.npz"


def hdf5(folder: Path, images: Pixels) -> Path:
    with h5py.File(folder / "u.h5", "w") as file:
        file["x"] = images
    return folder / "u.h5"


def parquet(folder: Path, images: Pixels) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    encoded = [
        {"bytes": path.read_bytes(), "path": path.name} for path in sorted(files(folder / "p", images).rglob("*.png"))
    ]
    parquet.write_table(pyarrow.table({"image": encoded}), folder / "u.parquet")
    return folder / "u.parquet"


def tar(folder: Path, images: Pixels) -> Path:
    pytest.importorskip("webdataset")
    import tarfile

    with tarfile.open(folder / "u.tar", "w") as archive:
        for path in sorted(files(folder / "t", images).rglob("*.png")):
            archive.add(path, path.name)
    return folder / "u.tar"


@pytest.mark.parametrize("made", [files, npz, split_npz, hdf5, parquet, tar])
def test_every_kind_of_source_needs_no_labels(made: Callable[[Path, Pixels], Path], tmp_path: Path) -> None:
    images = pixels()
    home = tmp_path / "home"
    home.mkdir()
    source = made(home if made is not files else home / "u", images)
    splits = read(tmp_path, source)
    assert splits.further is splits.unlabelled
    found = {image.numpy().tobytes() for image in splits.unlabelled.images}
    assert found == {image.transpose(2, 0, 1).tobytes() for image in images}
    assert f"{COUNT} unlabelled images of {source}" in splits.notes


def test_shards_in_a_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    shard = parquet(home, pixels())
    (tmp_path / "shards").mkdir()
    shard.rename(tmp_path / "shards" / "train-00000-of-00001.parquet")
    assert len(read(tmp_path, tmp_path / "shards").unlabelled) == COUNT


def test_without_the_setting_they_are_the_rest_of_the_pool(tmp_path: Path) -> None:
    labelled = good_folders(tmp_path / "labelled")
    splits = load(DataSettings(source=str(labelled), train_size=4))
    assert splits.further is None
    assert len(splits.unlabelled) == len(splits.pool) - 4


def test_they_get_the_shape_of_the_labelled_images(tmp_path: Path) -> None:
    source = files(tmp_path / "u", pixels(side=31))
    splits = read(tmp_path, source, size=18, channels=1)
    assert splits.unlabelled.images.shape == (COUNT, 1, 18, 18)
    assert splits.train.images.shape[1:] == (1, 18, 18)


def test_labelled_validation_and_test_images_are_left_out(tmp_path: Path) -> None:
    """A folder with everything in it is what people have; scores on images that were learnt would say little."""
    everything = good_folders(tmp_path / "u")  # the labelled ones once more
    files(everything / "a", pixels())
    splits = read(tmp_path, everything, train_size=4)
    known = {digest for part in (splits.train, splits.val, splits.test) for digest in contents(part.images)}
    further = set(contents(splits.unlabelled.images))
    assert not known & further
    pool = set(contents(splits.pool.images))
    assert further == (pool - known) | set(contents(read(tmp_path / "b", everything / "a").unlabelled.images)) - known
    left = len(splits.train) + len(splits.val) + len(splits.test)
    said = f"{left} images were left out, with the pixels of a labelled, validation or test image"
    assert any(said in note for note in splits.notes)


def test_where_all_are_known_that_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all 20 images have the pixels of a labelled, validation or test image"):
        read(tmp_path, good_folders(tmp_path / "u"))


def test_bad_images_name_the_option_and_skip_bad_lists_them(tmp_path: Path) -> None:
    source = files(tmp_path / "u", pixels())
    (source / "cut.png").write_bytes(good_png(900)[:300])
    with pytest.raises(UserError, match=r"cut\.png: .*truncated.*; --skip-bad \(data.skip_bad=true\) goes on without"):
        read(tmp_path, source)
    splits = read(tmp_path, source, skip_bad=True)
    assert len(splits.unlabelled) == COUNT
    assert [Path(path).name for path, _ in splits.rejected] == ["cut.png"]
    assert any("1 image can't be read and was left out" in note for note in splits.notes)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda path: path / "gone", r"data.unlabelled .*gone does not exist; allowed: a folder of images"),
        (lambda path: path, r"holds no images; allowed: files that end in \.png"),
        (lambda path: _written(path / "u.txt"), r"is a file of another kind; allowed: a folder of images"),
        (lambda path: _arrays(path / "u.npz"), r"found arrays labels; needed: images, or x"),
    ],
)
def test_what_is_no_source_is_refused(made: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(UserError, match=said):
        read(tmp_path, made(home))


def _written(path: Path) -> Path:
    path.write_text("no image")
    return path


def _arrays(path: Path) -> Path:
    np.savez(path, labels=np.zeros(3))
    return path


def test_16_bits_beyond_those_of_the_labelled_images_are_refused(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 4096, (40, 16, 16), dtype=np.uint16)
    np.savez(tmp_path / "a.npz", images=grey, labels=np.arange(40) % 2)
    settings = DataSettings(source=str(tmp_path / "a.npz"), unlabelled=str(tmp_path / "b.npz"))
    np.savez(tmp_path / "b.npz", images=grey[:9][:, ::-1])
    splits = load(settings)
    assert splits.plan is not None
    assert splits.plan.bits == 12
    assert len(splits.unlabelled) == 9
    np.savez(tmp_path / "b.npz", images=grey + 4096)
    with pytest.raises(UserError, match="holds the value 8,"):
        load(settings)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
@pytest.mark.parametrize("split", [False, True])
def test_a_folder_of_this_name_is_no_class(name: str, split: bool, tmp_path: Path) -> None:
    top = tmp_path / "labelled"
    good_folders(top / "train" if split else top)
    plain = load(DataSettings(source=str(top)))
    files(top / name, pixels())
    splits = load(DataSettings(source=str(top)))
    assert splits.task == plain.task
    assert splits.train.content_key == plain.train.content_key
    assert any(f"{top / name} was left out" in note and "data.unlabelled=" in note for note in splits.notes)
    used = load(DataSettings(source=str(top), unlabelled=str(top / name)))
    assert len(used.unlabelled) == COUNT
    assert not any("was left out" in note for note in used.notes)


def test_a_folder_of_another_name_is_no_class_where_the_setting_names_it(tmp_path: Path) -> None:
    top = good_folders(tmp_path / "labelled")
    files(top / "more", pixels())
    splits = load(DataSettings(source=str(top), unlabelled=str(top / "more")))
    assert len(splits.task.answer_names) == 2
    assert f"{top / 'more'} is no class, because data.unlabelled names it" in splits.notes


def test_all_folders_are_classes_where_the_setting_says_so(tmp_path: Path) -> None:
    top = good_folders(tmp_path / "labelled")
    files(top / "unlabelled", pixels())
    assert load(DataSettings(source=str(top), split_folders=False)).task.answer_names == ("a", "b", "unlabelled")


@pytest.mark.parametrize("split", [False, True])
def test_in_an_address_the_folder_is_no_class_and_is_not_copied_again(
    split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setenv("CGANKD_DATA", str(tmp_path / "cache"))
    top = tmp_path / "labelled"
    good_folders(top / "train" if split else top)
    files(top / "more", pixels()) if not split else files(top / "train" / "unlabelled", pixels())
    address = f"file://{top}"
    further = f"{address}/train/unlabelled" if split else f"{address}/more"
    splits = load(DataSettings(source=address, unlabelled=further))
    assert splits.task.answer_names == ("a", "b")
    assert len(splits.unlabelled) == COUNT
    assert f"{COUNT} unlabelled images of {further}" in splits.notes
    assert len(list((tmp_path / "cache" / "remote").iterdir())) == 1


def test_folders_within_splits_are_no_classes_and_those_that_are_not_used_are_told(tmp_path: Path) -> None:
    good_folders(tmp_path / "train")
    for place in ("train/unlabelled", "unlabeled"):
        files(tmp_path / place, pixels(seed=len(place)))
    (tmp_path / "train" / "Unlabeled").mkdir()  # empty
    splits = load(DataSettings(source=str(tmp_path), unlabelled=str(tmp_path / "train" / "unlabelled")))
    assert splits.task.answer_names == ("a", "b")
    assert len(splits.unlabelled) == COUNT
    left = [note for note in splits.notes if "was left out: its images have no labels" in note]
    assert [note.split(" was")[0] for note in left] == [str(tmp_path / "unlabeled")]


def test_an_empty_folder_is_not_used(tmp_path: Path) -> None:
    (good_folders(tmp_path / "set") / "unlabelled").mkdir()
    assert look(str(tmp_path / "set"), {}).settings.unlabelled is None


def test_where_the_images_come_from_is_known_by_their_pixels(tmp_path: Path) -> None:
    """Of a teacher that was trained on the pool, what it says of the pool's images is nearly the truth."""
    everything = good_folders(tmp_path / "u")
    assert read(tmp_path, everything, train_size=4).unlabelled.of_pool
    assert not read(tmp_path, files(tmp_path / "v", pixels()), train_size=4).unlabelled.of_pool
    assert load(DataSettings(source=str(everything), train_size=4)).unlabelled.of_pool


def test_16_bits_beside_images_of_8_bits_are_not_guessed(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 4096, (9, 16, 16, 3), dtype=np.uint16)
    np.savez(tmp_path / "u.npz", images=deep)
    with pytest.raises(UserError, match=r"use 12 of them, other than the labelled images; allowed: images of 8 bits"):
        read(tmp_path, tmp_path / "u.npz")
    np.savez(tmp_path / "u.npz", images=deep * 16)
    assert read(tmp_path, tmp_path / "u.npz").unlabelled.images.float().mean() == pytest.approx(127, abs=3)


def test_another_shape_is_told(tmp_path: Path) -> None:
    splits = read(tmp_path, files(tmp_path / "u", pixels(side=20)), channels=1)
    assert f"data.unlabelled: {COUNT} images were brought to 16x16 pixels" in splits.notes
    assert "data.unlabelled: colours were made grey, as the labelled images are" in splits.notes
    plain = read(tmp_path / "b", files(tmp_path / "v", pixels()))
    assert not any(note.startswith("data.unlabelled:") for note in plain.notes)
