"""A small problem with steps to record: cheap ones, and every way in which steps go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.synthetic import SECTIONS, make_problem, toml_value

# Leaves one run folder, sample by sample, with nothing but the standard library: started in 30 ms.
CHEAP = """
import argparse, json, os, sys, time
from datetime import UTC, datetime
parser = argparse.ArgumentParser()
for name in ("--out", "--preset", "--device"): parser.add_argument(name)
parser.add_argument("--behaviour", default="")
parser.add_argument("--pause", type=float, default=0.0)
given = parser.parse_args()
now = datetime.now(UTC)
folder = f"{given.out}/NAME/cpu-a-2c/{now:%Y%m%dT%H%M%SZ}-0123456-{given.preset}.unfinished"
os.makedirs(folder)
manifest = {
    "schema": "worklog.run/1", "problem": "NAME", "kind": "bench", "revision": "0123456",
    "device": {"kind": "cpu", "slug": "cpu-a-2c"}, "origin": "measured-cpu",
    "machine": {"cpu": "A CPU", "usable_cpus": 2, "virtual": None, "gpus": []},
    "preset": {"name": given.preset, "settings": {"steps": 4}},
    "phases": {"fill": "", "step": "steps"}, "baseline": "plain",
    "variants": {v: {"title": v, "traffic": {}, "role": "compared"} for v in ("plain", "double")},
    "not_applicable": {}, "claims": [], "predictions": json.loads(os.environ["SEALS"]),
    "started": now.isoformat(timespec="seconds"), "status": "unfinished",
}
def write(name, document):
    with open(f"{folder}/{name}.part", "w") as stream: json.dump(document, stream)
    os.replace(f"{folder}/{name}.part", f"{folder}/{name}")
write("manifest.json", manifest)
zero = {"fill": 0.0, "step": 0.0}
write("checks.json", {v: {"passed": True, "relative_error": zero, "top1_agreement": zero,
                          "divergence_nats": zero, "tolerance": 0.1} for v in manifest["variants"]})
if given.behaviour == "out of memory" and given.preset == "small":
    sys.exit("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
if given.behaviour == "refused":
    sys.exit("error: only administrators may read the GPU's counters (ERR_NVGPUCTRPERM)")
if given.behaviour == "fails":
    sys.exit("error: a library of /home/someone/here is broken; install it anew")
samples = os.open(f"{folder}/samples.jsonl", os.O_WRONLY | os.O_CREAT)
for round in range(12):
    for order, (variant, factor) in enumerate((("plain", 1), ("double", 2))):
        for phase, units in (("fill", 1), ("step", 4)):
            os.write(samples, (json.dumps({
                "round": round, "order": order, "variant": variant, "phase": phase,
                "duration_ns": 1000000 * factor * units, "started_ns": 0}) + "\\n").encode())
    print("round", round, flush=True)
    time.sleep(given.pause)
    if given.behaviour == "hangs" and round == 2: time.sleep(600)
write("manifest.json", {**manifest, "status": "finished"})
os.rename(folder, folder.removesuffix(".unfinished"))
"""


def step(name: str, priority: int, *arguments: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "proves": f"what {name} does", "run": "cheap.py", "priority": priority,
        "seconds": {"gpu": 3, "tiny": 3}, "rehearse": {"presets": ["tiny"]},
        "arguments": list(arguments), **more,
    }  # fmt: skip


def make_recordable(
    root: Path, steps: Sequence[Mapping[str, Any]], name: str = "spin", more: str = ""
) -> Path:
    """`make_problem` with a [[record]] table, its script, and a page with the block `recorded`."""
    folder = make_problem(root, name)
    text = (folder / "problem.toml").read_text()
    for row in steps:
        text += "\n[[record]]\n" + "".join(f"{k} = {toml_value(v)}\n" for k, v in row.items())
    (folder / "problem.toml").write_text(text + more)
    (folder / "cheap.py").write_text(CHEAP.replace("NAME", name))
    block = "<!-- worklog:recorded -->\n<!-- /worklog:recorded -->\n"
    words = "".join(f"## {section}\n\nWords.\n\n" for section in SECTIONS)
    (folder / "WORKLOG.md").write_text(f"# Spinning\n\n{words}{block}")
    (root / "README.md").write_text("# Root\n")
    return folder
