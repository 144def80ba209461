"""Finds out from the heartbeats which ranks are lost or keep the others waiting, and says so in one sentence."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from distcls.engine.ranks.heartbeat import Beat, Heartbeat, read_all

MISSED = 2.5  # heartbeat intervals without a change after which a rank counts as gone


@dataclass(frozen=True)
class RollCall:
    """The state of all ranks at one moment, each with its last heartbeat.

    Attributes:
        present: ranks that are alive, including the caller.
        failed: ranks that left and said why.
        gone: ranks whose heartbeat has stopped: killed, suspended, or on a host that is down.
        silent: ranks without any heartbeat in this attempt.
    """

    present: dict[int, Beat]
    failed: dict[int, Beat]
    gone: dict[int, Beat]
    silent: list[int]

    @property
    def complete(self) -> bool:
        return not (self.failed or self.gone or self.silent)

    @property
    def speaker(self) -> int:
        """The rank that reports for all: the lowest one alive."""
        return min(self.present)

    def speaks_for_host(self, rank: int) -> bool:
        """Whether `rank`, which must be present, is the lowest one alive on its host."""
        return rank == min(other for other, beat in self.present.items() if beat.host == self.present[rank].host)

    def sentence(self) -> str:
        """Names the cause. In order of precedence: a rank that failed by itself, one that is gone, one without any
        heartbeat, one that left because it had lost others, the rank that is behind."""
        if own := {rank: beat for rank, beat in self.failed.items() if not beat.bereft}:
            return _who_failed(own)
        if self.gone:
            oldest = max(self.gone.values(), key=lambda beat: beat.age_s)
            return (
                f"lost {named(self.gone)}: last seen {_seconds(oldest.age_s)} ago (at {oldest.time} by its clock), "
                f"{_where(oldest)}"
            )
        if self.silent:
            return f"{_plural(self.silent)} gave no sign of life in this attempt"
        if self.failed:
            return _who_failed(self.failed)
        return _who_lags(self.present)


def call_roll(heart: Heartbeat) -> RollCall:
    """Read the heartbeats until it is certain which of them have stopped; at most three intervals.

    A rank is alive if its heartbeat changes in this time; the clocks of hosts are never compared.
    """
    beats: dict[int, Beat] = {}  # a file that is torn when it is read keeps its previous entry
    changed: dict[int, float] = {}
    deadline = time.monotonic() + (MISSED + 0.5) * heart.interval_s if heart.world_size > 1 else 0.0
    while True:
        heart.write()  # ages are measured from the reader's own file
        found, now = read_all(heart.folder, heart.rank), time.monotonic()
        found[heart.rank] = heart.sign()  # this rank is alive, even if it cannot write its file
        changed |= {rank: now for rank, beat in found.items() if beat != beats.get(rank) or rank == heart.rank}
        beats |= found
        if any(beat.ended is not None and not beat.bereft for beat in beats.values()) or now >= deadline:
            unchanged = {rank: now - changed[rank] for rank in beats}
            return _sorted(beats, unchanged, heart.world_size, MISSED * heart.interval_s)
        time.sleep(heart.interval_s / 4)


def named(beats: Mapping[int, Beat]) -> str:
    """``rank 1 on n2 (process 77)``; ``ranks 8-15 on n2 and ranks 16-23 on n3``."""
    if len(beats) == 1:
        (beat,) = beats.values()
        return f"rank {beat.rank} on {beat.host} (process {beat.pid})"
    hosts: dict[str, list[int]] = {}
    for rank, beat in sorted(beats.items()):
        hosts.setdefault(beat.host, []).append(rank)
    parts = [f"{_plural(ranks)} on {host}" for host, ranks in hosts.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _sorted(beats: Mapping[int, Beat], unchanged: Mapping[int, float], world_size: int, missed_s: float) -> RollCall:
    failed = {rank: beat for rank, beat in beats.items() if beat.ended is not None}
    gone = {
        rank: replace(beat, age_s=max(beat.age_s, unchanged[rank]))
        for rank, beat in beats.items()
        if rank not in failed and unchanged[rank] > missed_s
    }
    present = {rank: beat for rank, beat in beats.items() if rank not in failed and rank not in gone}
    return RollCall(present, failed, gone, [rank for rank in range(world_size) if rank not in beats])


def _who_failed(beats: Mapping[int, Beat]) -> str:
    first = beats[min(beats)]
    return f"rank {first.rank} on {first.host} left {_where(first)}: {first.ended}"


def _who_lags(beats: Mapping[int, Beat]) -> str:
    groups: dict[tuple[int, str], dict[int, Beat]] = {}
    for rank, beat in beats.items():
        groups.setdefault((beat.beats, beat.place), {})[rank] = beat
    # Fewest beats first; at equal beats, ranks that do not wait for others first, then the smaller group.
    ordered = sorted(
        groups.items(),
        key=lambda group: (group[0][0], all(beat.waits for beat in group[1].values()), len(group[1])),
    )
    (_, behind), *others = ordered
    if not others:
        everyone = f"all {len(beats)} ranks are" if len(beats) > 1 else f"{named(beats)} is"
        hosts = sorted({beat.host for beat in beats.values()})
        network = f"; is the network between {', '.join(hosts[:-1])} and {hosts[-1]} whole?" if len(hosts) > 1 else ""
        return f"{everyone} {_where(beats[min(beats)])}{network}"
    (_, rest), *more = sorted(others, key=lambda group: -len(group[1]))
    text = f"{named(behind)} {'is' if len(behind) == 1 else 'are'} behind, {_where(behind[min(behind)])}, while "
    text += f"{named(rest)} {'is' if len(rest) == 1 else 'are'} {_where(rest[min(rest)])}"
    return text + (f" (and {sum(len(group) for _, group in more)} elsewhere)" if more else "")


def _where(beat: Beat) -> str:
    place = f" ({beat.place})" if beat.place else ""
    return f"at step {beat.step}, {beat.phase}{place}"


def _plural(ranks: Iterable[int]) -> str:
    """``rank 3``, ``ranks 0-2, 5``"""
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
    return f"rank{'s' if any(first != last for first, last in spans) or len(spans) > 1 else ''} {text}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
