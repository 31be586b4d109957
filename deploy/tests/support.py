"""What the tests share: folders, programs, and the command lines that files contain."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent
TERRAFORM = shutil.which("terraform")
SHELLCHECK = os.environ.get("SHELLCHECK", "shellcheck")
FEATURECTL = os.environ.get("FEATURECTL")
SHA = "0123456789abcdef" * 4


def run(*command, **options):
    """Runs a command to its end; stdout and stderr are in the result, together."""
    return subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


def terraform(folder, *arguments):
    """Terraform without the user's configuration and without a question after new versions: it needs no network here."""
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    return run(TERRAFORM, f"-chdir={folder}", *arguments, env=environment)


def parse_env(text):
    """`KEY=value` lines of an environment file, as systemd reads plain ones."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def unit_settings(text):
    """The settings of a unit as (key, value) pairs, in order."""
    pairs = re.findall(r"^([A-Za-z]+)=(.*)$", text, re.MULTILINE)
    return [(key, value.strip()) for key, value in pairs]


def unit_command(unit, env):
    """What systemd runs for a unit with this environment file: `${X}` is one word, `$X` is split."""
    settings = unit_settings(unit)
    values = {}
    for key, value in settings:
        if key == "Environment":
            values.update(word.split("=", 1) for word in value.split())
    values.update(env)
    words = []
    for word in dict(settings)["ExecStart"].split():
        if re.fullmatch(r"\$[A-Z_]+", word):
            words += values.get(word[1:], "").split()
        else:
            words.append(re.sub(r"\$\{([A-Z_]+)\}", lambda match: values[match[1]], word))
    return words


def heredocs(script):
    """The files that a script writes with `cat > FILE <<MARK`, by name."""
    found = re.findall(r"^cat > (\S+) <<'?([A-Z]+)'?\n(.*?)^\2$", script, re.MULTILINE | re.DOTALL)
    return {name: text for name, _, text in found}


def featurectl_commands(text):
    """Command lines of featurectl in a document's console blocks or a script's output."""
    commands = []
    for line in text.splitlines():
        match = re.match(r"^(?:\$ |/usr/local/bin/)(featurectl .*)$", line)
        if match:
            commands.append(shlex.split(match[1], comments=True))
    return commands
