"""Pictures that are drawn only where they show something."""

from __future__ import annotations

from cgankd.report import curves


def test_acceptance_is_drawn_where_something_was_rejected() -> None:
    def labels(*accepted: int) -> list[dict[str, object]]:
        return [{"label": str(n), "generated": 10, "accepted": count} for n, count in enumerate(accepted)]

    assert curves.acceptance([]) is None
    assert curves.acceptance(labels(10, 10)) is None
    assert curves.acceptance([{"label": "a", "generated": 0, "accepted": 0}]) is None
    drawn = curves.acceptance(labels(10, 9))
    assert drawn is not None
    assert drawn[1] is False
