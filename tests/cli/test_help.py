"""Every command explains itself: each flag, its default, and examples that can be typed."""

import shlex
import subprocess
import sys

import pytest
from absl import flags

from tests.cli.commands import COMMANDS, ROOT, loaded
from vemseg_jax.commands import WIDTH

# ml_collections loads configuration files that way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def page(module):
    from vemseg_jax.cli.help import help_text

    return help_text(module.__name__, module.__doc__)


def entry_of(text, flag):
    """The lines of a flag: the head and what is indented below it."""
    lines = text[text.index("\nFlags:\n") :].splitlines()
    head = f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}="
    found = [n for n, line in enumerate(lines) if f"{line} ".startswith(head)]
    assert len(found) == 1, flag.name
    n = found[0] + 1
    while n < len(lines) and lines[n].startswith(" " * 6):
        n += 1
    return lines[found[0] : n]


def test_twelve_commands():
    assert len(COMMANDS) == 12


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_help_and_default(name):
    with loaded(name) as module:
        from vemseg_jax.cli.help import explanation, is_required, own_flags

        text = page(module)
        defined = flags.FLAGS.flags_by_module_dict()[module.__name__]
        own = own_flags()
        assert {f.name for f in defined} <= {f.name for f in own}
        # In the order in which they are defined, and none of absl's.
        heads = [line.split("=")[0].split()[0] for line in text.splitlines() if line[:4] == "  --"]
        heads = [h.replace("[no]", "") for h in heads if not h.startswith("--config.")]
        assert heads == [f"--{f.name}" for f in own]
        for flag in own:
            head, *said = entry_of(text, flag)
            assert " ".join(said).split() == explanation(flag).split() != []
            if is_required(flag):
                assert "(required" in head
            elif flag.default in (None, "", []):
                assert "(default: none" in head or "default" in " ".join(said)
            elif not flag.boolean and not isinstance(flag.default, list | tuple):
                assert (
                    f"(default: {flag.default}" in head.replace(".0)", ")")
                    or "1e" in head
                    or (f"(default: {flag.default:g}" in head)
                )
        assert max(map(len, text.splitlines())) <= WIDTH
        assert "repeat this option" not in text and "logtostderr" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name, monkeypatch):
    """The flags of every example exist and take their values."""
    with loaded(name) as module:
        from vemseg_jax.cli.examples import EXAMPLES

        text = page(module)
    assert EXAMPLES[name]
    for comment, example in EXAMPLES[name]:
        assert f"  # {comment}\n" in text
        with loaded(name):
            from vemseg_jax.cli.config_files import with_config_files

            argv = with_config_files([name, *shlex.split(example)])
            # Where ml_collections looks for fields; this process is no command of its own.
            monkeypatch.setattr(sys, "argv", [__file__, *argv[1:]])
            assert len(flags.FLAGS(argv)) <= 2


def test_examples_in_the_page_are_what_a_shell_reads():
    with loaded("vemseg-train") as module:
        text = page(module)
    block = text[text.index("Examples:") : text.index("\nFlags:")]
    commands = [c for c in block.replace("\\\n", " ").splitlines() if "--workdir" in c]
    words = [word for c in commands for word in shlex.split(c)]
    assert "--config.data.structures=('nuclei','nucleoli')" in words


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--voxelsize=1"], "is it --voxel_size?"),
        (["--voxel-size=1"], "is it --voxel_size?"),
        (["--image=x"], "is it --images?"),
        (["--nooverwrit"], "is it --overwrite?"),
        (["--zzz"], "there is no such flag; --help"),
        ([], "--images, --output: missing"),
        (["--output=x"], "--images: missing. Folder of"),
        (["--images=x", "--output=y", "--downsample=2"], "--downsample=2: must be one of 4, 1"),
        (["--images=x", "--output=y", "--ignore_dilation=a"], "must be a whole number"),
        (["--images=x", "--output=y", "--overwrite=maybe"], "write --overwrite or --nooverwrite"),
    ],
)
def test_flags_that_cannot_be_used(argv, message):
    with loaded("vemseg-convert"):
        from vemseg_jax.cli.flag_errors import flag_message

        flags.FLAGS.unparse_flags()
        with pytest.raises(flags.Error) as error:
            flags.FLAGS(["vemseg-convert", *argv])
        text = flag_message(error.value)
    assert message in text and "\n" not in text and "None" not in text


def test_a_field_of_another_type(monkeypatch):
    with loaded("vemseg-train"):
        from vemseg_jax.cli.config_files import with_config_files
        from vemseg_jax.cli.flag_errors import flag_message

        argv = ["vemseg-train", "--config=small_unet", "--config.train.steps=many", "--workdir=x"]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(flags.Error) as error:
            flags.FLAGS(with_config_files(argv))
        assert "--config.train.steps=many: must be a whole number" in flag_message(error.value)


def test_every_field_of_a_configuration_is_explained():
    import dataclasses

    from vemseg_jax.cli.config_help import field_docs
    from vemseg_jax.config import ExperimentConfig

    for part in vars(ExperimentConfig(model=None)).values():
        if part is not None:
            assert {f.name for f in dataclasses.fields(part)} == set(field_docs(type(part)))


def test_an_experiment_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    from vemseg_jax.cli.config_files import config_file, with_config_files
    from vemseg_jax.errors import InputError

    monkeypatch.chdir(tmp_path)
    unet = ROOT / "configs" / "unet.py"
    assert [config_file(n) for n in ("unet", "unet.py", "configs/unet.py")] == [unet] * 3
    assert with_config_files(["x", "--config", "unet"]) == ["x", "--config", str(unet)]
    (tmp_path / "unet.py").touch()
    assert config_file("unet.py") == tmp_path / "unet.py"
    argv = ["x", "--config=./unet.py:big", "--config.train.steps=3", "--", "--config=unet"]
    kept = ["--config.train.steps=3", "--", "--config=unet"]
    assert with_config_files(argv) == ["x", f"--config={tmp_path / 'unet.py'}:big", *kept]
    with pytest.raises(InputError, match="small_unet"):
        config_file("mine.py")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_a_process(tmp_path, word):
    command = [sys.executable, "-m", "vemseg_jax.cli.view", "--layout=xy", word]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("vemseg-view") and "\n  --layers=" in done.stdout
