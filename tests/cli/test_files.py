"""A failure leaves nothing half-written."""

import os
import stat
from pathlib import Path

import click
import pytest

from lowgemm.cli._files import check_output, make_folder, replacing


def test_success_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.touch()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == stat.S_IMODE(
        ordinary.stat().st_mode
    )


def test_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="does not exist"):
        check_output(tmp_path / "no" / "a.so", tmp_path / "m.onnx")


def test_folder_as_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="is a folder"):
        check_output(tmp_path, tmp_path / "m.onnx")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(click.BadParameter, match="not writable"):
        check_output(tmp_path / "a.so", tmp_path / "m.onnx")


def test_writing_over_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    with pytest.raises(click.BadParameter, match="is the model itself"):
        check_output(tmp_path / "link.onnx", tmp_path / "m.onnx")


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(click.BadParameter, match="cannot make folder"):
        make_folder(tmp_path / "file" / "below")
