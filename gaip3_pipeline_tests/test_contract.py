"""A finished root meets the data contracts (docs/data-contracts.md), checked by code that is
independent of the project.
"""

import subprocess
import sys
from pathlib import Path

RULES = Path(__file__).with_name("contract.py")


def test_a_finished_root_breaks_no_rule(finished_root):
    threshold = "0.5"  # of the tiny preset
    done = subprocess.run(
        [sys.executable, str(RULES), str(finished_root.path), "--threshold", threshold],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.rstrip().endswith("0 broken"), done.stdout + done.stderr


def test_a_broken_root_is_noticed(root_copy):
    next(root_copy.final.iterdir()).unlink()
    done = subprocess.run(
        [sys.executable, str(RULES), str(root_copy.path), "--threshold", "0.5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BROKEN final/ is the rule's set" in done.stdout
    assert done.returncode == 1
