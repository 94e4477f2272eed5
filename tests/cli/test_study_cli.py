"""The study's binary, as small as it goes."""

import csv
import subprocess
import sys


def _run(output, *arguments):
    command = [sys.executable, "-m", "vemseg_jax.cli.study", f"--output={output}"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


def _states(output):
    with (output / "report" / "runs.csv").open(encoding="utf-8") as file:
        return [row["state"] for row in csv.DictReader(file)]


def test_a_study_is_one_command_and_says_what_is_missing(tmp_path):
    output = tmp_path / "study"
    smoke = ["--preset=smoke", "--methods=UNet", "--budgets=3"]
    before = _run(output, *smoke, "--report_only")
    assert before.returncode == 1 and "4 not run: report in" in before.stdout
    assert set(_states(output)) == {"not run"}

    done = _run(output, *smoke)
    assert done.returncode == 0, done.stderr
    page = output / "report" / "report.html"
    assert done.stdout.splitlines()[-1] == f"done: report in {page}"
    # Two volumes by themselves and each after training on the other, two structures.
    assert _states(output) == ["done"] * 8
    text = (output / "report" / "README.md").read_text(encoding="utf-8")
    assert "4 runs: 4 done, 0 failed, 0 not run." in text and "Trained on other volumes" in text
    assert "These runs are small networks of 3 steps" in text
    html = page.read_text(encoding="utf-8")
    # Figures 2, 4 (of each volume and structure) and 5 are inside.
    assert html.count("<img") == html.count('src="data:image/png;base64,') == 6

    again = _run(output, *smoke, "--report_only")
    assert again.returncode == 0 and "steps" not in again.stderr


def test_flags_that_cannot_be_are_named(tmp_path):
    for flags, said in (
        (["--preset=smoke", "--budgets=seven"], "--budgets=seven: give whole numbers"),
        (["--preset=smoke", "--methods=Nope"], "--methods: found 'Nope'; this study has: UNet"),
        (["--preset=hela"], "--data=None: give the folder with em.tif"),
        (["--preset=paper"], "--volumes: missing"),
    ):
        done = _run(tmp_path / "study", *flags)
        assert done.returncode not in (0, None) and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
