"""Notes on images with the same pixels: in training and in another split, or with different labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from cgankd.core.numbers import counted
from cgankd.data.imageset import ImageSet, contents
from cgankd.tasks import Task

NAMED = 2  # pairs in one sentence


def repeated(
    pool: ImageSet, val: ImageSet, test: ImageSet, task: Task, names: Callable[[Sequence[int]], Sequence[str]]
) -> list[str]:
    """Notes on images with the same pixels.

    names: the files of the images at these places, which count through pool, val and test; empty where there are none.
    """
    in_pool, in_val, in_test = (contents(part.images) for part in (pool, val, test))
    known = set(in_pool)
    notes = []
    for name, part in (("validation", in_val), ("test", in_test)):
        if twice := sum(content in known for content in set(part)):
            are = counted(twice, f"{name} image is", f"different {name} images are")
            notes.append(f"{are} also in the training split, with the same pixels")
    if task.continuous:  # an image may have been measured twice
        return notes
    labels = [label for part in (pool, val, test) for label in part.labels.tolist()]
    return [*notes, *_contradictory([*in_pool, *in_val, *in_test], labels, task, names)]


def _contradictory(
    digests: Sequence[bytes], labels: Sequence[int], task: Task, names: Callable[[Sequence[int]], Sequence[str]]
) -> list[str]:
    """A note on images that have the pixels of an image of another class."""
    first, other = dict[bytes, int](), dict[bytes, int]()
    for place, content in enumerate(digests):
        before = first.setdefault(content, place)
        if labels[before] != labels[place]:
            other.setdefault(content, place)
    if not other:
        return []
    pairs = [(first[content], place) for content, place in other.items()]
    count = f"{counted(len(pairs), 'image has', 'images have')} more than one label, with the same pixels: "
    classes = [(task.short_text(labels[one]), task.short_text(labels[two])) for one, two in pairs]
    if files := names([place for pair in pairs[:NAMED] for place in pair]):
        both = zip(files[::2], files[1::2], classes, strict=False)
        named = [f"{one} ({of_one}) and {two} ({of_two})" for one, two, (of_one, of_two) in both]
        further = len(pairs) - len(named)
    else:
        often = Counter(classes)
        named = [f"{one} and {two} ({images:,})" for (one, two), images in often.most_common(NAMED)]
        further = len(pairs) - sum(images for _, images in often.most_common(NAMED))
    return [count + "; ".join(named) + (f"; and {further:,} more" if further else "")]
