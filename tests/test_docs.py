"""README and docs are true: links lead somewhere, flags and fields exist, the site builds."""

import ast
import dataclasses
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import COMMANDS, loaded
from tests.docs_pages import (
    DOCS,
    ROOT,
    blocks,
    shell_commands,
    without_blocks,
    written_pages,
)
from vemseg_jax.config import ExperimentConfig
from vemseg_jax.models.registry import MODELS

# ml_collections loads configuration files that way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

PAGES = written_pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*?)\s*$", re.MULTILINE)
_FLAG = re.compile(r"(?<![\w-])--(?:\[no\])?([a-z]\w*(?:\.\w+)*)")
# Flags of other programs: pip, pytest, mkdocs, ruff, srun, sbatch and dask.
FOREIGN = {
    *("strict", "check", "dist", "help", "helpfull", "force"),
    *("nodes", "ntasks", "gpus", "cpus", "time", "kill", "array", "mem", "scheduler"),
    "xla_cpu_experimental_ynn_fusion_type",
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A folder with the pages that `docs/generate.py` writes."""
    folder = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, DOCS / "generate.py", folder], check=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def known_flags():
    """Command -> names of its flags."""
    found = {}
    for name in COMMANDS:
        with loaded(name):
            from vemseg_jax.cli.help import own_flags

            found[name] = {flag.name for flag in own_flags()}
    return found


@pytest.fixture(scope="module")
def benchmark_flags():
    text = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    return set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))


def fields_of(config):
    """`config.group.name` of every field of an experiment, whatever its network."""
    found = {"config"}
    for group in dataclasses.fields(config):
        found.add(f"config.{group.name}")
        part = getattr(config, group.name)
        if dataclasses.is_dataclass(part):
            found |= {f"config.{group.name}.{f.name}" for f in dataclasses.fields(part)}
    for entry in MODELS.values():
        found |= {f"config.model.{field.name}" for field in dataclasses.fields(entry.config)}
    return found


def anchors(text):
    """The names by which a page's headings are linked, as Markdown makes them."""
    found = set()
    for heading in _HEADING.findall(without_blocks(text)):
        plain = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page, generated):
    for link in _LINK.findall(without_blocks(page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() and target.is_relative_to(DOCS):
            target = generated / target.relative_to(DOCS)
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_flags_and_fields_exist(page, known_flags, benchmark_flags):
    text = page.read_text(encoding="utf-8")
    fields = fields_of(ExperimentConfig(model=None))
    everywhere = set().union(*known_flags.values())
    for flag in _FLAG.findall(text):
        if flag.startswith("config.") and not flag.startswith(("config.x", "config.GROUP")):
            assert flag in fields, f"{page.name}: --{flag}"
            continue
        name = flag.removeprefix("no") if flag.removeprefix("no") in everywhere else flag
        assert name in everywhere | benchmark_flags | FOREIGN, f"{page.name}: --{flag}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_have_their_flags(page, known_flags):
    """Every flag in a block of commands belongs to the command that it is given to."""
    for words in shell_commands(page.read_text(encoding="utf-8"), "sh", "bash"):
        at = [n for n, word in enumerate(words) if Path(word).name in known_flags]
        if not at or "pip" in words:
            continue
        name = Path(words[at[0]]).name
        for word in words[at[0] + 1 :]:
            if not word.startswith("--"):
                continue
            flag = word.removeprefix("--").partition("=")[0]
            own = known_flags[name] | {f"no{each}" for each in known_flags[name]} | {"help"}
            assert flag.startswith("config.") or flag in own, f"{page.name}: {name} {word}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_exist(page):
    """Paths of the repository in code, such as `benchmarks/results/cpu`."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    for path in re.findall(r"`((?:vemseg_jax|benchmarks|tests|configs|docs)/[\w/.-]*)`", text):
        assert "NAME" in path or (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_in_python_exist(page):
    """What blocks of Python import, and what the Python reference shows."""
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    shown = re.findall(r"^::: ([\w.]+)\n    options:\n      members: \[(.*?)\]", text, re.MULTILINE)
    names += [f"{module}.{name}" for module, members in shown for name in members.split(", ")]
    for block in blocks(text, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("vemseg_jax"):
                names += [f"{node.module}.{each.name}" for each in node.names]
    for name in names:
        assert pkgutil.resolve_name(name) is not None


def test_every_flag_is_in_the_reference(generated, known_flags):
    text = (generated / "reference" / "commands.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (vemseg-[\w-]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert sections.keys() == COMMANDS.keys()
    for name, own in known_flags.items():
        heads = re.findall(r"^`--(?:\[no\])?(\w+)[=`]", sections[name], re.MULTILINE)
        assert set(heads) == own and len(heads) == len(own)
        assert len(re.findall(r"^:   \S", sections[name], re.MULTILINE)) == len(own)


def test_every_field_is_explained(generated):
    text = (generated / "reference" / "configuration.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--([\w.]+)` \| `.*?` \| (.*?) \|$", text, re.MULTILINE)
    expected = {f for f in fields_of(ExperimentConfig(model=None)) if f.count(".") == 2}
    assert {name for name, _ in rows} == expected
    assert [name for name, meaning in rows if not meaning] == []
    for path in (ROOT / "configs").glob("*.py"):
        assert f"### --config={path.stem}\n" in text


def test_generated_pages_follow_from_the_code_alone(generated, tmp_path):
    subprocess.run([sys.executable, DOCS / "generate.py", tmp_path], check=True, cwd=tmp_path)
    for page in generated.rglob("*.md"):
        assert page.read_text() == (tmp_path / page.relative_to(generated)).read_text()


def test_every_page_is_in_the_contents(generated):
    contents = set(re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert contents == pages | {str(p.relative_to(generated)) for p in generated.rglob("*.md")}


def test_the_site_builds_and_needs_no_network(tmp_path):
    packages = ("mkdocs", "material", "mkdocstrings")
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}/site"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"?([^\s\">]+)", text)
        loads += re.findall(r"<link[^>]*\bhref=\"?([^\s\">]+)", text)
        assert [url for url in loads if re.match(r"(https?:)?//", url)] == [], page
    api = (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")
    assert "predict_volume" in api and "open_volume" in api
