"""Trains a short version of a recipe undisturbed, killed, preempted, and on changing numbers of processes."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distcls.engine.verify.processes import Processes, run_state
from distcls.tracking.jsonl import read_rows

KILL_WITHIN_STEPS = 2  # steps' time after the drawn step: may hit the middle of a step, a save or a row


@dataclass(frozen=True)
class Trial:
    """One run and what was done to it. `missed` is set if the run was over before it could be interrupted."""

    run: Path
    processes: int
    story: str
    missed: str = ""


@dataclass
class Trials:
    """Runs the same short recipe in different ways.

    Args:
        recipe: its file.
        overrides: KEY=VALUE, the user's and those of `shortened`.
        folder: for the run folders.
        steps: of each run.
        threads, cpu: see `Processes`.
        dice: draw the moments of interruption.
        say: receives progress messages.
    """

    recipe: Path
    overrides: Sequence[str]
    folder: Path
    steps: int
    threads: int
    cpu: bool
    dice: random.Random
    say: Callable[[str], None] = field(default=lambda text: None)
    _step_s: float = 0.0  # median of the undisturbed run

    def whole(self, processes: int) -> Trial:
        trial = Trial(self.folder / f"whole_{processes}", processes, f"{_many(processes)}, undisturbed")
        began = time.monotonic()
        with self._start(trial.run, processes) as started:
            started.end("finished")
        timed = [row["perf/step_ms"] for row in read_rows(trial.run) if "perf/step_ms" in row]
        self._step_s = statistics.median(timed) / 1000
        self.say(f"{trial.story}: {self.steps} steps, {time.monotonic() - began:.0f} s")
        return trial

    def killed(self, processes: int, kills: int) -> Trial:
        """kill -9 at `kills` random moments, each followed by a restart; the last one finishes the run."""
        run = self.folder / f"killed_{processes}"
        for kill, moment in enumerate(self._moments(kills), 1):
            with self._start(run, processes) as started:
                # A run that is killed before its first checkpoint starts over, so the last kill waits for one.
                if not started.wait_for_step(moment, saved=kill == kills):
                    started.end("finished")  # over before the kill; any other status is an error
                    break
                time.sleep(self.dice.uniform(0, KILL_WITHIN_STEPS * self._step_s))
                started.kill(self.dice)
        with self._start(run, processes) as started:
            started.end("finished")
        hit = [one["status"] for one in run_state(run)["attempts"]].count("killed")
        story = f"{_many(processes)}, kill -9 {_times(hit)} and resumed"
        return self._told(Trial(run, processes, story, self._missed(len(trained_by(run)) > 1)))

    def preempted(self, processes: int) -> Trial:
        """SIGUSR2 to one process at a random step: all processes save and exit, and the run is resumed."""
        run = self.folder / f"preempted_{processes}"
        (moment,) = self._moments(1)
        self._until(run, processes, moment)
        with self._start(run, processes) as started:
            started.end("finished")
        hit = [one["status"] for one in run_state(run)["attempts"]].count("preempted")
        story = f"{_many(processes)}, preempted {_times(hit)} and resumed"
        return self._told(Trial(run, processes, story, self._missed(len(trained_by(run)) > 1)))

    def moved(self, counts: Sequence[int]) -> Trial:
        """A run that is repeatedly preempted and resumed with the next number of processes in `counts`."""
        run = self.folder / f"moved_{'_'.join(map(str, counts))}"
        share = self.steps / len(counts)  # each attempt trains about this many: it stops some steps after the request
        for part, processes in enumerate(counts[:-1]):
            self._until(run, processes, round((part + self.dice.uniform(0.1, 0.5)) * share))
        with self._start(run, counts[-1]) as started:
            started.end("finished")
        seen = trained_by(run)
        story = f"moved over {' -> '.join(map(str, seen))} processes"
        return self._told(Trial(run, 0, story, self._missed(set(seen) == set(counts))))

    def _until(self, run: Path, processes: int, moment: int) -> None:
        with self._start(run, processes) as started:
            if started.wait_for_step(moment):
                started.ask_to_stop(self.dice)
            started.end("preempted", "finished")

    def _start(self, run: Path, processes: int) -> Processes:
        return Processes([str(self.recipe), *self.overrides], run, processes, threads=self.threads, cpu=self.cpu)

    def _moments(self, number: int) -> list[int]:
        """Random steps in ascending order, early enough for the run to be interrupted before it ends."""
        return sorted(self.dice.sample(range(1, max(number, self.steps - 4) + 1), number))

    def _missed(self, done: bool) -> str:
        return "" if done else f"its {self.steps} steps were over before it could be interrupted and resumed"

    def _told(self, trial: Trial) -> Trial:
        self.say(trial.story)
        return trial


def trained_by(run: Path) -> list[int]:
    """The numbers of processes of the attempts that contributed steps to the run, in order.

    An attempt that trained no step, or only steps that a later one repeated, does not count: a run with a single
    contributing attempt was never resumed.
    """
    attempts = run_state(run)["attempts"]
    numbers = sorted({row["attempt"] for row in read_rows(run) if "train/loss" in row})
    return [attempts[number - 1]["world_size"] for number in numbers]


def shortened(resolved: dict[str, Any], steps: int) -> list[str]:
    """Overrides that make a recipe short, with a metrics row and a batch record for every step."""
    changes = ["train.epochs=null", f"train.max_steps={steps}", "train.log_every_steps=1"]
    changes += ["tracking.mode=disabled", "tracking.batches=true", "eval.every_epochs=1.0e+6"]
    changes += [f"checkpoint.every_steps={max(1, steps // 6)}", "checkpoint.resume=auto"]
    schedule = resolved["schedule"]
    if schedule.get("warmup_steps") or schedule.get("warmup_epochs"):  # the full run's warm-up would not fit
        changes += ["schedule.warmup_epochs=0.0", f"schedule.warmup_steps={max(1, steps // 4)}"]
    return changes


def _many(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
