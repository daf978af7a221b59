"""Shell completion: scripts for the shell that is named, and answers to what a shell asks."""

import subprocess
import sys

import pytest

from tests.api.processes import COMMAND

NAMED = [sys.executable, "-c", "import sys; sys.argv[0] = 'coalition'; from api.cli import main; main()"]


@pytest.mark.parametrize(
    ("shell", "line"), [("bash", "complete -o default"), ("zsh", "#compdef coalition"), ("fish", "complete --command")]
)
def test_the_script_is_of_the_shell_that_is_named(shell: str, line: str) -> None:
    done = subprocess.run([*NAMED, "--show-completion", shell], capture_output=True, text=True, check=True)
    assert line in done.stdout
    assert f"complete_{shell}" in done.stdout


def test_another_shell_is_refused() -> None:
    done = subprocess.run([*COMMAND, "--show-completion", "tcsh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'tcsh' is not one of" in done.stderr


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("coalition ver", {"verify"}),
        ("coalition client ", {"create", "list", "revoke"}),
        ("coalition pool ", {"create", "join", "leave", "show"}),
        ("coalition unm", {"unmerge"}),
    ],
)
def test_what_was_typed_is_completed_without_the_heavy_parts(typed: str, offered: set[str]) -> None:
    asked = "import sys; sys.argv[0] = 'coalition'; from api.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={"_COALITION_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))},
        capture_output=True,
        text=True,
        check=False,
    )
    *words, modules = done.stdout.splitlines()
    assert set(words) == offered
    assert not {"sqlalchemy", "strawberry", "uvicorn", "structlog", "prometheus_client"} & set(modules.split())
