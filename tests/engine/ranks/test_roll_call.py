"""What the ranks report about a missing rank, from the heartbeats alone."""

import json
import os
import threading
from pathlib import Path

import pytest

from distcls.engine.ranks import heartbeat, roll_call
from distcls.engine.ranks.heartbeat import Beat, Heartbeat, clear, interval_s, read_all
from distcls.engine.ranks.roll_call import RollCall, call_roll, named


def beat(rank: int, host: str = "n1", **changes) -> Beat:
    sign = {"pid": 100 + rank, "step": 13, "phase": "training", "beats": 40, "still_s": 0.0, "place": "", "waits": True}
    return Beat(rank=rank, host=host, **{**sign, "time": "2030-01-01T00:00:00+00:00", **changes})


def roll(*present: Beat, failed=(), gone=(), silent=()) -> RollCall:
    by_rank = [{one.rank: one for one in beats} for beats in (present, failed, gone)]
    return RollCall(*by_rank, list(silent))


def test_a_rank_that_is_gone_is_named_with_host_process_step_and_phase():
    lost = roll(beat(0), gone=[beat(1, "n2", age_s=14.2, phase="waiting for data")])
    assert lost.sentence() == (
        "lost rank 1 on n2 (process 101): last seen 14 s ago (at 2030-01-01T00:00:00+00:00 by its clock), "
        "at step 13, waiting for data"
    )
    assert not lost.complete


def test_a_node_that_is_gone_is_named_once():
    gone = {rank: beat(rank, "n2" if rank < 12 else "n3", age_s=30) for rank in range(8, 14)}
    assert named(gone) == "ranks 8-11 on n2 and ranks 12-13 on n3"


def test_the_first_cause_is_told_not_what_followed_from_it():
    """Rank 1 failed by itself; rank 2 left because rank 1 had; rank 3 was killed by their launcher."""
    failed = [beat(1, "n2", ended="ValueError: boom"), beat(2, "n2", ended="lost rank 1 ...", bereft=True)]
    text = roll(beat(0), failed=failed, gone=[beat(3, "n2", age_s=9)]).sentence()
    assert text == "rank 1 on n2 left at step 13, training: ValueError: boom"


def test_a_rank_that_is_behind_is_named_with_its_place_in_the_code():
    behind = beat(3, "n2", beats=39, phase="waiting for data", place="loader.py:80 __next__")
    assert roll(beat(0), beat(1), beat(2, "n2"), behind).sentence() == (
        "rank 3 on n2 (process 103) is behind, at step 13, waiting for data (loader.py:80 __next__), "
        "while ranks 0-1 on n1 and rank 2 on n2 are at step 13, training"
    )


def test_at_the_same_point_the_one_that_is_elsewhere_in_the_code_is_the_odd_one():
    odd = beat(1, place="my_backbone.py:7 forward")
    ranks = [beat(rank, place="trainer.py:90 train") for rank in (0, 2, 3)]
    assert roll(*ranks, odd).sentence().startswith("rank 1 on n1 (process 101) is behind, at step 13, training (my_bac")


def test_of_two_the_one_that_waits_for_the_other_is_not_to_blame():
    hangs = beat(1, place="my_backbone.py:7 forward", waits=False)
    text = roll(beat(0, place="trainer.py:90 train"), hangs).sentence()
    assert text.startswith(
        "rank 1 on n1 (process 101) is behind, at step 13, training (my_backbone.py:7 forward), while"
    )


def test_all_at_one_place_on_two_hosts_asks_for_the_network():
    assert roll(beat(0), beat(1, "n2")).sentence() == (
        "all 2 ranks are at step 13, training; is the network between n1 and n2 whole?"
    )


def test_a_rank_that_never_came():
    assert roll(beat(0), silent=[2, 3, 5]).sentence() == "ranks 2-3, 5 gave no sign of life in this attempt"


def test_who_speaks():
    some = roll(beat(1), beat(2), beat(5, "n2"), beat(4, "n2"), gone=[beat(0)])
    assert some.speaker == 1
    assert [some.speaks_for_host(rank) for rank in (1, 2, 4, 5)] == [True, False, True, False]


@pytest.fixture
def meanwhile(monkeypatch):
    """Replaces the clock; returns a function that sets what happens during each sleep of the roll call."""
    clock = [1000.0]

    def begin(happens) -> None:
        def sleep(seconds: float) -> None:
            clock[0] += seconds
            happens()

        monkeypatch.setattr(roll_call.time, "sleep", sleep)

    monkeypatch.setattr(roll_call.time, "monotonic", lambda: clock[0])
    begin(lambda: None)
    return begin


@pytest.fixture
def hearts(tmp_path: Path) -> list[Heartbeat]:
    clear(tmp_path / "heartbeat")
    three = [Heartbeat(tmp_path / "heartbeat", rank, 3) for rank in range(3)]
    for heart in three:
        heart.beat(7, "saving")
        heart.write()
    return three


def dated(heart: Heartbeat, seconds: int) -> None:
    """Shift the file's modification time: Lustre dates a file by the clock of the host that writes it."""
    date = os.stat(heart._file).st_mtime + seconds
    os.utime(heart._file, (date, date))


def test_one_that_stops_writing_is_gone_and_one_that_writes_is_not_whatever_the_clocks_of_their_hosts(
    hearts, meanwhile
):
    def write() -> None:
        hearts[2].again()
        hearts[2].write()
        dated(hearts[2], -3600)

    dated(hearts[1], 60)
    meanwhile(write)
    called = call_roll(hearts[0])
    assert sorted(called.present) == [0, 2]
    assert (called.gone[1].step, called.gone[1].age_s) == (7, 3.0)


def test_the_age_of_one_that_is_gone_is_by_the_dates_where_they_say_more(hearts, meanwhile):
    dated(hearts[1], -60)
    assert call_roll(hearts[0]).gone[1].age_s == pytest.approx(60, abs=30)


def test_a_sign_that_is_torn_at_the_last_look_is_the_one_before(hearts, meanwhile):
    meanwhile(lambda: hearts[1]._file.write_text('{"rank": 1, "host'))
    assert call_roll(hearts[0]).silent == []


def test_a_rank_that_cannot_write_its_sign_is_present_for_itself(hearts, meanwhile):
    """On a full disk, or after the folder was removed."""
    clear(hearts[0].folder)
    hearts[0].folder.rmdir()
    called = call_roll(hearts[0])
    assert (list(called.present), called.speaker, called.silent) == ([0], 0, [1, 2])


def test_the_last_word_stays_and_a_torn_file_is_no_sign(tmp_path: Path):
    clear(tmp_path / "heartbeat")
    first, second = (Heartbeat(tmp_path / "heartbeat", rank, 2) for rank in range(2))
    first.beat(3, "evaluating, with a long name that makes the line longer than the next")
    first.write()
    first.beat(4, "training")
    first.close("OSError: no luck")
    first.close("finished")
    second._file.write_text('{"rank": 1, "host')
    (only,) = read_all(tmp_path / "heartbeat", 0).values()
    assert (only.step, only.ended) == (4, "OSError: no luck")
    assert len((tmp_path / "heartbeat/rank_00000").read_text().splitlines()) == 1


def test_a_sign_that_was_begun_before_the_last_word_does_not_come_after_it(tmp_path: Path, monkeypatch):
    clear(tmp_path / "heartbeat")
    heart = Heartbeat(tmp_path / "heartbeat", 0, 1)
    closing = threading.Thread(target=heart.close, args=("OSError: no luck",))

    def in_the_middle(sign: dict) -> str:
        monkeypatch.undo()
        closing.start()
        closing.join(0.2)  # lets it run until it is blocked
        return json.dumps(sign)

    monkeypatch.setattr(heartbeat.json, "dumps", in_the_middle)
    heart.write()
    closing.join()
    assert read_all(tmp_path / "heartbeat", 0)[0].ended == "OSError: no luck"


def test_a_disk_that_refuses_is_no_error(tmp_path: Path):
    Heartbeat(tmp_path / "nowhere", 0, 2).write()


def test_many_ranks_write_less_often():
    assert [interval_s(ranks) for ranks in (1, 8, 64, 1024)] == [1.0, 1.0, 3.2, 5.0]
