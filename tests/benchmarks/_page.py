"""Tables in the documentation that scripts make: each stands between a comment with its marker and `<!-- end -->`."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end -->"


def put_table(page: Path, marker: str, table: str) -> None:
    """Replace the table of `marker`. Raises: SystemExit when the page has none."""
    head, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page.name} has no place for the table {marker!r}")
    page.write_text(f"{head}{begin}{table}{end}{tail}")
    print(f"written: {page.name}, {marker}")


def table_of(page: Path, marker: str) -> str:
    """What stands there now."""
    _, begin, rest = page.read_text().partition(f"<!-- {marker} -->\n")
    assert begin and END in rest, f"{page.name} has no table {marker!r}"
    return rest.partition(END)[0]
