"""The tree itself as data: import directions, names, lists that must match files. Design: ARCHITECTURE.md, "Layout".

Pure: reads files of the checkout, starts nothing. Skipped parts do not exist: a rule that finds nothing to check fails.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path

import leveret
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_DIRS = {"leveret.codec": ROOT / "codec", "leveret.storage": ROOT / "storage", "leveret": ROOT / "broker"}
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+(?:c?import)\b|c?import\s+([\w., ]+))", re.MULTILINE)
SWALLOWED = re.compile(r'__Pyx_WriteUnraisable\("([^"]+)"')
BANNED_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "base", "misc", "tools"}


def source_files(*suffixes: str) -> list[Path]:
    """Our own sources below the three package folders and the build's, without what tools leave behind."""
    found = [path for folder in PACKAGE_DIRS.values() for suffix in suffixes for path in folder.rglob(f"*{suffix}")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def module_name(path: Path) -> str:
    """`broker/link/link.pyx` -> `leveret.link.link`; a package's own name for its `__init__`."""
    for package, folder in PACKAGE_DIRS.items():
        if path.is_relative_to(folder):
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join((package, *(part for part in parts if part != "__init__")))
    raise AssertionError(f"{path} lies in no package")


def imports(path: Path) -> set[str]:
    """Dotted names of the modules that a source file imports or cimports, relative ones resolved; `from a import b` gives `a` and `a.b`."""
    text = path.read_text(encoding="utf-8")
    names: set[str] = set()
    if path.suffix in {".py", ".pyi"}:
        package = module_name(path).split(".") if path.stem == "__init__" else module_name(path).split(".")[:-1]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
                module = ".".join(part for part in (start, node.module) if part)
                names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        return names
    for origin, plain in CYTHON_IMPORT.findall(text):
        names |= {origin} if origin else {part.split(" as ")[0].strip() for part in plain.split(",")}
    return names


def offences(folder: Path, forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()) -> list[str]:
    """`file imports name` for every import below `folder` that is, or lies in, a forbidden package and in no allowed one."""

    def within(name: str, packages: tuple[str, ...]) -> bool:
        return any(name == package or name.startswith(package + ".") for package in packages)

    files = [path for path in source_files(".py", ".pyx", ".pxd", ".pxi") if path.is_relative_to(folder)]
    assert files, f"no sources below {folder}"
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imports(path))
        if within(name, forbidden) and not within(name, allowed)
    ]


@pytest.mark.parametrize("package", ["leveret.codec", "leveret.storage"])
def test_codec_and_storage_import_nothing_of_ours(package: str) -> None:
    assert offences(PACKAGE_DIRS[package], ("leveret", "broker"), allowed=(package,)) == []


@pytest.mark.parametrize("folder", ["queue", "router/exchanges"])
def test_queue_and_exchanges_are_pure(folder: str) -> None:
    outside = ("socket", "asyncio", "uvloop", "selectors", "threading", "time", "datetime", "random", "lmdb", "os", "logging")
    outside += ("posix", "libc.time", "leveret.storage", "leveret.link", "leveret.worker", "leveret.supervisor", "leveret.management")
    assert offences(ROOT / "broker" / folder, outside) == []


def test_management_and_ctl_speak_only_commands() -> None:
    inner = ("leveret.router", "leveret.worker", "leveret.queue", "leveret.storage", "lmdb")
    found = offences(ROOT / "broker" / "management", inner, allowed=("leveret.router.commands",))
    found += offences(ROOT / "broker" / "ctl", (*inner, "leveret.link", "leveret.management"))
    assert found == []


def test_work_on_a_stopped_nodes_data_is_apart_from_its_processes() -> None:
    processes = ("leveret.worker", "leveret.link", "leveret.management", "leveret.queue", "leveret.router.router", "leveret.router.ledger")
    found = offences(ROOT / "broker" / "offline", (*processes, "leveret.ctl"))
    for folder in ("worker", "router", "management", "supervisor", "queue", "link"):
        found += offences(ROOT / "broker" / folder, ("leveret.offline",))
    assert found == []


def test_the_supervisor_touches_no_message() -> None:
    assert offences(ROOT / "broker" / "supervisor", ("leveret.queue", "leveret.worker", "leveret.router", "leveret.storage", "lmdb")) == []


def test_the_worker_opens_no_store_of_the_router() -> None:
    assert offences(ROOT / "broker" / "worker", ("leveret.router", "leveret.management"), allowed=("leveret.router.commands",)) == []


def test_every_cython_module_is_built_from_its_source() -> None:
    """`setup.py` finds the modules by folder: one in a folder without `__init__.py`, or not built since it came, shows here."""
    modules = [module_name(path) for path in source_files(".pyx")]
    assert modules
    wrong = {}
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or not spec.origin.endswith(".so"):
            wrong[name] = spec and spec.origin
    assert wrong == {}


def test_no_cython_function_swallows_an_error() -> None:
    """Where something can raise in a function that is `noexcept`, Cython writes this call. `__dealloc__` has nobody to tell."""
    generated = [path for folder in PACKAGE_DIRS.values() for path in (ROOT / "build" / "cython" / folder.name).rglob("*.c")]
    assert generated, "the build leaves them there"
    swallowing = {name for path in generated for name in SWALLOWED.findall(path.read_text(encoding="utf-8"))}
    assert {name for name in swallowing if not name.endswith(".__dealloc__")} == set()


def test_every_cython_module_has_a_stub_for_the_type_checker() -> None:
    missing = [str(path.relative_to(ROOT)) for path in source_files(".pyx") if not path.with_suffix(".pyi").exists()]
    assert missing == []


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in source_files(".py", ".pyx", ".pxd")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_generated_files_say_so_and_name_their_generator() -> None:
    generated = []
    for path in source_files(".py", ".pyi", ".pyx", ".pxd", ".pxi"):
        head = path.read_text(encoding="utf-8").lstrip("\"'# ").split("\n", 1)[0]
        if head.startswith("Generated "):
            generated.append(path)
            generator = re.search(r"\bby ([\w/]+\.py)\b", head)
            assert generator, f"{path} names no generator: {head!r}"
            assert (ROOT / generator[1]).exists() or (path.parent / generator[1]).exists(), (
                f"{path} names {generator[1]}, which is not there"
            )
    assert any(path.is_relative_to(ROOT / "codec") for path in generated)


def test_every_module_says_what_it_owns() -> None:
    """A file is one noun, and its first paragraph says which. `.pxd` files beside a module speak through it."""
    silent = []
    for path in source_files(".py", ".pyx"):
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if lines and not lines[0].lstrip("r").startswith('"""'):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_files_are_named_by_nouns() -> None:
    everything = [path for folder in (*PACKAGE_DIRS.values(), ROOT / "tests", ROOT / "bench") for path in folder.rglob("*.p*")]
    assert len(everything) > 10
    vague = {
        str(path.relative_to(ROOT))
        for path in everything
        if BANNED_NAMES & {part.lower() for part in path.relative_to(ROOT).with_suffix("").parts}
    }
    assert vague == set()


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert leveret.__version__ == project["version"]
    assert importlib.metadata.version("leveret") == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_all_that_the_venv_holds_is_pinned_and_the_baseline_was_counted_with_it() -> None:
    """A requirement without a pin would let a new release of somebody else's turn this tree red."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    lines = (ROOT / ".ci/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {normal_name(name) for name in pins}
    names = {normal_name(re.split(r"[<>=\[]", one)[0]) for one in wanted} - {"setuptools"}  # Python brings it into the venv
    assert names - pinned == set()
    counted_with = tomllib.loads((ROOT / "bench/baseline.toml").read_text(encoding="utf-8"))["tools"]
    assert counted_with["cython"] == pins["Cython"]


def normal_name(name: str) -> str:
    """A package's name as indexes compare it: `Pydantic_Core` -> `pydantic-core`."""
    return re.sub(r"[-_.]+", "-", name).lower()
