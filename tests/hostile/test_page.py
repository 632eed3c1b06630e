"""The reviewed page of hostile input is the tables that the tests run."""

from __future__ import annotations

from page import PAGE, page


def test_the_page_lists_exactly_the_cases_of_the_tables():
    """Whoever adds a case writes the page anew, so that it is seen in review."""
    assert page() == PAGE.read_text("utf-8"), "run: python tests/hostile/page.py"
