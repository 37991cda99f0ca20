"""Recipes: YAML that is no YAML, that unpacks to gigabytes, or that would be read as something else."""

from __future__ import annotations

import codecs

BAD_YAML = "not readable as YAML"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

# name -> (content, part of the sentence)
REFUSED: dict[str, tuple[str | bytes, str]] = {
    # encodings
    "UTF-16": ("seeds: [1]".encode("utf-16"), BAD_YAML),
    "UTF-16 without a mark": ("seeds: [1]".encode("utf-16-le"), BAD_YAML),
    "Latin-1": ("name: é".encode("latin-1"), BAD_YAML),
    "zeros": (bytes(100), BAD_YAML),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), BAD_YAML),
    "a control character": ("name: a\x07b", BAD_YAML),
    "half of a pair": ('name: "\\ud83d"', "a text holds half of a pair of surrogates"),
    # structure
    "a list": ("- a\n- b", "holds a list; needed: a mapping of settings"),
    "a number": ("7", "holds a int; needed: a mapping of settings"),
    "a text": ("just words", "holds a str; needed: a mapping of settings"),
    "two documents": ("seeds: [1]\n---\nseeds: [2]", BAD_YAML),
    "tabs": ("data:\n\tsize: 32", BAD_YAML),
    "an open bracket": ("seeds: [1, 2", BAD_YAML),
    "an open quote": ('name: "a', BAD_YAML),
    "JSON with a comma too many in a mapping": ('{"seeds": [1],, "name": "a"}', BAD_YAML),
    "a key twice": ("seeds: [1]\nseeds: [2]", "the key 'seeds' is there twice"),
    "an inner key twice": ("data: {size: 32, source: digits, size: 64}", "the key 'size' is there twice"),
    "a key that is a list": ("? [a, b]\n: 1", BAD_YAML),
    "a key that is a mapping": ("? {a: b}\n: 1", BAD_YAML),
    "a key that is nothing": ("? \n: 1", "key '' is not known"),
    "a key that is a number": ("1: 2", "key '1' is not known"),
    "a deep list": ("seeds: " + "[" * 500 + "]" * 500, BAD_YAML),
    "a deep mapping": ("".join(f"{' ' * depth}a:\n" for depth in range(1_000)), "nested too deeply"),
    "an open deep list": ("[" * 500, BAD_YAML),
    # aliases
    "ten billion laughs": (LAUGHS, "aliases make more than 100,000 values of this"),
    "ten billion laughs in mappings": (
        LAUGHS.replace("[", "{k: [").replace("]", "]}"), "aliases make more than 100,000 values of this",
    ),
    "ten billion laughs by merging": (
        "a: &a {x: 1}\n" + "".join(
            f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n"
            for old, new in zip("abcdefghi", "bcdefghij", strict=True)
        ),
        "aliases make more than 100,000 values of this",
    ),
    "an alias to itself": ("seeds: &a [*a]", "an alias repeats what it is itself a part of"),
    "an alias to nothing": ("seeds: *gone", BAD_YAML),
    "a mapping merged into itself": ("data: &a\n  <<: *a", "an alias repeats what it is itself a part of"),
    "a list merged into a mapping": ("data:\n  <<: [1, 2]", BAD_YAML),
    # tags
    "a tag for a Python object": ("seeds: !!python/object:os.system [echo]", BAD_YAML),
    "a tag for a call": ("seeds: !!python/object/apply:os.system ['true']", BAD_YAML),
    "a tag for a module": ("seeds: !!python/module:os ''", BAD_YAML),
    "a tag of one's own": ("seeds: !mine [1]", BAD_YAML),
    "a tag for a whole number before a word": ("seeds: !!int cat", BAD_YAML),
    "a tag for a whole number before nothing": ("seeds: !!int", BAD_YAML),
    "a tag for a number before a word": ("seeds: !!float cat", BAD_YAML),
    "a tag for true or false before a word": ("demonstration: !!bool maybe", BAD_YAML),
    "a tag for a time before a word": ("name: !!timestamp now", BAD_YAML),
    "a tag for bytes": ("name: !!binary 4piD", "the tag !!binary is not allowed"),
    "a tag for a set": ("seeds: !!set {1, 2}", "the tag !!set is not allowed"),
    "a tag for pairs": ("data: !!pairs [size: 32]", "the tag !!pairs is not allowed"),
    "a tag for a mapping before a list": ("data: !!map [1]", BAD_YAML),
    # values
    "a day that no month has": ("name: 2024-02-31", BAD_YAML),
    "a time that no day has": ("name: 2024-02-01 25:00:00", BAD_YAML),
    "a whole number of 5,000 digits": ("data: {seed: " + "9" * 5000 + "}", BAD_YAML),
    "a whole number in base 60 of 5,000 digits": ("data: {seed: " + "1" * 4990 + ":30}", BAD_YAML),
    "a whole number in base 2 without digits": ("data: {seed: 0b_}", BAD_YAML),
    "a whole number in base 16 without digits": ("data: {seed: 0x_}", BAD_YAML),
    "not a number": ("data: {test_fraction: .nan}", "data.test_fraction = nan is not allowed"),
    "an endless number": ("data: {test_fraction: .inf}", "data.test_fraction = inf is not allowed"),
    "true in place of a number": ("data: {size: yes}", "data.size = true is not allowed"),
    "a text in place of a number": ("data: {size: big}", "data.size = 'big' is not allowed"),
    "a number in place of a section": ("data: 7", "data = 7 is not allowed"),
    "nothing in place of a section": ("data:", "data = none is not allowed"),
    "a mapping in place of a number": ("data: {size: {a: 1}}", "data.size = {a: 1} is not allowed"),
    "a list in place of a section": ("data: [digits]", "data = ['digits'] is not allowed"),
    "an unknown key": ("dta: {}", "key 'dta' is not known (did you mean 'data'?)"),
    "a kind that is a list": ("synthesis: {subsampling: {kind: [a]}}", "synthesis.subsampling = "),
    "a kind that is a mapping": ("synthesis: {subsampling: {kind: {}}}", "synthesis.subsampling = "),
    "a seed of text": ("seeds: [a]", "seeds.0 = 'a' is not allowed"),
    "an endless seed": ("seeds: [.inf]", "seeds.0 = inf is not allowed"),
    "no seeds": ("seeds: []", "seeds = [] is not allowed"),
    # what a recipe extends
    "extends itself": ("extends: set.yaml", "extends itself through"),
    "extends a list": ("extends: [a, b]", "is neither a ready recipe nor an existing YAML file"),
    "extends a number": ("extends: 7", "recipe '7' is neither a ready recipe nor an existing YAML file"),
    "extends a folder": ("extends: .", "is neither a ready recipe nor an existing YAML file"),
    "extends a name of 5,000 letters": ("extends: " + "x" * 5000 + ".yaml", "is neither a ready recipe"),
    "extends a name with a byte of zero": ('extends: "a\\0.yaml"', "is neither a ready recipe nor an existing YAML"),
    "extends the home of nobody": ("extends: ~nobody-of-this-name/a.yaml", "the home folder of this user is not known"),
}  # fmt: skip

# name -> (content, the place of one setting, its value)
READ: dict[str, tuple[str | bytes, str, object]] = {
    "a byte-order mark": (codecs.BOM_UTF8 + b"seeds: [7]", "seeds", (7,)),
    "line ends of Windows": ("name: a\r\nseeds: [7]\r\n", "seeds", (7,)),
    "line ends of old Macs": ("name: a\rseeds: [7]\r", "seeds", (7,)),
    "JSON": ('{"seeds": [7], "name": "a"}', "seeds", (7,)),
    "nothing": ("", "name", "set"),
    "comments alone": ("# nothing\n", "name", "set"),
    "three dashes first": ("---\nseeds: [7]\n", "seeds", (7,)),
    "an alias used twice": ("seeds: &s [7, 8]\ndescription: *s\n".replace("*s", "x"), "seeds", (7, 8)),
    "a mapping merged into another": ("data: {<<: {size: 32}, size: 64}", "data.size", 64),
    "a whole number with zeros first": ("data: {size: 0100}", "data.size", 100),
    "a text that looks like a time": ("name: 2024-02-01", "name", "2024-02-01"),
    "a text that looks like nothing": ("name: ~", "name", "~"),
    "emoji": ("name: \U0001f600", "name", "\U0001f600"),
}

# overrides on the command line -> part of the sentence
OVERRIDES: dict[str, str] = {
    "": "is not of the form key=value",
    "=1": "is not of the form key=value",
    "data": "is not of the form key=value",
    ".=1": "key '' is not known",
    "data..size=1": "key 'data.' is not known",
    "data.size=[": "is not readable as a YAML value",
    "data.size=*a": "is not readable as a YAML value",
    "data.size=!!python/object:os.system x": "is not readable as a YAML value",
    "data.size=0x_": "is not readable as a YAML value",
    "data.size=!!int x": "is not readable as a YAML value",
    "seeds=" + "[" * 500: "is not readable as a YAML value",
    "data.size=" + "9" * 5000: "is not readable as a YAML value",
    "data.size=a\tb": "is not readable as a YAML value",
    "data.size={a: 1, a: 2}": "is not readable as a YAML value",
    "data.size.x=1": "data.size = {x: 1} is not allowed",
    "seeds.0=1": "seeds = {0: 1} is not allowed",
}
