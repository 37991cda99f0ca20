"""How to cite the method and this software; CITATION.cff in the repository says the same."""

from __future__ import annotations

from cgankd.report.blocks import Code, Note, Section

PAPER = """\
@article{ding2021cgankd,
  title         = {Distilling and Transferring Knowledge via {cGAN}-generated Samples for Image Classification and
                   Regression},
  author        = {Ding, Xin and Wang, Yongwei and Xu, Zuheng and Wang, Z. Jane and Welch, William J.},
  year          = {2021},
  eprint        = {2104.03164},
  archiveprefix = {arXiv}
}"""


def software(version: str) -> str:
    """The BibTeX entry of this version."""
    return f"""\
@software{{cgankd,
  title   = {{cgankd: knowledge distillation through conditionally generated images}},
  author  = {{{{The cgankd authors}}}},
  version = {{{version}}}
}}"""


def section(version: str) -> Section:
    """The two entries in one block, which a click or the Tab key and Ctrl-A select as a whole."""
    reading = Note("The method is the paper's; this software is a separate implementation. In BibTeX:")
    return Section("How to cite", "cite", [reading, Code(f"{PAPER}\n\n{software(version)}")])
