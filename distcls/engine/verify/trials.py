"""A short version of a recipe, trained in peace and trained under attack."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distcls.engine.verify.processes import Processes, run_state
from distcls.tracking.jsonl import read_rows

KILL_WITHIN_STEPS = 2  # after the step that was drawn: in the middle of a step, of a save, of a row


@dataclass(frozen=True)
class Trial:
    """One run and what was done to it. `missed` says that it was not done, because the run was over first."""

    run: Path
    processes: int
    story: str
    missed: str = ""


@dataclass
class Trials:
    """Runs the same short recipe in different ways.

    Args:
        recipe: the file. overrides: KEY=VALUE, the user's and `shortened`'s.
        folder: where the run folders go.
        steps: of each run.
        threads, cpu: see `Processes`.
        dice: draw the moments.
        say: told what is being done.
    """

    recipe: Path
    overrides: Sequence[str]
    folder: Path
    steps: int
    threads: int
    cpu: bool
    dice: random.Random
    say: Callable[[str], None] = field(default=lambda text: None)
    _step_s: float = 0.0  # of the undisturbed run, at the median

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
        """kill -9 at `kills` random moments, each followed by a new start; the last start ends the run."""
        run = self.folder / f"killed_{processes}"
        for kill, moment in enumerate(self._moments(kills), 1):
            with self._start(run, processes) as started:
                # Killed before its first checkpoint a run begins anew: the last kill at least has one to go on from.
                if not started.wait_for_step(moment, saved=kill == kills):
                    started.end("finished")  # faster than the killer; anything else is an error
                    break
                time.sleep(self.dice.uniform(0, KILL_WITHIN_STEPS * self._step_s))
                started.kill(self.dice)
        with self._start(run, processes) as started:
            started.end("finished")
        hit = [one["status"] for one in run_state(run)["attempts"]].count("killed")
        story = f"{_many(processes)}, kill -9 {_times(hit)} and resumed"
        return self._told(Trial(run, processes, story, self._missed(len(trained_by(run)) > 1)))

    def preempted(self, processes: int) -> Trial:
        """SIGUSR2 to one process at a random step: all save and leave, and the run goes on."""
        run = self.folder / f"preempted_{processes}"
        (moment,) = self._moments(1)
        self._until(run, processes, moment)
        with self._start(run, processes) as started:
            started.end("finished")
        hit = [one["status"] for one in run_state(run)["attempts"]].count("preempted")
        story = f"{_many(processes)}, preempted {_times(hit)} and resumed"
        return self._told(Trial(run, processes, story, self._missed(len(trained_by(run)) > 1)))

    def moved(self, counts: Sequence[int]) -> Trial:
        """A run that is preempted and goes on with another number of processes, through all of `counts`."""
        run = self.folder / f"moved_{'_'.join(map(str, counts))}"
        share = self.steps / len(counts)  # each of them gets to train a part: it stops some steps after it is asked to
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
        """Steps, in order, none so late that the run is over before it is disturbed."""
        return sorted(self.dice.sample(range(1, max(number, self.steps - 4) + 1), number))

    def _missed(self, done: bool) -> str:
        return "" if done else f"its {self.steps} steps were over before it could be interrupted and resumed"

    def _told(self, trial: Trial) -> Trial:
        self.say(trial.story)
        return trial


def trained_by(run: Path) -> list[int]:
    """Numbers of processes of the attempts that trained the run, in order.

    One that trained nothing, or only steps that a later attempt took anew, is none of them: a run with a single such
    attempt was never resumed.
    """
    attempts = run_state(run)["attempts"]
    numbers = sorted({row["attempt"] for row in read_rows(run) if "train/loss" in row})
    return [attempts[number - 1]["world_size"] for number in numbers]


def shortened(resolved: dict[str, Any], steps: int) -> list[str]:
    """Overrides that make a recipe short, with a row and a record of the batch for every step."""
    changes = ["train.epochs=null", f"train.max_steps={steps}", "train.log_every_steps=1"]
    changes += ["tracking.mode=disabled", "tracking.batches=true", "eval.every_epochs=1.0e+6"]
    changes += [f"checkpoint.every_steps={max(1, steps // 6)}", "checkpoint.resume=auto"]
    schedule = resolved["schedule"]
    if schedule.get("warmup_steps") or schedule.get("warmup_epochs"):  # of the whole run's length it would not fit
        changes += ["schedule.warmup_epochs=0.0", f"schedule.warmup_steps={max(1, steps // 4)}"]
    return changes


def _many(processes: int) -> str:
    return f"{processes} process{'es' if processes > 1 else ''}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
