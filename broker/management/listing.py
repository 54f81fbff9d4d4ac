"""How a list is asked for: filter by name, sort, choose columns, take a page.

One `Listing` a request, made by FastAPI from the query; `reply` turns any list of objects into the answer. RabbitMQ's parameters and forms:
without `page` a plain array, with it an object that holds the page and its counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query
from leveret.management.json_reply import Json
from leveret.management.problem import Problem

PAGE_SIZE_MAX = 500
COLUMNS_MAX = 100
PATH_DEPTH_MAX = 8

Object = dict[str, Any]


def at(item: Any, path: Sequence[str]) -> Any:
    """`at(queue, ["message_stats", "publish"])`; None where the path leads nowhere."""
    for step in path:
        if not isinstance(item, Mapping):
            return None
        item = item.get(step)
    return item


def cut(item: Any, columns: Sequence[Sequence[str]]) -> Any:
    """`item` with only these paths of it, nested as they were; inside a list, of each of its elements."""
    if isinstance(item, list):
        return [cut(element, columns) for element in item]
    if not isinstance(item, Mapping):
        return item
    whole = {path[0] for path in columns if len(path) == 1}
    kept: Object = {}
    for name, value in item.items():
        if name in whole:
            kept[name] = value
        elif deeper := [path[1:] for path in columns if path[0] == name]:
            kept[name] = cut(value, deeper)
    return kept


def rank(value: Any) -> tuple[int, Any]:
    """A sort key that orders values of unlike types too: nothing, then numbers, then text, then the rest by their text."""
    if value is None:
        return 0, 0
    if isinstance(value, bool | int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, str(value)


def _paths(text: str, parameter: str) -> list[list[str]]:
    paths = [path.split(".") for path in text.split(",") if path]
    if len(paths) > COLUMNS_MAX or any(len(path) > PATH_DEPTH_MAX for path in paths):
        raise Problem(400, "bad_request", f"{parameter}: at most {COLUMNS_MAX} names of at most {PATH_DEPTH_MAX} parts")
    return paths


@dataclass(frozen=True, slots=True)
class Listing:
    """The parameters of one request, checked. `page` is None when no page was asked for; `page_size` counts objects."""

    page: int | None
    page_size: int
    name: str
    sort: tuple[tuple[str, ...], ...]
    sort_reverse: bool
    columns: tuple[tuple[str, ...], ...]

    @classmethod
    def from_query(
        cls,
        page: Annotated[int | None, Query(ge=1, le=2**31)] = None,
        page_size: Annotated[int, Query(ge=1, le=PAGE_SIZE_MAX)] = 100,
        name_part: Annotated[str, Query(alias="name", max_length=255)] = "",  # a path has its own `name`
        use_regex: bool = False,
        sort: Annotated[str, Query(max_length=1024)] = "",
        sort_reverse: bool = False,
        columns: Annotated[str, Query(max_length=8192)] = "",
    ) -> Listing:
        """A `Listing` out of the query. Raises `Problem` 400 for what is out of bounds."""
        if use_regex and name_part:
            # A pattern of the user's, run by a backtracking engine, could hold this process for ever.
            raise Problem(400, "bad_request", "use_regex: regular expressions are not supported; name filters by a part of the name")
        return cls(
            page,
            page_size,
            name_part.lower(),
            tuple(tuple(path) for path in _paths(sort, "sort")),
            sort_reverse,
            tuple(tuple(path) for path in _paths(columns, "columns")),
        )

    def one(self, item: Object) -> Json:
        """The answer for a single object: only `columns` concern it."""
        return Json(cut(item, self.columns) if self.columns else item)

    def reply(self, items: Iterable[Object], order: Sequence[str] = ("name",)) -> Json:
        """The answer for a list. `order` names the fields that sort it when the request names none.

        Raises `Problem` 400 `page_out_of_range` for a page behind the last; the first page is always there.
        """
        everything = list(items)
        kept = [item for item in everything if self.name in str(item.get("name", "")).lower()] if self.name else everything
        paths = self.sort or tuple((name,) for name in order)
        kept.sort(key=lambda item: [rank(at(item, path)) for path in paths], reverse=self.sort_reverse)
        if self.page is None:
            return Json([cut(item, self.columns) for item in kept] if self.columns else kept)
        page_count = max(1, -(-len(kept) // self.page_size))
        if self.page > page_count:
            text = f"Page out of range, page: {self.page} page size: {self.page_size}, len: {len(kept)}"
            raise Problem(400, "page_out_of_range", text)
        shown = kept[(self.page - 1) * self.page_size : self.page * self.page_size]
        return Json(
            {
                "total_count": len(everything),
                "item_count": len(shown),
                "filtered_count": len(kept),
                "page": self.page,
                "page_size": self.page_size,
                "page_count": page_count,
                "items": [cut(item, self.columns) for item in shown] if self.columns else shown,
            }
        )


ListingQuery = Annotated[Listing, Depends(Listing.from_query)]
