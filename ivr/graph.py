"""Proves a flow safe: every reference leads somewhere and every path ends well. Pure.

An edge is *automatic* when a caller who stays silent, presses wrong keys or finds nobody is led along it.
Automatic edges may not form a cycle: that is what makes every call end (see `ivr.interpreter`).
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ivr.flow import REPEAT_KEY, Consent, Flow, HangUp, Menu, Node, OnCall, Voicemail
from ivr.problems import Problem, nearest

MANY_CHOICES = 5  # more than that nobody keeps in mind


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """One way out of a node."""

    key: str  # where it is written: "next", "choices.1"; empty for the flow's human, which is implied
    target: str  # node name
    automatic: bool  # taken without a key of the caller's choice


def edges(node: Node, human: str) -> tuple[Edge, ...]:
    """Every way out of a node; `human` is the flow's node for callers who get stuck."""
    match node:
        case Menu():
            chosen = [Edge(key=f"choices.{k}", target=t, automatic=False) for k, t in node.choices.items()]
            ways = (("on_timeout", node.on_timeout), ("on_invalid", node.on_invalid))
            lost = [Edge(key=key if to else "", target=to or human, automatic=True) for key, to in ways]
            return (*chosen, *lost)
        case Consent():
            refused = node.on_no or node.next
            return (
                Edge(key="next", target=node.next, automatic=node.on_no is None),
                Edge(key="on_no" if node.on_no else "next", target=refused, automatic=True),
            )
        case OnCall():
            return (Edge(key="on_nobody", target=node.on_nobody, automatic=True),)
        case HangUp():
            return ()
        case _:
            return (Edge(key="next", target=node.next, automatic=True),)


def check_flow(file: str, flow: Flow, public_line: str | None) -> list[Problem]:
    """Faults of one flow; `public_line` is a line of patients it serves, None when it has none.

    The flow may have dangling references: they are reported, and the checks that need whole paths are left
    out.
    """
    problems = [*_references(file, flow), *_keys(file, flow)]
    if any(not problem.warning for problem in problems):
        return problems
    problems += _unreachable(file, flow)
    problems += _endless(file, flow)
    if public_line is not None:
        problems += _emergency_first(file, flow, public_line)
        problems += _bad_endings(file, flow)
    return problems


def _references(file: str, flow: Flow) -> Iterator[Problem]:
    def missing(path: str, target: str) -> Problem:
        hint = nearest(target, flow.node)
        return Problem(file=file, path=path, sentence=f'There is no node "{target}" in this flow.{hint}')

    if flow.start not in flow.node:
        yield missing("start", flow.start)
    if flow.human not in flow.node:
        yield missing("human", flow.human)
    elif not isinstance(flow.node[flow.human], OnCall | Voicemail):
        kind = flow.node[flow.human].type
        yield Problem(
            file=file,
            path="human",
            sentence=f'The human must be an on_call or voicemail node; "{flow.human}" is of type {kind}.',
        )
    for name, node in flow.node.items():
        written = {edge.key: edge.target for edge in edges(node, flow.human) if edge.key}
        for key, target in written.items():
            if target not in flow.node:
                yield missing(f"node.{name}.{key}", target)


def _keys(file: str, flow: Flow) -> Iterator[Problem]:
    for name, node in flow.node.items():
        if isinstance(node, Menu):
            if REPEAT_KEY in node.choices:
                yield _reserved(file, f"node.{name}.choices.{REPEAT_KEY}")
            if len(node.choices) > MANY_CHOICES:
                yield Problem(
                    file=file,
                    path=f"node.{name}.choices",
                    sentence=f"A menu of {len(node.choices)} choices is hard to keep in mind; "
                    f"{MANY_CHOICES} or fewer are better.",
                    warning=True,
                )
        if isinstance(node, Consent):
            if node.yes == node.no:
                yield Problem(
                    file=file,
                    path=f"node.{name}.no",
                    sentence=f'The key "{node.no}" already means yes; take another.',
                )
            for key, value in (("yes", node.yes), ("no", node.no)):
                if value == REPEAT_KEY:
                    yield _reserved(file, f"node.{name}.{key}")


def _reserved(file: str, path: str) -> Problem:
    return Problem(
        file=file, path=path, sentence=f'The key "{REPEAT_KEY}" repeats the prompt everywhere; take another.'
    )


def _unreachable(file: str, flow: Flow) -> Iterator[Problem]:
    found = _paths(flow, barriers=())
    for name in flow.node:
        if name not in found:
            yield Problem(
                file=file,
                path=f"node.{name}",
                sentence="No path leads to this node; remove it or lead one there.",
            )


def _paths(flow: Flow, barriers: Sequence[type[Node]]) -> Mapping[str, str | None]:
    """Nodes that can be reached from the start, each with the one before it; barriers are not passed."""
    came_from: dict[str, str | None] = {flow.start: None}
    ahead = deque([flow.start])
    while ahead:
        name = ahead.popleft()
        node = flow.node[name]
        if isinstance(node, tuple(barriers)):
            continue
        for edge in edges(node, flow.human):
            if edge.target not in came_from:
                came_from[edge.target] = name
                ahead.append(edge.target)
    return came_from


def _endless(file: str, flow: Flow) -> Iterator[Problem]:
    """Cycles of automatic edges, each named once, found by an iterative depth-first search."""
    done: set[str] = set()
    for root in flow.node:
        if root in done:
            continue
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                del on_path[name]
                done.add(name)
                continue
            if name in on_path:
                cycle = " > ".join([*path[on_path[name] :], name])
                yield Problem(
                    file=file,
                    path=f"node.{name}",
                    sentence=f"A silent caller would go round here for ever: {cycle}. "
                    "Lead one of these nodes to a person, a voicemail or a hangup.",
                )
                continue
            if name in done:
                continue
            on_path[name] = len(path)
            path.append(name)
            stack.append((name, True))
            onward = {edge.target for edge in edges(flow.node[name], flow.human) if edge.automatic}
            stack.extend((target, False) for target in sorted(onward))


def _emergency_first(file: str, flow: Flow, line: str) -> Iterator[Problem]:
    first = flow.node[flow.start]
    if first.type != "emergency":
        yield Problem(
            file=file,
            path="start",
            sentence=f'Patients reach this flow by line "{line}", so it must start with an emergency node; '
            f'"{flow.start}" is of type {first.type}.',
        )


def _bad_endings(file: str, flow: Flow) -> Iterator[Problem]:
    """Hang-ups that a patient can reach without having left a message."""
    came_from = _paths(flow, barriers=(Voicemail,))
    for name, node in flow.node.items():
        if isinstance(node, HangUp) and not node.emergency and name in came_from:
            way: list[str] = []
            step: str | None = name
            while step is not None:
                way.append(step)
                step = came_from[step]
            yield Problem(
                file=file,
                path=f"node.{name}",
                sentence=f"The path {' > '.join(reversed(way))} ends without a person, a message or "
                "emergency advice; lead it to a voicemail or set emergency = true.",
            )
