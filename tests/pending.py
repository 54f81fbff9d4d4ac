"""Features that tests already demand and the broker is still to get: the one list of them.

Owns `PENDING`. A test says which feature it needs with `@pytest.mark.needs("tx")`; while the feature stands here, the test is expected to
fail, and an unexpected pass is red, so a line is taken out in the commit that brings its feature.
"""

from __future__ import annotations

PENDING: dict[str, str] = {}
