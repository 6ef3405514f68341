"""Planners into one small policy by DAgger: play and label, learn, repeat. Ross et al. (2011), algorithm 3.1."""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from rich.text import Text

from datamodules.envs.protocol import Pool
from datamodules.recorded import Recorded
from trainers.acting.evaluation import Evaluation, Evaluator
from trainers.build.agent import load_weights
from trainers.distillation.labelled import LabelledEpisodes
from trainers.distillation.learn import learn
from trainers.distillation.options import Options
from trainers.distillation.query import played, replayed
from trainers.distillation.student_folder import save
from trainers.distillation.teachers import Teacher
from trainers.process.interrupt import Interrupt, Interrupted
from trainers.run_folder.checkpoint import load_checkpoint
from trainers.run_folder.find import checkpoint_to_resume
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths
from trainers.run_folder.statistics import evaluation_metrics
from trainers.run_folder.three_digits import three_digits
from trainers.training.progress import RunProgress
from worldmodel.agents.planner_teacher import PlannerTeacher
from worldmodel.agents.student import Student
from worldmodel.interfaces import Acts

REPLAYED_AT_ONCE = 10  # episodes


@dataclass(slots=True)
class Progress:
    """Where a distillation stands, in plain values: what a checkpoint holds beside the weights."""

    round: int = 0  # the next one
    episodes: list[int] = field(default_factory=list)  # labelled, of each task
    replayed: list[int] = field(default_factory=list)  # those of them that came from the teacher's replay
    played: list[int] = field(default_factory=list)  # control steps, of each task
    decisions: int = 0  # played, over all tasks
    updates: int = 0
    seconds: float = 0.0
    teacher_returns: list[list[float]] = field(default_factory=list)  # of each task's evaluation, once it was played

    @property
    def env_steps(self) -> int:
        """Control steps played, over all tasks."""
        return sum(self.played)

    @property
    def position(self) -> int:
        """What names a checkpoint: it grows with every round."""
        return self.updates + self.env_steps


class Dagger:
    """The rounds of one run, each of which ends with a checkpoint; a round that is broken off is played again.

    teachers: in the order of the tasks' numbers. pools: at least `options.envs` environments of each.
    student: is trained in place.
    """

    def __init__(
        self,
        options: Options,
        paths: RunPaths,
        teachers: Sequence[Teacher],
        pools: Sequence[Pool],
        student: Student,
        interrupt: Interrupt,
    ) -> None:
        self.options, self.paths, self.teachers, self.pools, self.student = options, paths, teachers, pools, student
        self.planners = [PlannerTeacher(teacher.agent) for teacher in teachers]
        zeros = [0] * len(teachers)
        self.progress = Progress(episodes=[*zeros], replayed=[*zeros], played=[*zeros])
        self.evaluations: list[Evaluation] = []  # of the student, in each task
        self._interrupt, self._doing, self._done = interrupt, "", 0
        self._display = RunProgress(title=f"distill {', '.join(teacher.name for teacher in teachers)}")
        self._metrics, self._start = CSVMetrics(run_dir=paths.root), time.monotonic()
        self._continue()
        folders = [paths.root / "labels" / teacher.name for teacher in teachers]
        self.labels = [LabelledEpisodes(f, count=n) for f, n in zip(folders, self.progress.episodes, strict=True)]

    def run(self) -> None:
        """All rounds that are left; raises Interrupted where a signal asks to stop."""
        tasks = range(len(self.teachers))
        with closing(self._display):
            if not self.progress.teacher_returns:
                self.progress.teacher_returns = [self._evaluate(t, self.teachers[t].agent).returns for t in tasks]
            while self.progress.round < self.options.rounds:
                for task in tasks:
                    self._reanalyse(task)
                    self._play(task)
                self._learn()
            if not self.evaluations:  # of a run that was finished already
                self.evaluations = [self._evaluate(task, self.student) for task in tasks]
            self._metrics.finalize("finished")

    # --- a round --------------------------------------------------------------------------------------------------

    def _reanalyse(self, task: int) -> None:
        """Label the next replayed episodes, newest first, up to the round's share of decisions."""
        folder, progress = self.teachers[task].replay, self.progress
        if folder is None or not self.options.reanalyse:
            return
        self._begin("labelled decisions of the replay", task)
        with closing(Recorded(folder)) as recorded:
            order = np.arange(recorded.episodes)[::-1][progress.replayed[task] :]
            before = np.cumsum(recorded.lengths[order]) - recorded.lengths[order]
            chosen = iter(order[before < self.options.reanalyse].tolist())
            while some := [recorded.trajectory(number) for number in islice(chosen, REPLAYED_AT_ONCE)]:
                numbers = {"seed": self.options.seed, "first": progress.replayed[task]}
                turn = partial(self._turn, len(some))
                for episode in replayed(some, self.planners[task], **numbers, on_turn=turn):
                    self.labels[task].add(episode)
                progress.replayed[task] += len(some)

    def _play(self, task: int) -> None:
        """Label real episodes of teacher and student; the student makes no decision before it has learned."""
        options, progress = self.options, self.progress
        self.student.task = task
        self._begin("played and labelled decisions", task)
        for labelled, episode in played(
            self.pools[task],
            self.planners[task],
            self.student.eval() if progress.round else None,
            teacher_share=options.teacher_share**progress.round,
            env_steps=options.env_steps * (progress.round + 1) // options.rounds - progress.played[task],
            envs=options.envs,
            seed=options.seed,
            first=len(self.labels[task].episodes),
            on_turn=partial(self._turn, options.envs),
        ):
            self.labels[task].add(labelled)
            progress.played[task] += episode.env_steps
            progress.decisions += episode.decisions
            self._display.update(env_steps=progress.env_steps)

    def _learn(self) -> None:
        """The round's updates, what they are worth, and the checkpoint."""
        options, progress = self.options, self.progress
        self._begin("updates")
        learned = learn(
            self.student,
            self.labels,
            updates=options.updates,
            windows=options.batch,
            length=options.length,
            learning_rate=options.learning_rate,
            seed=options.seed * 1009 + progress.round,
            on_turn=self._turn,
        )
        self.evaluations = [self._evaluate(task, self.student) for task in range(len(self.teachers))]
        progress.updates += learned.updates
        progress.episodes = [len(labels.episodes) for labels in self.labels]
        progress.round += 1
        progress.seconds += time.monotonic() - self._start
        self._start = time.monotonic()
        self._display.update(updates=progress.updates, loss=learned.loss)
        self._log(learned.loss, learned.held_out)
        save(self.paths, self.student, asdict(progress), progress=progress.position)

    def _evaluate(self, task: int, agent: Student | Any) -> Evaluation:
        """Episodes with the seeds of the teacher's own evaluation, which nobody has learned from."""
        pool, acts, options = self.pools[task], agent.eval(), self.options
        assert isinstance(acts, Acts)
        self.student.task = task
        self._begin(f"decisions of the {'student' if agent is self.student else 'teacher'}'s evaluation", task)
        evaluator = Evaluator(lambda _: pool, envs=options.envs, seed=int(self.teachers[task].config["seed"]))
        return evaluator.run(acts, episodes=options.episodes, should_stop=partial(self._is_stopped, options.envs))

    def _begin(self, doing: str, task: int | None = None) -> None:
        several = f" in {self.teachers[task].name}" if task is not None and len(self.teachers) > 1 else ""
        self._doing, self._done = f"{doing}{several}", 0

    def _turn(self, count: int = 1) -> None:
        if self._is_stopped(count):
            raise Interrupted

    def _is_stopped(self, count: int) -> bool:
        """Whether a signal asked to stop; shows that so much more is done."""
        self._done += count
        number, of = min(self.progress.round + 1, self.options.rounds), self.options.rounds
        self._display.update(phase=f"round {number} of {of}: {self._done:,} {self._doing}")
        return self._interrupt.is_set()

    # --- what a person sees, and where a run continues ------------------------------------------------------------

    def _log(self, loss: float, held_out: float) -> None:
        """A row of metrics.csv, and a line for a person."""
        progress, labels = self.progress, sum(labels.decisions for labels in self.labels)
        tasks = [teacher.name for teacher in self.teachers]
        means = [evaluation.return_mean for evaluation in self.evaluations]
        row: dict[str, float] = {
            "env_steps": progress.env_steps,
            "decisions": progress.decisions,
            "updates": progress.updates,
        }
        row |= {"seconds": progress.seconds, "labels": labels, "loss/student": loss, "held_out/student": held_out}
        row |= evaluation_metrics(self.evaluations[0].returns)
        self._metrics.log_metrics({**row, **{f"eval/{name}": mean for name, mean in zip(tasks, means, strict=True)}})
        shown = [
            f"{name} {three_digits(mean)} of {three_digits(float(np.mean(best)))}"
            for name, mean, best in zip(tasks, means, progress.teacher_returns, strict=True)
        ]
        self.say(
            f"round {progress.round} of {self.options.rounds} | {labels:,} labels | {progress.updates:,} updates | "
            f"held out {held_out:.3f} | {', '.join(shown)}"
        )

    def say(self, line: str) -> None:
        """A line on standard error."""
        self._display.print(Text(line))

    def _continue(self) -> None:
        """From the newest checkpoint, where there is one."""
        self._display.update(total_env_steps=self.options.env_steps * len(self.teachers))
        checkpoint = checkpoint_to_resume(self.paths)
        if checkpoint is None:
            self._metrics.rewind(updates=-1)
            return
        content = load_checkpoint(checkpoint)
        load_weights(self.student, content["state_dict"])
        self.progress = Progress(**content["distillation"])
        self._metrics.rewind(updates=self.progress.updates, env_steps=self.progress.env_steps)
        self._display.update(updates=self.progress.updates, env_steps=self.progress.env_steps)
