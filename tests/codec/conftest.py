"""How hypothesis runs here: no time limit per example (the machine may be busy), and a failure prints what `@reproduce_failure` needs."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("leveret", deadline=None, print_blob=True)
settings.load_profile("leveret")
