"""What the Makefile's targets call, as `make -n` prints it."""

import os
import shutil
import subprocess

import pytest
from conftest import ROOT


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
@pytest.mark.parametrize("user", ["0", "1000"])
def test_make_lab_serves_the_whole_repository_to_whoever_starts_it(user, tmp_path):
    """JupyterLab refuses to run as root, in a container say, unless it is told to."""
    whoami = tmp_path / "id"
    whoami.write_text(f"#!/bin/sh\necho {user}\n")
    whoami.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["make", "-n", "lab"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert f'jupyter lab --ServerApp.root_dir="{ROOT}"' in done.stdout
    assert ("--allow-root" in done.stdout) == (user == "0")


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_help_lists_every_target_that_says_what_it_does():
    command = ["make", "--no-print-directory", "help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = [
        line.split(":")[0].ljust(14) + line.split("## ")[1]
        for line in (ROOT / "Makefile").read_text().splitlines()
        if "  ## " in line
    ]
    assert len(said) > 15
    assert done.stdout.splitlines()[: len(said)] == said
