"""Artefacts say where they come from and are written whole or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dyad import provenance


def test_a_run_card_holds_command_configuration_inputs_and_machine() -> None:
    card = provenance.run_card(command="c", config={"steps": 3}, inputs={"data": "ab"})
    assert (card["command"], card["config"], card["inputs"]) == ("c", {"steps": 3}, {"data": "ab"})
    assert card["machine"]["cores"] >= 1
    assert card["versions"]["numpy"]
    assert card["time_utc"].endswith("+00:00")


def test_a_run_card_is_made_where_there_is_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    card = provenance.run_card(command="c", config={})
    assert card["commit"] == "unknown"
    assert card["uncommitted_changes"] is False


def test_a_run_card_imports_no_torch_to_learn_its_version() -> None:
    code = (
        "import sys; from dyad.provenance import run_card; v = run_card(command='c', config={})['versions']\n"
        "assert v['python'] and not {'torch', 'transformers'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_hashes_of_bytes_and_of_a_file_agree_with_the_standard(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    wanted = hashlib.sha256(b"abc").hexdigest()
    assert provenance.sha256_bytes(b"abc") == provenance.sha256_file(tmp_path / "a") == wanted


def write_half(target: Path) -> None:
    with provenance.atomic_path(target) as part:
        part.write_text("half", encoding="utf8")
        raise RuntimeError


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    provenance.write_json(target, {"n": 1})
    with pytest.raises(RuntimeError):
        write_half(target)
    assert provenance.read_json(target) == {"n": 1}
    assert [p.name for p in target.parent.iterdir()] == ["a.json"]


def test_a_folder_replaces_its_elder_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with provenance.atomic_path(tmp_path / "d") as part:
            part.mkdir()
            (part / content).touch()
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["new"]


def test_a_kill_in_the_middle_leaves_the_old_file_and_the_next_try_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    provenance.write_json(target, 1)
    code = (
        "import os, sys; from dyad.provenance import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert provenance.read_json(target) == 1
    provenance.write_json(target, 2)
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208 - names are all that is wanted


def test_broken_json_is_refused_by_name_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{", encoding="utf8")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON .* restore it"):
        provenance.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.json: no such file"):
        provenance.read_json(tmp_path / "b.json")
