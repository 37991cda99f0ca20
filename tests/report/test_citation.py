"""The page and CITATION.cff name the same paper and the same authors."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from cgankd.report import citation

CFF = Path(__file__).parents[2] / "CITATION.cff"


def field(entry: str, name: str) -> str:
    (value,) = re.findall(rf"^  {name} *= {{(.*?)}},?$", entry, re.M | re.S)
    return " ".join(value.replace("{", "").replace("}", "").split())


def test_the_page_and_the_file_agree() -> None:
    known = yaml.safe_load(CFF.read_text(encoding="utf-8"))
    paper = known["preferred-citation"]
    assert known["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(known)
    assert field(citation.PAPER, "title") == paper["title"]
    authors = [f"{person['family-names']}, {person['given-names']}" for person in paper["authors"]]
    assert field(citation.PAPER, "author").split(" and ") == authors
    assert field(citation.PAPER, "year") == str(paper["year"])
    assert [entry["value"] for entry in paper["identifiers"]] == [f"arXiv:{field(citation.PAPER, 'eprint')}"]
    software = citation.software("1.2.3")
    assert field(software, "title") == known["title"]
    assert field(software, "author") == known["authors"][0]["name"]
    assert field(software, "version") == "1.2.3"
