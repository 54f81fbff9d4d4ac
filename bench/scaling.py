"""`python -m bench.scaling`: what a message costs each process, and what a node of many cores would carry: docs/scaling.md.

It measures CPU microseconds a message with `leveret perf`, on one worker and on two, each process by itself (`measure`); fits the costs of
`bench.scaling_model` to some of the runs; compares the model with the others; and prints the tables. `--page` writes them, and the picture,
into docs/scaling.md and docs/scaling.svg between their marks. `--costs FILE` uses costs measured before. CPU a message is compared first,
because it holds on a busy machine; a rate needs the whole machine, so how much of it others took is told beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from leveret.perf.fleet import LoadFailed, LoadStopped
from rich.console import Console

from bench.leveret_node import LeveretNode
from bench.load import ALL_ON_ONE_WORKER, ANYWHERE, ON_ANOTHER_WORKER, ON_PUBLISHERS_WORKER, Load, Timing
from bench.node import NodeFailed
from bench.scaling_model import Costs, Mix, message_us, router_full_at, throughput

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "scaling.md"
PICTURE: Final = ROOT / "docs" / "scaling.svg"
CORES: Final = (2, 4, 8, 16, 32, 64)
ACKS: Final = {"ack": "each", "prefetch": 500}
DURABLE: Final = {"durable": True, "persistent": True, "confirms": 1000}
TOPIC: Final = {"exchange_kind": "topic"}
TRIES: Final = 4
ROUTE_SHARE: Final = 0.36  # of the router's instructions for a message, to find its route (bench/baseline.toml: 165 of 463)
COPY_SHARE: Final = 0.33  # and to write it for one more worker (616 of 463)

MIXES: Final = (
    Mix("one queue a client, near", near=1.0),
    Mix("spread by chance"),
    Mix("spread, half by a topic exchange", named=0.5),
    Mix("spread, all by a topic exchange", named=1.0),
    Mix("near, all by a topic exchange", near=1.0, named=1.0),
    Mix("spread, fan-out to 10", named=1.0, queues=10),
    Mix("spread, half named, a fifth durable", named=0.5, durable=0.2),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A run. workers: of the node. What is fitted to it stands in `fitted`; one that is not fitted is a check."""

    name: str
    workers: int
    load: Load


@dataclass(frozen=True, slots=True)
class Use:
    """CPU microseconds for a published message, of all workers, the router and the generator; messages/s; cores that were ours."""

    worker_us: float
    router_us: float
    client_us: float
    published_per_s: float
    used_cores: float


FITTED: Final = {
    "local": Case("all on one worker", 1, Load(ACKS, ALL_ON_ONE_WORKER)),
    "publish_hop": Case("publisher on another worker", 2, Load(ACKS, ON_ANOTHER_WORKER)),
    "deliver_hop": Case("consumer on another worker", 2, Load(ACKS, ON_PUBLISHERS_WORKER)),
    "routed": Case("topic exchange, one worker", 1, Load(ACKS | TOPIC, ALL_ON_ONE_WORKER)),
    "copy": Case("fan-out to 10, one worker", 1, Load({"exchange_kind": "fanout", "queues": 10, **ACKS}, ANYWHERE)),
    "durable": Case("durable with confirms, one worker", 1, Load(ACKS | DURABLE, ALL_ON_ONE_WORKER)),
}
# What the model says of them is computed from the costs above, which come from other runs.
CHECKS: Final = (
    (
        Case("2 + 2 clients, 2 queues, one worker", 1, Load({"publishers": 2, "consumers": 2, "queues": 2, **ACKS}, ANYWHERE)),
        Mix("", near=1.0),
    ),
    (
        Case("topic, 2 + 2 clients, one worker", 1, Load({"publishers": 2, "consumers": 2, "queues": 2, **ACKS, **TOPIC}, ANYWHERE)),
        Mix("", near=1.0, named=1.0),
    ),
    (
        Case("fan-out to 4, one worker", 1, Load({"exchange_kind": "fanout", "queues": 4, **ACKS}, ANYWHERE)),
        Mix("", near=1.0, named=1.0, queues=4),
    ),
    (Case("2 + 2 clients, 2 queues, two workers", 2, Load({"publishers": 2, "consumers": 2, "queues": 2, **ACKS}, ANYWHERE)), Mix("")),
    (
        Case("topic, 2 + 2 clients, two workers", 2, Load({"publishers": 2, "consumers": 2, "queues": 2, **ACKS, **TOPIC}, ANYWHERE)),
        Mix("", named=1.0),
    ),
)


def measure(case: Case, node: LeveretNode, timing: Timing, rounds: int) -> Use:
    """The median of several rounds, each part by itself.

    Raises what a Load raises, and NodeFailed when TRIES rounds in a row had faults (on a busy machine the API may not tell in time where
    things are).
    """
    uses: list[Use] = []
    fault = ""
    tries = 0
    while len(uses) < rounds:
        if tries == TRIES:
            raise NodeFailed(f"{case.name}: {fault}")
        tries += 1
        try:
            figure = case.load(node, timing)
        except TimeoutError as error:
            fault = str(error)
            continue
        if figure.faults:
            fault = "; ".join(figure.faults)
            continue
        uses.append(use_of(figure.details))
        tries = 0
    return Use(*(statistics.median(getattr(use, part.name) for use in uses) for part in dataclasses.fields(Use)))


def use_of(details: Mapping[str, Any]) -> Use:
    """Out of the JSON of a `leveret perf` report."""
    broker, rate = details["broker"], details["published_per_s"]
    published = rate * broker["elapsed_s"]
    by_kind = {"worker": 0.0, "router": 0.0}
    for name, _pid, cpu_s in broker["by_process"]:
        kind = name.removeprefix("leveret.")
        if kind in by_kind:
            by_kind[kind] += cpu_s
    client_us = details["generator_cpu_us_per_message"] * details["messages_per_s"] / rate
    worker_us, router_us = (1e6 * by_kind[kind] / published for kind in ("worker", "router"))
    return Use(worker_us, router_us, client_us, rate, rate * (worker_us + router_us + client_us) / 1e6)


def fit(uses: Mapping[str, Use]) -> Costs:
    """The costs, out of the runs of `FITTED` by name. No cost is below zero: what is lost in noise is nothing."""
    local = uses["local"].worker_us
    routed = max(0.0, uses["routed"].worker_us - local)
    router = uses["routed"].router_us
    return Costs(
        local=local,
        publish_hop=max(0.0, uses["publish_hop"].worker_us - local),
        deliver_hop=max(0.0, uses["deliver_hop"].worker_us - local),
        routed=routed,
        router=router,
        router_copy=router * COPY_SHARE,
        copy=max(0.0, uses["copy"].worker_us - local - routed) / 9,
        route=router * ROUTE_SHARE,
        durable=max(0.0, uses["durable"].worker_us - local),
    )


def error_percent(predicted: float, measured: float) -> float:
    return 100.0 * (predicted - measured) / measured


# --- tables


def cost_table(costs: Costs) -> list[str]:
    rows = ["| part | us |", "|---|---|"]
    rows += [f"| {part.name} | {getattr(costs, part.name):.3f} |" for part in dataclasses.fields(costs)]
    return rows


def check_table(costs: Costs, checks: Sequence[tuple[Case, Mix, Use]]) -> list[str]:
    """Predicted and measured CPU, and the rate that this CPU would give with the cores that the run really had."""
    rows = [
        "| run, not used for the fit | workers, us: model | run | error | router, us: model | run | messages/s: model | run | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, mix, use in checks:
        worker_us, router_us = message_us(costs, mix, case.workers)
        rate = use.used_cores * 1e6 / (worker_us + router_us + use.client_us)
        rows.append(
            f"| {case.name} | {worker_us:.2f} | {use.worker_us:.2f} | {error_percent(worker_us, use.worker_us):+.0f} % "
            f"| {router_us:.2f} | {use.router_us:.2f} | {rate:,.0f} | {use.published_per_s:,.0f} "
            f"| {error_percent(rate, use.published_per_s):+.0f} % |"
        )
    return rows


def throughput_table(costs: Costs) -> list[str]:
    """Million published messages a second by cores; bold where the router is the limit."""
    rows = [f"| mix | {' | '.join(str(cores) for cores in CORES)} | router full from |", "|---" * (len(CORES) + 2) + "|"]
    for mix in MIXES:
        for in_workers in (False, True) if mix.named else (False,):
            cells = []
            for cores in CORES:
                found = throughput(costs, mix, cores, verdicts_in_workers=in_workers)
                text = f"{found.published_per_s / 1e6:.2f}"
                cells.append(f"**{text}**" if found.limit == "router" else text)
            full = None if in_workers else router_full_at(costs, mix)
            told = "-" if full is None else f"{full} cores"
            rows.append(f"| {mix.name}{', verdicts in the workers' if in_workers else ''} | {' | '.join(cells)} | {told} |")
    return rows


def tables(uses: Mapping[str, Use]) -> dict[str, list[str]]:
    """The tables of the page, by the name of their marks."""
    costs = fit(uses)
    checks = [(case, mix, uses[case.name]) for case, mix in CHECKS]
    return {"costs": cost_table(costs), "checks": check_table(costs, checks), "throughput": throughput_table(costs)}


def picture(costs: Costs) -> str:
    """SVG: throughput by cores, now and with verdicts in the workers."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "leveret", "font.size": 9}):
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        cores = range(1, 65)
        for number, mix in enumerate(MIXES):
            colour = f"C{number}"
            axes.plot(cores, [throughput(costs, mix, n).published_per_s / 1e6 for n in cores], colour, label=mix.name)
            if mix.named:
                axes.plot(cores, [throughput(costs, mix, n, verdicts_in_workers=True).published_per_s / 1e6 for n in cores], colour, ls=":")
        axes.set(xlabel="cores", ylabel="million published messages a second", xlim=(1, 64), ylim=(0, None))
        axes.set_title("solid: the router routes; dotted: verdicts in the workers", loc="left")
        axes.grid(alpha=0.4)
        axes.legend(frameon=False, fontsize=8)
        into = io.StringIO()
        figure.savefig(into, format="svg", metadata={"Date": None})
        return into.getvalue()


def put_between_marks(text: str, name: str, lines: Sequence[str]) -> str:
    """`text` with `lines` between its comments `<!-- name -->` and `<!-- /name -->`. ValueError if they are not there."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"docs/scaling.md has no marks for {name}")
    return pattern.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text)


def main() -> None:
    """Exit codes: 0 done; 1 the broker or a load failed; 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description="Costs a message, and a model of many cores.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run (5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case; the median counts (3)")
    parser.add_argument("--costs", type=Path, help="measure nothing: costs and checks out of this file")
    parser.add_argument("--save", type=Path, help="write costs and checks here, for --costs")
    parser.add_argument("--page", action="store_true", help="write tables and picture into docs/scaling.md")
    options = parser.parse_args()
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds must be at least 1")
    console = Console(highlight=False, soft_wrap=True)
    try:
        uses = read_uses(options.costs) if options.costs else measure_all(Timing(options.seconds, 1.5), options.rounds, console)
    except (NodeFailed, LoadFailed, LoadStopped, OSError, KeyError, ValueError) as error:
        console.print(str(error), style="bold red", markup=False)
        sys.exit(1)
    if options.save:
        options.save.write_text(json.dumps({name: dataclasses.asdict(use) for name, use in uses.items()}, indent=2))
    for lines in tables(uses).values():
        console.print("\n".join(lines), markup=False)
        console.print()
    if options.page:
        text = PAGE.read_text()
        for name, lines in tables(uses).items():
            text = put_between_marks(text, name, lines)
        PAGE.write_text(text)
        PICTURE.write_text(picture(fit(uses)))


def measure_all(timing: Timing, rounds: int, console: Console) -> dict[str, Use]:
    """Every case's use, by the name that it is fitted as, or its own."""
    wanted = [*FITTED.items(), *((case.name, case) for case, _ in CHECKS)]
    uses: dict[str, Use] = {}
    for workers in (1, 2):
        with LeveretNode(workers) as node:
            for name, case in wanted:
                if case.workers == workers:
                    uses[name] = use = measure(case, node, timing, rounds)
                    console.print(
                        f"{case.name}: workers {use.worker_us:.3f} us, router {use.router_us:.3f}, generator {use.client_us:.3f}, "
                        f"{use.published_per_s:,.0f}/s with {use.used_cores:.2f} cores",
                        markup=False,
                    )
    return uses


def read_uses(file: Path) -> dict[str, Use]:
    return {name: Use(**use) for name, use in json.loads(file.read_text()).items()}


if __name__ == "__main__":
    main()
