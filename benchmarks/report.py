"""Tables and plots of a folder of results, as Markdown.

    python benchmarks/report.py --results=benchmarks/results/cpu

Reads every `*.json` that `run_all.py` left there and writes `README.md` and `*.png` beside them.
What `NOTES.md` there says goes to the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from recording import load_result

from vemseg_jax.errors import InputError
from vemseg_jax.eval.report import render_table
from vemseg_jax.paths import local_path

_RESULTS = flags.DEFINE_string("results", None, "Folder with JSON files.", required=True)

METHODS = {"supervised": "", "cps": "SSL-", "cps_cutmix": "SSL+CutMix-"}
KINDS = {
    "batch": ("crops in a batch", 1, "time in proportion"),
    "crop": ("side of a crop, pixels", 2, "time in proportion to pixels"),
    "devices": ("devices that share a batch", -1, "time shared evenly"),
    "inference": ("side of a slice, pixels", 2, "time in proportion to pixels"),
}
Rows = list[dict[str, Any]]
NOTES = "NOTES.md"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10**digits else f"{rounded:.{digits}g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _between(step: Mapping[str, float], unit: float = 1.0) -> str:
    return f"{_number(step['low'] * unit)} to {_number(step['high'] * unit)}"


def _name(row: Mapping[str, Any]) -> str:
    depth = f", depth {row['encoder_depth']}" if row.get("encoder_depth") else ""
    forms = [form for form in (row.get("statistics"),) if form == "merged"]
    forms += [form for form in ("vmapped", "profiled") if row.get(form)]
    count = row.get("steps_per_dispatch", 1)
    forms += [f"{count} steps a dispatch"] if count > 1 else []
    suffix = f" ({', '.join(forms)})" if forms else ""
    device = f" on {row['device']}" if row.get("device") else ""
    return f"{METHODS[row['method']]}{row['network']}{depth}{suffix}{device}"


def _on(result: Mapping[str, Any]) -> str:
    """Says the device where a folder holds results of several."""
    return f" on {result['on']}" if result.get("on") else ""


def _intensity(row: Mapping[str, Any]) -> float | None:
    """FLOPs for each byte that the compiled step reads or writes."""
    flops, moved = row["flops"], row["bytes_accessed"]
    return flops / moved if moved else None


def table_1(rows: Iterable[Mapping[str, Any]]) -> str:
    """Parameters, step, memory and training time of a volume."""
    cells = []
    for row in rows:
        what = {
            "network": _name(row),
            "type": row["precision"],
            "batch x crop": f"{row['batch']} x {row['crop']}",
        }
        if "failed" in row:
            cells.append({**what, "step, s": f"failed: {row['failed']}"})
            continue
        step = row["step_seconds"]
        memory = row["memory_device_peak_gib"] or row["memory_planned_gib"]
        hours = f"{_number(row['volume_hours'])}{'*' if row['extrapolated'] else ''}"
        cells.append(
            {
                **what,
                "parameters": f"{row['parameters']:,}",
                "trained": f"{row['parameters_trained']:,}",
                "step, s": _number(step["median"]),
                "quartiles": _between(step),
                "steps a volume": f"{row['schedule_steps']:,}",
                "volume, h": hours,
                "compilation, s": _number(row["compile_seconds"]),
                "memory, GiB": _number(memory),
                "GFLOP a step": _number(row["flops"] / 1e9),
                "FLOP a byte": _number(_intensity(row)),
                "of a matrix product": _share(row["share_of_matmul"]),
                "of the data sheet": _share(row["share_of_datasheet"]),
                "of the roofline": _share(row["share_of_roofline"]),
            }
        )
    names = list(dict.fromkeys(name for cell in cells for name in cell))
    filled = [name for name in names if any(cell.get(name) for cell in cells)]
    return render_table([{name: cell.get(name, "") for name in filled} for cell in cells])


def peer_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Torch beside jax; what failed says so."""
    cells = []
    for row in rows:
        failed = row.get("failed")
        seconds = f"failed: {failed}" if failed else _number(row["step_seconds"]["median"])
        cells.append(
            {
                "network": _name(row),
                "framework": row["framework"],
                "type": row["precision"],
                "batch x crop": f"{row['batch']} x {row['crop']}",
                "step, s": seconds,
                "quartiles": "" if failed else _between(row["step_seconds"]),
                "first step, s": "" if failed else _number(row["compile_seconds"]),
                "memory, GiB": "" if failed else _number(row["memory_device_peak_gib"]),
                "parameters": "" if failed else f"{row['parameters']:,}",
                "version": row.get("version", ""),
                "jax takes, of it": _number(row.get("jax_over_peer")),
            }
        )
    return render_table(cells)


def _inference(results: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        {
            "network": f"{result['settings']['network']}{_on(result)}",
            "way": row["way"],
            "type": result["settings"]["precision"],
            "slice": " x ".join(map(str, result["settings"]["size"])),
            "s a slice": _number(row["seconds_a_slice"]["median"]),
            "quartiles": _between(row["seconds_a_slice"]),
            "times as fast": _number(row["faster"]),
        }
        for result in results
        for row in result["rows"]
    ]
    return render_table(cells)


def _loading(rows: Rows) -> str:
    crops = [
        {
            "crops": row["way"],
            "crops a second": _number(row["crops_per_second"]["median"]),
            "times the plain reader": _number(row["ratio"]),
        }
        for row in rows
        if row["part"] == "crops"
    ]
    steps = [
        {
            "step with": row["way"],
            "s": _number(row["step_seconds"]["median"]),
            "times the constant batch": f"{row['ratio']:.3f}",
        }
        for row in rows
        if row["part"] == "step"
    ]
    memory = [
        {"peak memory of streaming": row["way"], "GiB": _number(row["peak_gib"])}
        for row in rows
        if row["part"] == "memory"
    ]
    return "\n\n".join(render_table(table, left=1) for table in (crops, steps, memory) if table)


def _convolutions(result: Mapping[str, Any]) -> str:
    keys = ("forward", "input_gradient", "kernel_gradient")
    cells = []
    for row in result["rows"]:
        what, way = row["what"].rsplit("  ", 1)
        times = {f"{key.replace('_', ' ')}, ms": _number(row[key]) for key in keys}
        kind = result["settings"]["precision"]
        cells.append({"convolution": f"{what}{_on(result)}", "way": way, "type": kind, **times})
    return render_table(cells)


def plot_scaling(path: Path, rows: Rows) -> None:
    """One panel a kind: measured times with their quartiles, and the ideal from the first on."""
    rows = [row for row in rows if "seconds" in row]
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    figure = Figure(figsize=(4.2 * len(kinds), 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        label, power, ideal = KINDS[kind]
        chosen = [row for row in rows if row["kind"] == kind]
        at = [row["at"] for row in chosen]
        median = [row["seconds"]["median"] for row in chosen]
        below = [m - row["seconds"]["low"] for m, row in zip(median, chosen, strict=True)]
        above = [row["seconds"]["high"] - m for m, row in zip(median, chosen, strict=True)]
        ax.errorbar(at, median, [below, above], marker="o", capsize=3, label="measured")
        expected = [median[0] * (x / at[0]) ** power for x in at]
        ax.plot(at, expected, "--", color="0.5", label=ideal)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set_xticks(at, [str(x) for x in at])
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        ax.minorticks_off()
        ax.set_xlabel(label)
        ax.set_ylabel("seconds a slice" if kind == "inference" else "seconds a step")
        ax.grid(color="0.92")
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _machine(found: Mapping[str, Any]) -> str:
    where = f"{found['devices']} x {found['device']}"
    if found["platform"] == "cpu":
        where = f"{found['processor']}, {found['cores']} cores"
    commit = f" at {found['commit']}" if found.get("commit") else ""
    return (
        f"{where}, {found['memory_gib']} GiB; jax {found['jax']}, Python {found['python']}, "
        f"vemseg_jax {found['vemseg_jax']}{commit}; {found['date']}"
    )


def render(folder: Path) -> str:
    """The Markdown of a folder; writes the plots it refers to."""
    results = {path.stem: load_result(path) for path in sorted(folder.glob("*.json"))}
    if not results:
        raise InputError(f"--results={folder} holds no *.json; make some with run_all.py")

    def of(benchmark: str) -> list[dict[str, Any]]:
        return [r for r in results.values() if r["benchmark"] == benchmark and r["rows"]]

    machines = dict.fromkeys(_machine(result["machine"]) for result in results.values())
    parts = ["# Benchmarks", "  \n".join(machines)]
    parts += [
        f"**{name} failed**, {result['failed']} (`{result['command']}`)"
        for name, result in results.items()
        if "failed" in result
    ]
    devices = {result["machine"]["device"] for result in results.values()}
    if len(devices) > 1:
        for result in results.values():
            result["on"] = result["machine"]["device"]
    rows = [
        row | ({"device": result["on"]} if "on" in result else {})
        for result in of("train_time")
        for row in result["rows"]
    ]
    ours = [row for row in rows if row["framework"] == "jax"]
    beside = [row for row in rows if row["framework"] != "jax"]
    if ours:
        parts += ["## Training time (Table 1 of the paper)", table_1(ours), TABLE_1_NOTES]
    if beside:
        parts += ["## torch beside it", peer_table(beside), PEER_NOTES]
    if of("inference"):
        parts += ["## Inference", _inference(of("inference")), INFERENCE_NOTES]
    if of("data_loading"):
        parts += [
            "## Data",
            LOADING_NOTES,
            *(_loading(result["rows"]) for result in of("data_loading")),
        ]
    for name, result in results.items():
        if result["benchmark"] == "scaling" and result["rows"]:
            what = f"{Path(result['settings']['config']).stem}, {result['settings']['precision']}"
            parts.append(f"## Scaling: {what}")
            if any("seconds" in row for row in result["rows"]):
                plot_scaling(folder / f"{name}.png", result["rows"])
                parts.append(f"![Scaling of {what}]({name}.png)")
            parts += [
                f"{row['kind']} {row['at']} failed: {row['failed']}"
                for row in result["rows"]
                if "failed" in row
            ]
    if of("convolutions"):
        parts.append("## Convolutions")
        parts += [_convolutions(result) for result in of("convolutions")]
    notes = folder / NOTES
    parts += [notes.read_text(encoding="utf-8").strip()] if notes.exists() else []
    return "\n\n".join(parts) + "\n"


TABLE_1_NOTES = """Medians and quartiles of warm steps: cutting crops, forward, losses, backward, \
clip, update. "Trained" counts both networks of a pair. Memory: peak of the device where it tells, \
else what the compiled step plans. FLOPs: those of the network's convolutions and matrix \
products, whatever the platform makes of them (grouped convolutions without the zeros that a CPU \
multiplies by); bytes: what the compiled step reads and writes, caches or not, the bodies of loops \
once, so that FLOP a byte is too high on CPUs, whose kernel gradients are loops. "Of a matrix \
product": the share of what a large one reaches in the same type on the same device. \
"Of the roofline": the least time by the data sheet's products and memory, of the time measured.

`*` not run at the batch and crop of the paper's schedule: extrapolated in proportion to pixels, \
which is too much where larger crops take less for each pixel (see the scaling)."""
PEER_NOTES = """The same network of segmentation_models_pytorch with the same batch, crop, losses, \
clip and Adam, in the same process right before ours. Below 1, jax is faster. Our step also cuts \
and turns its crops and takes metrics; torch has one constant batch. torch counts layers of \
the encoder that the forward pass never reaches, and keeps what it compiled from run to run."""

INFERENCE_NOTES = """"Reference's scheme": windows of 2048 pixels at every 512, each brought to \
the training scale and back by itself, averaged. "Window full": the same numbers, with each slice \
shrunk once and averages taken on the device. "Window": training scale throughout. "Whole": a \
slice passes once."""
LOADING_NOTES = """The plain reader opens the TIFF files of a slice and its label for every crop, \
as the reference's data loader does (deflated files: it inflates them each time)."""


def main(argv: list[str]) -> None:
    """Writes `README.md` and the plots."""
    del argv
    folder = local_path(_RESULTS.value, flag="--results")
    (folder / "README.md").write_text(render(folder), encoding="utf-8")
    print(f"done: {folder / 'README.md'}")


if __name__ == "__main__":
    app.run(main)
