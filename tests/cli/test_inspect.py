"""The table's arithmetic."""

from lowgemm.cli.inspect import rows


def test_rates_and_shares() -> None:
    steps = [
        {"layer": "conv1", "kernel": "qconv", "shape": (1, 8), "macs": 3_000_000, "seconds": 60e-6},
        {"layer": "pack", "kernel": "transpose", "shape": (1, 2, 4), "macs": 0, "seconds": 20e-6},
    ]
    # 2 * 3e6 operations in 60 us are 100 GOPS, half of the peak; in 80 us they are 75.
    assert rows(steps, peak=200.0) == [
        ("conv1", "qconv", "1x8", "3.000", "60.0", "75.0%", "100.0", "50.0%"),
        ("pack", "transpose", "1x2x4", "", "20.0", "25.0%", "", ""),
        ("total", "", "", "3.000", "80.0", "100.0%", "75.0", "37.5%"),
    ]


def test_nothing_to_divide_by() -> None:
    steps = [{"layer": "a", "kernel": "copy", "shape": (), "macs": 0, "seconds": 0.0}]
    assert rows(steps, peak=200.0)[0] == ("a", "copy", "", "", "0.0", "", "", "")


def test_peak_that_is_not_known() -> None:
    steps = [
        {"layer": "a", "kernel": "qconv", "shape": (1, 8), "macs": 1_000_000, "seconds": 20e-6}
    ]
    assert rows(steps, peak=None)[0] == (
        "a",
        "qconv",
        "1x8",
        "1.000",
        "20.0",
        "100.0%",
        "100.0",
        "",
    )
