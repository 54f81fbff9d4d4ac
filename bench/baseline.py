"""The baseline of the regression guard: how many instructions each counted bench takes, and with which tools that was counted.

It owns the file `bench/baseline.toml`, its format and the verdict on new counts. `bench.guard` calls it. It counts nothing itself.
"""

from __future__ import annotations

import platform
import subprocess
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import Cython

FORMAT: Final = 1  # of the file; one of another format is not read
TOLERANCE_PERCENT: Final = 5.0
RENEW: Final = "make guard-baseline"
HEAD: Final = f"""\
# Instructions an operation of each counted bench (bench/counted.py), and the tools they were counted with: what `make guard` compares with.
# Written by `{RENEW}`; a change that makes something dearer says why in its commit message.
"""


class BaselineUnreadable(Exception):
    """The file is not there or is none of ours; the text says so."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """tools: name -> version. counts: bench -> instructions an operation."""

    tools: Mapping[str, str]
    counts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """worse and unknown are failures, better is a reason to renew the baseline. Sentences, ready to print."""

    worse: tuple[str, ...]
    better: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.worse and not self.unknown


def tools_here() -> dict[str, str]:
    """What decides how many instructions our code takes on this machine. Raises FileNotFoundError for a compiler or valgrind not there."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    return {
        "compiler": first_line(compiler, "--version"),
        "compiler_flags": sysconfig.get_config_var("CFLAGS") or "",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "cython": Cython.__version__,
        "libc": " ".join(platform.libc_ver()),
        "valgrind": first_line("valgrind", "--version"),
        # The C library chooses its copying and comparing by it.
        "processor": " ".join([platform.machine(), *sorted(flags & {"avx2", "bmi2"})]),
    }


def first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.partition("\n")[0].strip()


def read(file: Path) -> Baseline:
    """Raises BaselineUnreadable."""
    try:
        found = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise BaselineUnreadable(f"there is no baseline ({file}): {RENEW}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BaselineUnreadable(f"{file} cannot be read ({error}): {RENEW}") from None
    if found.get("format") != FORMAT:
        raise BaselineUnreadable(f"{file} has format {found.get('format')!r}, not {FORMAT}: {RENEW}")
    return Baseline(found["tools"], {name: float(count) for name, count in found["instructions"].items()})


def write(file: Path, baseline: Baseline) -> None:
    """Names are bare TOML keys; values are quoted as TOML's basic strings."""
    lines = [HEAD, f"format = {FORMAT}", "", "[tools]"]
    lines += [f"{name} = {quoted(value)}" for name, value in baseline.tools.items()]
    lines += ["", "[instructions]"]
    lines += [f"{name} = {count:.1f}" for name, count in baseline.counts.items()]
    file.write_text("\n".join(lines) + "\n")


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def differing_tools(baseline: Baseline, here: Mapping[str, str]) -> list[str]:
    """One line for each tool that is not the baseline's: counts of two compilers are apples and pears."""
    names = [*baseline.tools, *(name for name in here if name not in baseline.tools)]
    return [
        f"{name}: {here.get(name, 'none')!r} here, {baseline.tools.get(name, 'none')!r} in the baseline"
        for name in names
        if here.get(name) != baseline.tools.get(name)
    ]


def compare(baseline: Baseline, counts: Mapping[str, float], expected: Mapping[str, object]) -> Verdict:
    """The verdict on `counts` (a part of all benches will do); expected: every bench there is, by name."""
    worse, better = [], []
    for name, count in counts.items():
        before = baseline.counts.get(name)
        if before is None:
            continue
        percent = 100.0 * (count - before) / before
        sentence = f"{name}: {count:,.1f} instructions an operation, {before:,.1f} in the baseline, {abs(percent):.1f} %"
        if percent > TOLERANCE_PERCENT:
            worse.append(f"{sentence} more")
        elif percent < -TOLERANCE_PERCENT:
            better.append(f"{sentence} fewer")
    unknown = [f"{name}: not in the baseline" for name in counts if name not in baseline.counts]
    unknown += [f"{name}: in the baseline, but there is no such bench" for name in baseline.counts if name not in expected]
    return Verdict(tuple(worse), tuple(better), tuple(unknown))
