"""Tables and class folders: encodings, separators, labels, and names of files and folders."""

from __future__ import annotations

import codecs
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from bad_inputs import Case, good_folders, good_png, has, labels_are

COUNT = 20
ROWS = [f"{n}.png,{n % 2}" for n in range(COUNT)]
TEXT = "file_name,label\n" + "\n".join(ROWS) + "\n"
TWO = ("0", "1")


def images(folder: Path, names: Sequence[str] = tuple(f"{n}.png" for n in range(COUNT))) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(good_png(number))
    return folder


def table(content: str | bytes, name: str = "metadata.csv") -> Callable[[Path], Path]:
    """Twenty images and a table of this content."""

    def make(folder: Path) -> Path:
        images(folder)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return folder

    return make


def labelled(*labels: str) -> Callable[[Path], Path]:
    """A table whose labels, in quotes, come in turn."""
    quoted = [label.replace('"', '""') for label in labels]
    rows = [f'{n}.png,"{quoted[n % len(quoted)]}"' for n in range(COUNT)]
    return table("file_name,label\n" + "\n".join(rows) + "\n")


def one_row(row: str) -> Callable[[Path], Path]:
    """The table of good rows with one more row, on line 22."""
    return table(TEXT + row + "\n")


def forms() -> dict[str, Case]:
    """Encodings, line ends, separators and quotes."""
    read, encoding = has(COUNT, classes=TWO), "is not UTF-8; allowed: UTF-8 text"
    return {
        "a byte-order mark": Case(table(codecs.BOM_UTF8 + TEXT.encode()), check=read),
        "two byte-order marks": Case(
            table(2 * codecs.BOM_UTF8 + TEXT.encode()), refused="has no column 'file_name'; columns found: "
        ),
        "UTF-16 with its mark": Case(table(TEXT.encode("utf-16")), refused=encoding),
        "UTF-16 without a mark": Case(table(TEXT.encode("utf-16-le")), refused="metadata.csv: holds the byte 0"),
        "UTF-32": Case(table(TEXT.encode("utf-32")), refused=encoding),
        "Latin-1": Case(table(TEXT.replace(",1", ",é").encode("latin-1")), refused=encoding),
        "Windows-1252": Case(table(TEXT.replace(",1", ",\u20ac").encode("cp1252")), refused=encoding),
        "Shift-JIS": Case(table(TEXT.replace(",1", ",\u732b").encode("shift-jis")), refused=encoding),
        "a byte of zero": Case(table(TEXT.replace("7.png", "7\0.png")), refused="metadata.csv: holds the byte 0"),
        "a file of zeros": Case(table(bytes(4000)), refused="metadata.csv: holds the byte 0"),
        "line ends of Windows": Case(table(TEXT.replace("\n", "\r\n")), check=read),
        "line ends of old Macs": Case(table(TEXT.replace("\n", "\r")), check=read),
        "mixed line ends": Case(table(TEXT.replace("\n", "\r\n", 5)), check=read),
        "no last line end": Case(table(TEXT.rstrip()), check=read),
        "blank lines": Case(table(TEXT.replace("\n", "\n\n")), check=read),
        "blank lines first": Case(table("\n\n" + TEXT), check=read),
        "lines of commas": Case(one_row(","), refused="line 22: file '' is not in"),
        "quotes around everything": Case(
            table("\n".join('"' + line.replace(",", '","') + '"' for line in TEXT.split())), check=read
        ),
        "a quote that does not end": Case(one_row('"x.png,1'), refused="line 22: not readable as CSV: "),
        "text behind a quote": Case(one_row('"x.png"y,1'), refused="line 22: not readable as CSV: "),
        "a line end inside quotes": Case(one_row('"x\n.png",1'), refused="line 23: file 'x\\n.png' is not in"),
        "semicolons": Case(table(TEXT.replace(",", ";")), check=has(COUNT, "were separated at semicolons", TWO)),
        "tabs": Case(table(TEXT.replace(",", "\t")), check=has(COUNT, "were separated at tabs", TWO)),
        "spaces": Case(table(TEXT.replace(",", " ")), refused="has no column 'file_name'; columns found: "),
        "commas below a header of semicolons": Case(
            table(TEXT.replace(",", ";", 1)), refused="line 2: has 1 field; the header has 2"
        ),
        "space around fields": Case(table(TEXT.replace(",", " , ")), check=read),
        "a comma behind each row": Case(
            table(TEXT.replace("\n", ",\n").replace("label,", "label", 1)), refused="line 2: has 3 fields; the header"
        ),
        "a comma behind each line": Case(table(TEXT.replace("\n", ",\n")), check=read),
        "a field of 200,000 letters": Case(one_row(f"{'x' * 200_000}.png,1"), refused="line 22: not readable as CSV"),
        "a header in capitals": Case(table(TEXT.replace("file_name", "File_Name")), refused="no column 'file_name'"),
        "a column twice": Case(
            table(TEXT.replace("label", "label,label").replace(".png,", ".png,1,")),
            refused="column 'label' is 2 times in the header",
        ),
        "no header": Case(table("\n".join(ROWS)), refused="has no column 'file_name'; columns found: 0.png, 0"),
        "a header alone": Case(table("file_name,label"), refused="metadata.csv: has no rows below its header"),
        "nothing": Case(table(""), refused="metadata.csv: is empty; the first line names the columns"),
        "spaces alone": Case(table("  \n \n"), refused="has no column 'file_name'; columns found: "),
        "a mark alone": Case(table(codecs.BOM_UTF8), refused="metadata.csv: is empty"),
        "a page of the web": Case(table("<!DOCTYPE html>\n<html></html>"), refused="has no column 'file_name'"),
        "an Excel file": Case(table(b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0"), refused="metadata.csv: "),
        "an image": Case(table(good_png(1)), refused=encoding),
        "a broken link": Case(
            lambda folder: _linked(folder, "gone.csv"), refused="metadata.csv: not readable: No such file or directory"
        ),
        "a device": Case(lambda folder: _linked(folder, "/dev/zero"), refused="metadata.csv: is a pipe or a device"),
        "a pipe": Case(lambda folder: _piped(folder), refused="metadata.csv: is a pipe or a device; allowed: files"),
    }


def _linked(folder: Path, target: str) -> Path:
    (images(folder) / "metadata.csv").symlink_to(target)
    return folder


def _piped(folder: Path) -> Path:
    os.mkfifo(images(folder) / "metadata.csv")
    return folder


def files() -> dict[str, Case]:
    """What a row may name."""
    outside = "is outside the folder; allowed: paths inside"
    missing = "line 22: file "
    names = {
        "an absolute path": ("/etc/hostname,1", outside),
        "a path of Windows": ("C:\\x.png,1", outside),
        "a share of Windows": ("\\\\server\\share\\x.png,1", outside),
        "two dots": ("../x.png,1", outside),
        "two dots later": ("a/b/../../../x.png,1", outside),
        "two dots with backslashes": ("a\\..\\..\\x.png,1", outside),
        "an address": ("https://example.org/x.png,1", missing),
        "an address of a file": ("file:///etc/hostname,1", missing),
        "a home folder": ("~/x.png,1", missing),
        "a variable": ("$HOME/x.png,1", missing),
        "a pattern": ("*.png,1", missing),
        "a folder": (".,1", missing),
        "nothing": (",1", missing),
        "a name of 5,000 letters": (f"{'x' * 5000}.png,1", missing),
        "a file below a file": ("0.png/x.png,1", missing),
        "another case": ("0.PNG,1", missing),
        "a file twice": ("0.png,1", "1 file is named twice, by rows that differ: '0.png' (lines 2 and 22)"),
        "a file twice in two spellings": (
            "./0.png,1",
            "1 file is named twice, by rows that differ: './0.png' (lines 2 and 22)",
        ),
        "a table": ("metadata.csv,1", "metadata.csv: not readable as an image (cannot identify image file)"),
    }
    return {f"a row that names {name}": Case(one_row(row), refused=text) for name, (row, text) in names.items()}


def labels() -> dict[str, Case]:
    """What a label may be."""
    far = "9" * 5000
    refused = {
        "empty": (("a", ""), "lines 3, 5, 7, 9, 11 and 5 more: the label is empty"),
        "space": (("1", " "), "lines 3, 5, 7, 9, 11 and 5 more: the label is empty"),
        "nan": (("1.5", "nan"), "line 3: label nan is not finite; allowed: finite numbers"),
        "inf": (("1.5", "inf"), "line 3: label inf is not finite"),
        "too large for a float": (("1.5", "1e400"), "line 3: label inf is not finite in float32"),
        "too large for a float32": (("1.5", "1e39"), "line 3: label 1e+39 is not finite in float32"),
        "a whole number of 30 digits": (("1", "9" * 30), "a label exceeds 64 bits; allowed: whole numbers below 2**63"),
        "a whole number of 5,000 digits": (("1", far), "a label exceeds 64 bits; allowed: whole numbers below 2**63"),
        "a negative number of 5,000 digits": (("1", "-" + far), "a label exceeds 64 bits"),
        "words among decimals": (("1.5", "2.5", "cat"), "line 4: label 'cat' is not a number"),
        "all equal": (("7",), "1 distinct training label; at least two are needed"),
        "decimals, all equal": (("7.5",), "every training label is 7.5; at least two distinct ones are needed"),
        "a list": (("[1, 2]", "[3, 4]", "1.5"), "line 2: label '[1, 2]' is not a number"),
        "thousands or decimals": (("1,500", "2,500"), "may be numbers or names"),
    }
    classes = {
        "two line ends": ("a\nb", "c\r\nd"),
        "control characters": ("\x1b[31mred", "\x07bell"),
        "markup": ("<b>x</b>", "[red]y[/red]"),
        "formulas": ("=1+1", "@SUM(A1)"),
        "emoji": ("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        "right-to-left marks": ("\u202eabc", "abc"),
        "hexadecimal": ("0x10", "0x1F"),
        "very long": ("a" * 5000, "b" * 5000),
        "slashes": ("a/b", "../c"),
        "dates": ("2024-01-01", "2024-13-45"),
        "true and false": ("True", "False"),
    }
    cases = {f"labels: {name}": Case(labelled(*texts), refused=text) for name, (texts, text) in refused.items()}
    for name, texts in classes.items():
        cases[f"labels: {name}"] = Case(labelled(*texts), check=has(COUNT, classes=tuple(sorted(texts))))
    cases["labels: decimals in several forms"] = Case(
        labelled("1e1", "-2.5", ".5", "+4."), check=labels_are(-2.5, 0.5, 4.0, 10.0)
    )
    cases["labels: whole numbers as decimals"] = Case(labelled("1.0", "2.0"), check=labels_are(1.0, 2.0))
    cases["labels: tiny numbers"] = Case(labelled("1e-300", "1.5"), check=labels_are(0.0, 1.5))
    return cases


def lines_of_json() -> dict[str, Case]:
    """metadata.jsonl."""
    good = [json.dumps({"file_name": f"{n}.png", "label": n % 2}) for n in range(COUNT)]

    def lines(*extra: str, encoding: str = "utf-8") -> Callable[[Path], Path]:
        return table("\n".join([*good, *extra]).encode(encoding), "metadata.jsonl")

    bad = {
        "a list": ("[1]", "line 21: is not a JSON object"),
        "a number": ("7", "line 21: is not a JSON object"),
        "half an object": ('{"file_name": "x', "line 21: not readable as JSON"),
        "single quotes": ("{'file_name': 'x.png'}", "line 21: not readable as JSON"),
        "a deep list": ('{"file_name": ' + "[" * 100_000, "line 21: not readable as JSON"),
        "a key twice": ('{"file_name": "x.png", "label": 1, "label": 2}', "line 21: has the key 'label' twice"),
        "a key twice with space": (
            '{"file_name": "x.png", "label": 1, " label": 2}',
            "line 21: has the key 'label' twice",
        ),
        "no label": ('{"file_name": "x.png"}', "line 21: file 'x.png' is not in"),
        "a list as a label": ('{"file_name": "x.png", "label": [1]}', "column 'label' holds lists or objects"),
        "a number as a name": ('{"file_name": 3, "label": 1}', "line 21: file '3' is not in"),
        "no name": ('{"file_name": null, "label": 1}', "line 21: file '' is not in"),
        "an absolute path": ('{"file_name": "/etc/hostname", "label": 1}', "is outside the folder"),
        "a byte of zero in a name": ('{"file_name": "x\\u0000.png", "label": 1}', "line 21: file 'x\\x00.png' is not"),
        "half of a pair in a name": ('{"file_name": "\\ud83d.png", "label": 1}', "line 21: file '\\ud83d.png' is not"),
    }
    cases = {f"jsonl: {name}": Case(lines(line), refused=text) for name, (line, text) in bad.items()}
    return cases | {
        "jsonl: a byte-order mark": Case(lines(encoding="utf-8-sig"), check=has(COUNT, classes=TWO)),
        "jsonl: UTF-16": Case(lines(encoding="utf-16"), refused="is not UTF-8"),
        "jsonl: half of a pair in a label": Case(
            table("\n".join(good).replace('"label": 1', '"label": "\\ud83d"'), "metadata.jsonl"),
            refused="class '\\ud83d' has a name with bytes that are not UTF-8",
        ),
        "jsonl: a list around all": Case(
            table(f"[{', '.join(good)}]", "metadata.jsonl"), refused="line 1: is not a JSON object"
        ),
        "jsonl: numbers that are no JSON": Case(
            table("\n".join(good).replace('"label": 1', '"label": NaN'), "metadata.jsonl"),
            refused="line 2: label NaN is not finite",
        ),
        "jsonl and csv": Case(
            lambda folder: table(TEXT)(lines()(folder)),
            refused="has metadata.csv and metadata.jsonl; allowed: only one",
        ),
    }


def folder_names() -> dict[str, Case]:
    """What a class folder may be called."""
    names = {
        "spaces": ("my cat", " my  dog "),
        "emoji": ("\U0001f600", "\U0001f436"),
        "brackets": ("[a]", "(b)"),
        "braces and stars": ("{a,b}", "*"),
        "quotes": ("it's", '"b"'),
        "a hash and a percent sign": ("#a", "%41"),
        "dashes first": ("-a", "--out"),
        "line ends": ("a\nb", "c\td"),
        "backslashes": ("a\\b", "c"),
        "colons and commas": ("a:b", "c,d"),
        "dollar signs": ("$HOME", "`id`"),
        "endings of images": ("a.png", "b.jpg"),
        "names of tables": ("metadata.csv", "b"),
        "250 letters": ("a" * 250, "b" * 250),
        "words of YAML": ("no", "null"),
        "numbers": ("007", "7"),
        "other scripts": ("\u732b", "\u0643\u0644\u0628"),
        "dots at the end": ("a.", "b.."),
    }
    cases = {
        f"class folders: {name}": Case(
            lambda folder, both=both: good_folders(folder, both),
            check=has(COUNT, classes=tuple(sorted(map(str.strip, both)))),
        )
        for name, both in names.items()
    }
    raw = os.fsdecode(b"cl\xff")
    return cases | {
        "class folders: a name that is not UTF-8": Case(
            lambda folder: good_folders(folder, (raw, "b")), refused="has a name with bytes that are not UTF-8"
        ),
        "class folders: image names that are not UTF-8": Case(
            lambda folder: _renamed(good_folders(folder)), check=has(COUNT, classes=("a", "b"))
        ),
        "class folders: letters with accents in two spellings": Case(
            lambda folder: good_folders(folder, ("\u00e9", unicodedata.normalize("NFD", "\u00e9"))),
            refused="1 distinct training label",
        ),
        "class folders: space alone": Case(
            lambda folder: good_folders(folder, (" ", "b")), refused="the label is empty"
        ),
        "class folders: one links to the other": Case(
            lambda folder: _twin(good_folders(folder)), check=has(30, "10 images have two paths, because of links")
        ),
        "class folders: one links to itself": Case(
            lambda folder: _itself(good_folders(folder)), refused="c: the link leads nowhere"
        ),
        "class folders: hidden ones": Case(
            lambda folder: good_folders(folder, (".a", "b")), refused="1 distinct training label"
        ),
        "class folders: a hundred deep": Case(_deep, check=has(21, classes=("a", "b"))),
        "a name of 5,000 letters": Case(
            lambda folder: folder / ("x" * 5000), refused="does not exist; allowed: a folder"
        ),
        "a name with a byte of zero": Case(lambda folder: folder / "x\0y", refused="does not exist; allowed: a folder"),
        "an archive": Case(_archive, refused="is a file of another kind; allowed: a folder, a .csv"),
        "a pipe": Case(_pipe, refused="does not exist; allowed: a folder"),
    }


def _renamed(folder: Path) -> Path:
    (folder / "a" / "00.png").rename(folder / "a" / os.fsdecode(b"\xff.png"))
    return folder


def _twin(folder: Path) -> Path:
    (folder / "c").symlink_to(folder / "b")
    return folder


def _itself(folder: Path) -> Path:
    (folder / "c").symlink_to(folder / "c")
    return folder


def _deep(folder: Path) -> Path:
    path = good_folders(folder) / "a" / "/".join(["d"] * 100) / "x.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(good_png(77))
    return folder


def _archive(folder: Path) -> Path:
    import tarfile

    with tarfile.open(folder / "set.tar.gz", "w") as archive:
        archive.add(good_folders(folder / "in"), "../../in")
    return folder / "set.tar.gz"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "set.npz")
    return folder / "set.npz"


CASES: dict[str, Case] = {**forms(), **files(), **labels(), **lines_of_json(), **folder_names()}
