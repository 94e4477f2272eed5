"""The pages a user reads: README, CONTRIBUTING and `docs/`, with those that are generated."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def written_pages() -> list[Path]:
    """README, CONTRIBUTING and every page under `docs/` that is not generated."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(text: str, *languages: str) -> list[str]:
    """The content of fenced blocks in some languages."""
    return [body for language, body in _FENCE.findall(text) if language in languages]


def without_blocks(text: str) -> str:
    """The text alone."""
    return _FENCE.sub("", text)


def shell_commands(text: str, *languages: str) -> list[list[str]]:
    """The commands of a page as a shell reads them, comments and line ends joined away."""
    lines = "\n".join(blocks(text, *languages)).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if not line.startswith("#")]
    return [words for words in found if words]
