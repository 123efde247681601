"""Columns line up."""

from lowgemm.cli._tables import table


def test_words_left_numbers_right() -> None:
    assert table(["layer", "us"], [["a", "1.0"], ["longer name", "10.0"]], left=1) == [
        "layer          us",
        "a             1.0",
        "longer name  10.0",
    ]
