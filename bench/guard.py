"""The regression guard: counts the instructions of the hot path and compares them with a committed baseline. `make guard`, and CI.

    python -m bench.guard [NAME …] [--profile FOLDER]     compare; status 1 when something takes more than 5 % more
    python -m bench.guard --renew                         write bench/baseline.toml anew

It runs `bench.counted` under `valgrind --tool=callgrind`, in two processes, and reads the counts out of what callgrind wrote at the marks.
Instructions are no time, but unlike time they are the same on a busy machine, within 0.2 % from run to run. Counts of different tools
cannot be compared: then it says so, compares nothing, and fails if the variable CI is `true`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TextIO

from bench.baseline import (
    RENEW,
    TOLERANCE_PERCENT,
    Baseline,
    BaselineUnreadable,
    compare,
    differing_tools,
    read,
    tools_here,
    write,
)
from bench.counted import BENCHES, MARK

ROOT: Final = Path(__file__).resolve().parent.parent
BASELINE: Final = ROOT / "bench" / "baseline.toml"
TIMEOUT_S: Final = 600
FUNCTIONS_SHOWN: Final = 12
# Copies by `rep movsb` count one instruction a byte and would hide everything else; one arena, so that threads do not change where
# memory comes from.
TUNABLES: Final = "glibc.cpu.x86_rep_movsb_threshold=0x7fffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffff:glibc.malloc.arena_max=1"
_FUNCTION = re.compile(r"^(c?fn)=\((\d+)\)(?: (.*))?$")
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class CannotCount(Exception):
    """Something that counting needs is missing or has failed; the text says what."""


def count(names: Sequence[str], folder: Path) -> dict[str, float]:
    """Instructions an operation of the named benches; what callgrind wrote stays in `folder`. Raises CannotCount."""
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is not installed (apt-get install valgrind)")
    preload = folder / "fixed_random.so"
    compiled = subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(preload), str(ROOT / "bench" / "fixed_random.c")], capture_output=True, text=True
    )
    if compiled.returncode:
        raise CannotCount(f"bench/fixed_random.c does not compile: {compiled.stderr.strip()}")
    # Those of a whole node in a process of their own: they take longest, and their heap is then not the others'.
    parts = [[name for name in names if name.startswith("channel_") is whole] for whole in (True, False)]
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda part: count_part(part, folder, preload), [part for part in parts if part])
        found = {name: instructions for part in counted for name, instructions in part.items()}
    return {name: found[name] for name in names}


def count_part(names: Sequence[str], folder: Path, preload: Path) -> dict[str, float]:
    """One process of valgrind."""
    out = folder / f"{names[0]}.out"
    runs_file = folder / f"{names[0]}.json"
    command = ["valgrind", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={out}", "--dump-line=no"]
    command += [sys.executable, "-m", "bench.counted", str(runs_file), *names]
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "LD_PRELOAD": str(preload),
        "GLIBC_TUNABLES": TUNABLES,
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(ROOT),
    }
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CannotCount(f"counting took longer than {TIMEOUT_S} s") from None
    if done.returncode or not runs_file.exists():
        raise CannotCount(f"valgrind or a bench failed:\n{done.stderr[-4000:]}")
    # Two marks a run, two runs a bench: every second dump is what a run took.
    dumps = [Path(f"{out}.{number}") for number in range(2, 4 * len(names) + 1, 2)]
    return from_dumps(json.loads(runs_file.read_text()), [total(dump) for dump in dumps if dump.exists()])


def total(dump: Path) -> int:
    """All instructions of one of callgrind's dumps."""
    found = _TOTALS.search(dump.read_text())
    if found is None:
        raise CannotCount(f"callgrind's file {dump} has no totals")
    return int(found[1])


def from_dumps(runs: Sequence[Mapping[str, str | int]], totals: Sequence[int]) -> dict[str, float]:
    """Instructions an operation: what the second, longer run of each bench took more than the first. Raises CannotCount."""
    if len(totals) != len(runs):
        raise CannotCount(f"callgrind saw {len(totals)} runs of {len(runs)}: is bench/mark.pyx built, with its symbols?")
    found = {}
    for number in range(0, len(runs), 2):
        short, long = runs[number], runs[number + 1]
        more = totals[number + 1] - totals[number]
        found[str(short["bench"])] = more / (int(long["operations"]) - int(short["operations"]))
    return found


def verdict(baseline: Baseline, counts: Mapping[str, float], out: TextIO) -> bool:
    """Print what is to be said of the counts; whether the change may go in."""
    found = compare(baseline, counts, BENCHES)
    for sentence in found.worse:
        print(f"WORSE   {sentence}", file=out)
    for sentence in found.unknown:
        print(f"UNKNOWN {sentence}", file=out)
    for sentence in found.better:
        print(f"better  {sentence}", file=out)
    if found.worse:
        print(
            f"\nMore than {TOLERANCE_PERCENT:g} % is not taken in silence. `python -m bench.guard --profile FOLDER NAME` shows where.",
            file=out,
        )
        print(f"If it is worth it: {RENEW}, and say why in the commit that changes bench/baseline.toml.", file=out)
    elif found.unknown:
        print(f"\nRenew the baseline with the change that brings or removes a bench: {RENEW}", file=out)
    elif found.better:
        print(f"\nRenew the baseline, so that it is kept: {RENEW}", file=out)
    else:
        print(f"{len(counts)} benches within {TOLERANCE_PERCENT:g} % of the baseline", file=out)
    return found.passed


def refuse_other_tools(differing: Sequence[str], strict: bool, out: TextIO) -> None:
    print("NOT COMPARED: the baseline was counted with other tools, and counts of two compilers are apples and pears.", file=out)
    for line in differing:
        print(f"    {line}", file=out)
    print(f"To compare a change here: {RENEW} before it (do not commit that), make guard after it.", file=out)
    if strict:
        print(f"CI=true: this fails. Renew the baseline in the image of CI: {RENEW}, and commit bench/baseline.toml.", file=out)


def show_profile(folder: Path, names: Sequence[str], out: TextIO) -> None:
    """The functions that took most in the longer run of each bench."""
    for part in ([name for name in names if name.startswith("channel_") is whole] for whole in (True, False)):
        for place, name in enumerate(part):
            took = own_instructions(folder / f"{part[0]}.out.{4 * place + 4}")
            print(f"\n{name}: instructions of each function itself, in {2 * BENCHES[name].operations} operations", file=out)
            for function, instructions in sorted(took.items(), key=lambda item: -item[1])[:FUNCTIONS_SHOWN]:
                print(f"{instructions:14,}  {function}", file=out)


def own_instructions(dump: Path) -> dict[str, int]:
    """Function -> instructions of its own, out of callgrind's dump (valgrind's manual, "Callgrind Format Specification")."""
    names: dict[str, str] = {}
    took: dict[str, int] = {}
    function = ""
    of_call = False  # the line after `calls=` is what the called function took
    for line in dump.read_text().splitlines():
        if named := _FUNCTION.match(line):
            number, name = named[2], named[3]
            if name:
                names[number] = name
            if named[1] == "fn":
                function = number
        elif line.startswith("calls="):
            of_call = True
        elif line[:1] in "+-*0123456789" and len(columns := line.split()) == 2:
            if not of_call:
                took[function] = took.get(function, 0) + int(columns[1])
            of_call = False
    return {names[number]: instructions for number, instructions in took.items() if number in names}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description="Compare instruction counts with bench/baseline.toml.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which benches; default all: {', '.join(BENCHES)}")
    parser.add_argument("--renew", action="store_true", help="write the baseline anew, of the named benches or all")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="show where the instructions go; callgrind's files stay there")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in BENCHES]:
        parser.error(f"no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    if options.profile is not None and not options.profile.is_dir():
        parser.error(f"{options.profile} is no folder")
    names = options.names or list(BENCHES)
    try:
        here = tools_here()
    except (FileNotFoundError, subprocess.SubprocessError) as error:
        print(f"guard: {error}: it needs the compiler and valgrind (apt-get install valgrind)", file=sys.stderr)
        return 1
    try:
        baseline = read(BASELINE)
    except BaselineUnreadable as error:
        if not options.renew:
            print(f"guard: {error}", file=sys.stderr)
            return 1
        baseline = Baseline(here, {})
    differing = differing_tools(baseline, here)
    strict = os.environ.get("CI") == "true"
    if differing and not options.renew:
        refuse_other_tools(differing, strict, sys.stdout)
        if strict or not options.profile:
            return 1 if strict else 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leveret-guard-") as folder:
        try:
            counts = count(names, options.profile or Path(folder))
        except CannotCount as error:
            print(f"guard: {error}", file=sys.stderr)
            return 1
    for name in names:
        before = baseline.counts.get(name)
        change = f"{100.0 * (counts[name] - before) / before:+7.1f} %" if before and not differing else ""
        print(f"{name:44} {counts[name]:12,.1f} {change}")
    print(f"counted in {time.monotonic() - began_s:.0f} s\n")
    if options.profile is not None:
        show_profile(options.profile, names, sys.stdout)
    if options.renew:
        kept = {} if differing else {name: old for name, old in baseline.counts.items() if name in BENCHES}
        merged = kept | counts
        write(BASELINE, Baseline(here, {name: merged[name] for name in BENCHES if name in merged}))
        print(f"wrote {BASELINE.relative_to(ROOT)}")
        return 0
    return 0 if differing or verdict(baseline, counts, sys.stdout) else 1


if __name__ == "__main__":
    sys.exit(main())
