"""A run's name stays under runs/."""

import pytest

from common.errors import UserError
from common.launch import check_name
from tests.conftest import ROOT, run_script


@pytest.mark.parametrize("name", ["../..", "/tmp/x", "a/../../b", "~/x", "good,../bad", "'../x'", "", "."])
def test_a_name_that_leaves_runs_is_refused(name):
    with pytest.raises(UserError, match=r"must stay under runs/.*workdir=FOLDER"):
        check_name(["model=bert_tiny", f"name={name}"])


def test_other_names_are_accepted():
    check_name(["name=a", "name=a/b,c", "workdir=../x", "tokenizer.name=../x", "+name=az_2.1", "-m"])


def test_it_is_refused_before_a_folder_is_made():
    result = run_script("train.py", "name=../escaped")
    assert result.returncode == 2 and "must stay under runs/" in result.stderr and "Traceback" not in result.stderr
    assert not (ROOT / "escaped").exists()
