"""Build: which folders are which packages, and every Cython module beside its `.pxd`.

The import package is `leveret`; its folders stand at the top of the tree (ARCHITECTURE.md, "Layout"). This file holds the one map
between the two, finds the packages and the Cython modules below it, and makes `build/view/leveret/`: a folder of symlinks in which
every `.pxd` lies under its import name, so that Cython (and mypy) find `leveret.codec` in `codec/`.

`LEVERET_DEBUG=1` builds with bounds checks and C asserts on: slower, for hunting. `LEVERET_WITHOUT_EXTENSIONS=1` makes an editable
install that leaves compiling to `setup.py build_ext --inplace`, which does it in parallel and again only for what changed (Makefile).
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent.resolve()
PACKAGE_DIRS = {"leveret": "broker", "leveret.codec": "codec", "leveret.storage": "storage"}
CHECKOUT_DIRS = ("tests", "bench")  # Cython that drives the C interfaces from a test or a bench, imported as `tests.queue.recording`
QUIET = ("-Wno-unused-variable", "-Wno-unused-function", "-Wno-sign-compare")  # Cython's C has many of them, and none of ours to mend
DEBUG = os.environ.get("LEVERET_DEBUG") == "1"
IN_PLACE = "--inplace" in sys.argv


def packages() -> dict[str, Path]:
    """Every import package and its folder: the three of the map and the folders with an `__init__.py` below them."""
    found: dict[str, Path] = {}
    for name, folder in PACKAGE_DIRS.items():
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            below = init.parent.relative_to(ROOT / folder).parts
            found[".".join((name, *below))] = init.parent
    return found


def make_view(view: Path) -> None:
    """Symlink every child of `broker/`, and `codec` and `storage`, into `build/view/leveret/`."""
    package = view / "leveret"
    package.mkdir(parents=True, exist_ok=True)
    wanted = {child.name: child for child in (ROOT / "broker").iterdir() if child.name != "__pycache__"}
    wanted |= {"codec": ROOT / "codec", "storage": ROOT / "storage"}
    for stale in package.iterdir():
        if stale.name not in wanted or stale.resolve() != wanted[stale.name]:
            stale.unlink()
    for name, target in wanted.items():
        link = package / name
        if not link.is_symlink():
            with contextlib.suppress(FileExistsError):  # another build of the same tree made it meanwhile
                link.symlink_to(os.path.relpath(target, package))


def extensions(found: dict[str, Path]) -> list[Extension]:
    """One extension for each `.pyx`, named by its package; in place, those of tests and benches too, which no wheel carries."""
    sources = {f"{package}.{source.stem}": source for package, folder in found.items() for source in sorted(folder.glob("*.pyx"))}
    if IN_PLACE:
        for folder in CHECKOUT_DIRS:
            for source in sorted((ROOT / folder).rglob("*.pyx")):
                sources[".".join(source.relative_to(ROOT).with_suffix("").parts)] = source
    return [
        Extension(
            name,
            [str(source.relative_to(ROOT))],
            extra_compile_args=[*QUIET, *(["-O1", "-g"] if DEBUG else ["-O3", "-g0"])],
            # What tests drive our code with checks it too, by asserts.
            define_macros=[] if DEBUG or name.startswith("tests.") else [("CYTHON_WITHOUT_ASSERTIONS", "1")],
        )
        for name, source in sources.items()
    ]


os.chdir(ROOT)
make_view(ROOT / "build" / "view")
PACKAGES = packages()
setup(
    packages=list(PACKAGES),
    package_dir={name: str(folder.relative_to(ROOT)) for name, folder in PACKAGES.items()},
    # A wheel takes whatever lies in its build folder: what was built in place for tests and benches must not be there.
    options={} if IN_PLACE else {"build": {"build_base": "build/wheel"}},
    ext_modules=[]
    if os.environ.get("LEVERET_WITHOUT_EXTENSIONS") == "1"
    else cythonize(
        extensions(PACKAGES),
        include_path=[str(ROOT / "build" / "view")],
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "freethreading_compatible": False,
        },
    ),
)
