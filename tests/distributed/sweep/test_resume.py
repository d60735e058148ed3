"""Taking a run up again: what may have changed, what the policy hears, what earlier runs teach."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import MANIFEST_NAME, Manifest
from trustsweep.distributed.run.folder import Run, objectives_of
from trustsweep.distributed.run.ledger import SEEDS, Ledger, Record, State
from trustsweep.distributed.search.stopping.policy import Metrics, Policy, Verdict
from trustsweep.distributed.search.study_scheduler import replay
from trustsweep.distributed.sweep.resume import check_changes, lessons, teach
from trustsweep.distributed.version import code_revision
from trustsweep.search_spaces.study import Study, apply_overrides

RAW = {
    "name": "s",
    "methods": ["unet"],
    "data": "data/here",
    "objectives": ["dice_area", "clean.ece"],
    "search": {"trials": 8},
    "space": {"epochs": 4},
    "evaluation": {"final": "fast"},
}


def study_of(*overrides: str) -> Study:
    return Study.model_validate(apply_overrides(RAW, overrides))


def learning(source: Path, *overrides: str) -> Study:
    """The study with a warm start from `source`."""
    return study_of(f"search.warm_start={source}", *overrides)


def begin(folder, phantoms, **session: str) -> Run:
    run = Run.create(folder)
    run.write_study(study_of(), Manifest.load(phantoms))
    run.ledger.session(**{"code": code_revision(), **session})
    return run


@pytest.fixture
def run(tmp_path, phantoms) -> Run:
    return begin(tmp_path / "run", phantoms)


@pytest.mark.parametrize(
    ("overrides", "accepted", "expected"),
    [
        ([], [], []),
        (["data=elsewhere"], [], []),  # its fingerprint says whether they are the same
        (["search.trials=9"], [], ["search.trials"]),
        (["search.trials=7"], ["search.trials"], ["search.trials"]),
        (["search.sampler=random"], ["search.sampler"], ["search.sampler"]),
        (
            ["search.sampler=random", "search.trials=9"],
            ["search"],
            ["search.sampler", "search.trials"],
        ),
        (["space.epochs=5", "space.seed=1"], ["space"], ["space.epochs", "space.seed"]),
        (["objectives=[dice_area]"], ["objectives"], ["objectives"]),
        (["seeds=5"], ["seeds"], ["seeds"]),
        # The front may be judged by more.
        (["evaluation.final=full"], ["evaluation.final"], ["evaluation.final"]),
    ],
)
def test_what_was_meant_to_change_is_accepted_and_listed(
    run, phantoms, overrides, accepted, expected
):
    study = study_of(*overrides)
    assert check_changes(run, study, Manifest.load(phantoms), accepted) == expected


@pytest.mark.parametrize(
    ("overrides", "accepted", "words"),
    [
        (["search.trials=7"], [], ["search.trials: 8 -> 7", "--accept KEY"]),
        (["search.sampler=random"], ["search.seed"], ["search.sampler: tpe -> random"]),
        (["seeds=5", "name=t"], ["seeds"], ["name: s -> t"]),
        (["space.epochs=5"], [], ["space.epochs: 4 -> 5"]),
        (["space.seed=1"], [], ["space.seed: None -> 1"]),
        (["evaluation.attack_steps=9"], ["evaluation"], ["attack_steps: 7 -> 9", "new run"]),
        (["evaluation.final=full"], [], ["evaluation.final: fast -> full", "--accept KEY"]),
        (["fidelity.data=0.5"], ["fidelity.data"], ["fidelity.data: 1.0 -> 0.5", "new run"]),
    ],
)
def test_what_was_not_meant_to_change_is_named_and_refused(
    run, phantoms, overrides, accepted, words
):
    with pytest.raises(UserError) as error:
        check_changes(run, study_of(*overrides), Manifest.load(phantoms), accepted)
    assert all(word in str(error.value) for word in [str(run.path), *words]), str(error.value)


def test_a_key_accepts_itself_and_what_is_below_it_but_no_namesake(run, phantoms):
    manifest = Manifest.load(phantoms)
    with pytest.raises(UserError, match=r"search\.sampler: tpe -> gp"):
        check_changes(run, study_of("search.sampler=gp"), manifest, ["search.s"])
    with pytest.raises(UserError, match="seeds: 1 -> 2"):
        check_changes(run, study_of("seeds=2"), manifest, ["seed"])


def test_other_data_are_refused_whatever_is_accepted(run, phantoms, tmp_path):
    raw = json.loads((phantoms / MANIFEST_NAME).read_text())
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({**raw, "fingerprint": "other"}))
    with pytest.raises(UserError, match="another data set than the one"):
        check_changes(run, study_of(), Manifest.load(tmp_path), ["data", "space"])


def test_another_revision_of_the_code_has_to_be_accepted(tmp_path, phantoms):
    run = begin(tmp_path / "run", phantoms, code="0123456789ab")
    manifest = Manifest.load(phantoms)
    with pytest.raises(UserError) as error:
        check_changes(run, study_of("search.sampler=random"), manifest, [])
    for words in (
        f"code: 0123456789ab -> {code_revision()}", "stay marked", "--accept code",
        "search.sampler: tpe -> random",
    ):  # fmt: skip
        assert words in str(error.value)
    assert check_changes(run, study_of(), manifest, ["code"]) == ["code"]


def test_a_run_that_did_not_record_its_code_has_to_be_accepted(tmp_path, phantoms):
    run = Run.create(tmp_path / "run")
    run.write_study(study_of(), Manifest.load(phantoms))
    run.ledger.session(version="0.0.1")
    with pytest.raises(UserError, match="code: not recorded ->"):
        check_changes(run, study_of(), Manifest.load(phantoms), [])


class Recording(Policy):
    """Stops where the first objective is below 0.2, and notes what it hears."""

    def __init__(self) -> None:
        super().__init__(objectives_of(study_of()), rungs=3)
        self.heard: list[tuple] = []

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        self.heard.append(("report", trial, rung, dict(metrics)))
        stop = metrics["dice_area"] < 0.2
        return Verdict(stop, "too low" if stop else "", ("best",) if stop else ())

    def end(self, trial: str, metrics: Metrics | None) -> None:
        self.heard.append(("end", trial, metrics and dict(metrics)))


class Live:
    """A run as callbacks and scheduler make it: the ledger first, then the policy."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.policy = ledger, Recording()

    def start(self, name: str, stage: str = "search") -> None:
        self.ledger.start(Record(id=name, config={}, stage=stage))

    def rung(self, name: str, rung: int, dice: float) -> Verdict:
        figures = {"dice_area": dice, "clean.ece": 0.5}
        self.ledger.epoch(name, rung + 1, 1.0, rung, figures)
        return self.policy.report(name, rung, figures)

    def end(self, name: str, state: State, **metrics: float) -> None:
        record = replace(self.ledger.records[name], state=state, metrics=metrics)
        self.ledger.end(record)
        if state is not State.STOPPED:
            self.policy.end(name, metrics if state is State.COMPLETED else None)


def test_a_replayed_policy_hears_exactly_what_the_live_one_heard(tmp_path):
    live = Live(Ledger(tmp_path))
    for name in "abcd":
        live.start(name)
    live.rung("b", 0, 0.5)
    live.rung("a", 0, 0.6)
    live.ledger.epoch("a", 2, 2.0)  # no rung
    live.rung("c", 0, 0.1)
    live.end("c", State.STOPPED, dice_area=0.1)
    live.end("d", State.FAILED)
    live.rung("a", 2, 0.7)
    live.end("a", State.COMPLETED, dice_area=0.8, **{"clean.ece": 0.1})
    # The second stage, trained at full length, is nothing that a search learns from.
    live.start("s", SEEDS)
    live.ledger.epoch("s", 1, 1.0, 0, {"dice_area": 0.0})
    live.ledger.end(replace(live.ledger.records["s"], state=State.COMPLETED))
    live.rung("b", 1, 0.55)
    again = Recording()
    assert replay(again, Ledger(tmp_path)) == {}
    assert again.heard == live.policy.heard
    assert len(again.heard) == 7


def test_a_stop_that_was_not_carried_out_is_pending(tmp_path):
    live = Live(Ledger(tmp_path))
    live.start("a")
    live.start("b")
    verdict = live.rung("a", 1, 0.1)
    live.rung("b", 0, 0.9)
    assert replay(Recording(), Ledger(tmp_path)) == {"a": verdict}
    assert verdict.dominated_by == ("best",)


def finished(name: str, state: State = State.COMPLETED, **more) -> Record:
    metrics = {"dice_area": 0.5, "clean.ece": 0.1}
    return replace(Record(id=name, config={}, state=state, metrics=metrics), **more)


def test_only_what_has_the_objectives_teaches_and_it_does_so_once(run, tmp_path, phantoms):
    old = begin(tmp_path / "old", phantoms)
    for record in (
        finished("good"),
        finished("partial", metrics={"dice_area": 0.5}),
        finished("stopped", State.STOPPED, metrics={}),
        finished("failed", State.FAILED),
        finished("repeat", stage=SEEDS),
    ):
        old.ledger.end(record)
    old.ledger.start(Record(id="running", config={}))
    records = lessons(learning(old.path, "search.trials=9"), Manifest.load(phantoms))
    for _ in range(2):
        teach(run.ledger, records)
    assert [r.id for r in Ledger(run.path).priors] == ["good", "stopped"]
    assert not Ledger(run.path).records


def test_a_run_without_anything_to_learn_from_is_refused(run, tmp_path, phantoms):
    empty = begin(tmp_path / "empty", phantoms)
    manifest = Manifest.load(phantoms)
    with pytest.raises(UserError, match=r"no completed trial with dice_area"):
        lessons(learning(empty.path), manifest)
    with pytest.raises(UserError, match="no run here"):
        lessons(learning(tmp_path), manifest)


def test_a_run_that_was_judged_otherwise_teaches_nothing(run, phantoms):
    run.ledger.end(finished("good"))
    manifest = Manifest.load(phantoms)
    assert len(lessons(learning(run.path, "evaluation.final=full"), manifest)) == 1
    with pytest.raises(UserError, match=r"evaluation.epsilons was .* and is \[0.0, 0.3\]"):
        lessons(learning(run.path, "evaluation.epsilons=[0, 0.3]"), manifest)
    with pytest.raises(UserError, match="on other data"):
        lessons(learning(run.path), replace(manifest, fingerprint="another"))
