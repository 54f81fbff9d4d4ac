"""How figures and goals are put into words, the same in the terminal and on the page. Reads rows and figures of a results document."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def value(row: Json, figure: Json | None) -> str:
    """The rate or whatever a row's value is: "1,234,567", "0.39 s"; "" for a broker that was not asked."""
    if figure is None:
        return ""
    if figure["value"] == 0 and figure["faults"]:
        return "failed"
    if row["unit"] in ("msg/s", "tasks/s"):
        return f"{figure['value']:,.0f}"
    return f"{figure['value']:,.2f} {row['unit']}"


def cpu(figure: Json | None) -> str:
    return "" if figure is None or figure["cpu_us"] is None else f"{figure['cpu_us']:,.2f}"


def memory(figure: Json | None) -> str:
    """Megabytes; "" where nobody looked."""
    return "" if figure is None or figure["memory_bytes"] is None else f"{figure['memory_bytes'] / 1e6:,.0f}"


def percentiles(figure: Json | None) -> str:
    """p50 / p99 / p99.9 in ms; "" without a latency."""
    if figure is None or figure["latency"] is None:
        return ""
    latency = figure["latency"]
    told = " / ".join(milliseconds(latency[name]) for name in ("p50_ms", "p99_ms", "p999_ms"))
    return told if latency["kept_up"] else f"{told}, behind"


def milliseconds(value_ms: float) -> str:
    return f"{value_ms:,.2f}" if value_ms < 10 else f"{value_ms:,.0f}"


def rate_ratio(row: Json) -> str:
    return "" if row["rate_ratio"] is None else f"{row['rate_ratio']:.1f}x"


def cpu_ratio(row: Json) -> str:
    return "" if row["cpu_ratio"] is None else f"1/{row['cpu_ratio']:.1f}"


def rate_goal(row: Json) -> str:
    goals = row["goals"]
    if goals["rate"]:
        return f">= {goals['rate']:g}x"
    return f"<= {goals['value_max']:g} {row['unit']}" if goals["value_max"] else ""


def cpu_goal(row: Json) -> str:
    goals = row["goals"]
    if goals["cpu"]:
        return f"<= 1/{goals['cpu']:g}"
    return f"<= {goals['cpu_us_max']:g} us" if goals["cpu_us_max"] else ""


def memory_goal(row: Json) -> str:
    return f"<= {row['goals']['memory_max'] / 1e6:,.0f}" if row["goals"]["memory_max"] else ""


def latency_goal(row: Json) -> str:
    return f"p99 < {row['goals']['p99_max_ms']:g} ms" if row["goals"]["p99_max_ms"] else ""


def fsync(row: Json, nodes: list[Json]) -> str:
    """Whether each broker has the messages on the disk before it confirms them; "" where nobody waits for confirms."""
    if not row["confirms"]:
        return ""
    return ", ".join(f"{node['name']} {'yes' if row['durable'] and node['fsyncs_before_confirm'] else 'no'}" for node in nodes)


def mark(met: bool | None) -> str:
    return "" if met is None else "met" if met else "MISSED"
