"""The second stage: each model of the front, and the baseline, under every seed exactly once."""

import json
from dataclasses import replace

import pytest

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.run.exports import write_exports
from trustsweep.distributed.run.folder import Front, Run
from trustsweep.distributed.run.ledger import SEEDS, Record, State, trial_id
from trustsweep.distributed.sweep.repeats import repeats
from trustsweep.search_spaces.study import Study


def identify(config):
    return trial_id(config, "data", "1", {})


def study_of(**changes) -> Study:
    raw = {
        "name": "s",
        "methods": ["unet"],
        "objectives": ["dice_area", "clean.ece"],
        "seeds": 3,
        **changes,
    }
    return Study.model_validate(raw)


def found(study: Study, area: float, ece: float, rate: float, **more) -> Record:
    config = {**study.search_space().defaults("unet"), "learning_rate": rate}
    metrics = {"dice_area": area, "clean.ece": ece, "clean.dice": 0.9}
    return replace(
        Record(id=identify(config), config=config, state=State.COMPLETED, metrics=metrics), **more
    )


@pytest.fixture
def run(tmp_path, phantoms) -> Run:
    study = study_of()
    run = Run.create(tmp_path / "run")
    run.write_study(study, Manifest.load(phantoms))
    run.ledger.end(found(study, 0.8, 0.2, 0.001))
    run.ledger.end(found(study, 0.5, 0.05, 0.002))
    run.ledger.end(found(study, 0.4, 0.2, 0.003))  # beaten
    run.ledger.end(found(study, 0.9, 0.01, 0.004, state=State.STOPPED))
    return run


def front(run: Run, study: Study) -> list[Record]:
    """That of the run's trials under another study."""
    objectives = run.reread().objectives
    return Front(objectives, study.constraints, run.ledger.records.values()).records


def wanted(run: Run, study: Study) -> list[Record]:
    """What is still to be trained."""
    records = repeats(study, front(run, study), identify)
    return [record for record in records if record.id not in run.ledger.records]


def test_the_front_is_trained_under_seeds_that_the_search_did_not_use(run):
    records = wanted(run, study_of())
    assert [(r.of, r.config["seed"]) for r in records] == [
        (model.id, seed) for model in run.front for seed in (1, 2, 3)
    ]
    for record in records:
        original = run.ledger.records[record.of].config
        assert {**record.config, "seed": original["seed"]} == original
        assert record.stage == SEEDS
        assert record.state is State.RUNNING
        assert record.id == identify(record.config)


def test_the_seed_of_the_search_is_not_repeated_whichever_it_is(run):
    study = study_of(space={"seed": 2})
    run.ledger.end(found(study, 0.95, 0.01, 0.005))
    records = wanted(run, study)
    assert [r.config["seed"] for r in records] == [0, 1, 3]


def test_a_baseline_comes_with_a_front_and_under_every_seed(run):
    study = study_of(baseline={"method": "unet", "regime": "none", "learning_rate": 0.0005})
    records = [r for r in wanted(run, study) if r.of == "baseline"]
    assert [r.config["seed"] for r in records] == [1, 2, 3]
    assert all(r.config["learning_rate"] == 0.0005 for r in records)


def test_variants_come_with_their_baseline_and_under_every_seed(run):
    study = study_of(
        baseline={"method": "unet", "learning_rate": 0.0005},
        variants={"fast": {"learning_rate": 0.05}},
    )
    records = [r for r in wanted(run, study) if r.of == "fast"]
    assert [r.config["seed"] for r in records] == [1, 2, 3]
    assert all(r.config["learning_rate"] == 0.05 for r in records)


def test_a_stage_half_done_wants_the_rest_alone(run):
    study = study_of(baseline={"method": "unet"})
    before = wanted(run, study)
    run.ledger.start(before[0])
    run.ledger.end(replace(before[1], state=State.FAILED))
    assert wanted(Run.open(run.path), study) == before[2:]


def test_a_baseline_that_is_on_the_front_or_was_searched_is_trained_once_a_seed(run):
    for rate in (0.001, 0.003):  # on the front, and beaten
        study = study_of(baseline={"method": "unet", "learning_rate": rate})
        everything = repeats(study, front(run, study), identify)
        assert len({r.id for r in everything}) == len(everything)
        ids = {identify({**study.references()["baseline"], "seed": seed}) for seed in (1, 2, 3)}
        assert ids <= {r.id for r in everything}
        run.write_study(study, run.manifest)
        write_exports(run.reread())
        assert set(json.loads((run.path / "summary.json").read_text())["references"]["baseline"])


def test_there_is_nothing_to_repeat_for_one_seed_or_without_a_front(run, tmp_path, phantoms):
    assert wanted(run, study_of(seeds=1)) == []
    strict = study_of(constraints=["clean.dice >= 0.99"], baseline={"method": "unet"})
    assert wanted(run, strict) == []
