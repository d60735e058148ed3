"""The scheduler in Ray Tune: what it asks its policy, and a run of recorded curves."""

import numpy as np
import pytest
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from trustsweep.distributed.search.scheduler import ParetoScheduler
from trustsweep.distributed.search.stopping.policy import Policy, Verdict
from trustsweep.distributed.statistics.front import pareto_mask

GOALS = {"accuracy": "max", "ece": "min"}
CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


class Recorder(Policy):
    """Notes what it is asked, and stops what is called bad."""

    def __init__(self) -> None:
        super().__init__([], rungs=3)
        self.asked: list[tuple] = []

    def report(self, trial, rung, figures):
        self.asked.append((trial, rung, figures["accuracy"]))
        return Verdict(trial == "bad", "no hope", ("good",)) if trial == "bad" else Verdict()

    def end(self, trial, figures):
        self.asked.append((trial, "end", figures and figures["accuracy"]))


def trial(name: str, **config) -> Trial:
    return Trial("none", trial_id=name, config=config, stub=True)


def result(time: int, accuracy: float = 0.5, **more) -> dict:
    return {"training_iteration": time, "accuracy": accuracy, "ece": 0.1, **more}


def scheduler(**settings) -> ParetoScheduler:
    made = ParetoScheduler(GOALS, **{"max_t": 8, "rungs": [0.25, 0.5, 0.75], **settings})
    made.policy = Recorder()
    return made


def test_rungs_are_judged_once_and_other_results_pass():
    made, one = scheduler(), trial("one")
    for time in (1, 2, 3, 3, 4, 2, 4):  # back at 2: taken up from a checkpoint
        assert made.on_trial_result(None, one, result(time, time / 10)) == CONTINUE
    assert made.on_trial_result(None, one, {"ece": 0.0}) == CONTINUE  # without any time
    assert made.policy.asked == [("one", 0, 0.2), ("one", 1, 0.4)]


def test_a_stopped_trial_is_kept_with_its_verdict_and_not_ended():
    made, bad = scheduler(), trial("bad")
    assert made.on_trial_result(None, bad, result(2)) == STOP
    made.on_trial_complete(None, bad, result(2))
    assert made.stopped["bad"] == Verdict(True, "no hope", ("good",))
    assert made.policy.asked == [("bad", 0, 0.5)]
    assert "1 trial" in made.debug_string()


def test_a_policy_learns_of_full_trials_alone():
    made = scheduler()
    assert made.on_trial_result(None, trial("full"), result(8)) == STOP
    made.on_trial_complete(None, trial("full"), result(8, 0.9))
    made.on_trial_complete(None, trial("short"), result(5, 0.9))
    made.on_trial_error(None, trial("dead"))
    assert made.policy.asked == [
        ("full", "end", 0.9),
        ("short", "end", None),
        ("dead", "end", None),
    ]
    assert not made.stopped


def test_trials_may_differ_in_length():
    made = scheduler(max_t=lambda trial: trial.config["epochs"])
    made.on_trial_result(None, trial("short", epochs=4), result(2))
    made.on_trial_result(None, trial("long", epochs=16), result(2))
    made.on_trial_result(None, trial("long", epochs=16), result(8))
    assert [(name, rung) for name, rung, _ in made.policy.asked] == [("short", 1), ("long", 1)]


def test_halting_stops_without_a_verdict():
    halted = []
    made = scheduler(halting=lambda: bool(halted))
    assert made.on_trial_result(None, trial("good"), result(1)) == CONTINUE
    halted.append(True)
    assert made.on_trial_result(None, trial("bad"), result(2)) == STOP
    assert not made.stopped
    assert not made.policy.asked


@pytest.mark.parametrize("wrong", [{"rungs": [1.5]}, {"policy": "magic"}, {"constraints": ["x"]}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"rungs|policy|constraint"):
        ParetoScheduler(GOALS, max_t=8, **wrong)


def curve(quality: float, style: float, time: int) -> dict[str, float]:
    """Accuracy and error of calibration of a made-up training; `style` trades one for the other."""
    return {
        "accuracy": quality * (1 - 0.5**time) + 0.05 * style,
        "ece": 0.3 - 0.2 * quality + 0.05 * style + 0.3 * style * 0.5**time,
    }


class Training(tune.Trainable):
    """One step is one more point of a curve; Tune keeps the actor, as it does a slot."""

    def setup(self, config: dict) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict) -> bool:
        self.curve = (new_config["quality"], new_config["style"])
        return True

    def step(self) -> dict[str, float]:
        return curve(*self.curve, self.iteration + 1)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """None is needed."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """None was saved."""


@pytest.mark.slow
def test_a_tune_run_keeps_the_front_and_stops_what_is_behind(local_ray, tmp_path):
    made = ParetoScheduler(GOALS, max_t=8, policy="forecast", rungs=[0.25, 0.5, 0.75], learn_from=6)
    space = {"quality": tune.uniform(0, 1), "style": tune.uniform(0, 1)}
    results = tune.Tuner(
        tune.with_resources(Training, {"cpu": 0.5}),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=24, scheduler=made, max_concurrent_trials=2, reuse_actors=True
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    lengths = {r.metrics["trial_id"]: r.metrics["training_iteration"] for r in results}
    assert made.stopped
    assert {name for name, length in lengths.items() if length < 8} == set(made.stopped)
    assert all(
        lengths[other] for verdict in made.stopped.values() for other in verdict.dominated_by
    )
    finals = [curve(r.config["quality"], r.config["style"], 8) for r in results]
    values = np.array([[f["accuracy"], f["ece"]] for f in finals])
    best = pareto_mask(values, ["max", "min"])
    kept = [r.metrics["training_iteration"] == 8 for r in results]
    assert all(np.array(kept)[best])
