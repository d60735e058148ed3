"""Taking a run up again: what may have changed, what is known, what an earlier run can teach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import SEARCH, Ledger, Record, State
from trustsweep.distributed.version import code_revision
from trustsweep.search_spaces.study import Study
from trustsweep.trainables.registry import FULL

#: What every figure of a run depends on alike: with another value, its trials do not compare.
_FIXED = ("evaluation", "fidelity")
#: But for this, which judges no trial of the search: a front may be judged anew by more.
_FINAL = "evaluation.final"
#: Stands for the revision of the code among the changes.
CODE = "code"


def check_changes(run: Run, study: Study, manifest: Manifest, accepted: Iterable[str]) -> list[str]:
    """The keys in which `study` differs from the run's own.

    `accepted` keys (``search.sampler``, or a whole section, ``space``) are meant to differ; more
    trials may always be asked for. ``code`` stands for the revision of the code: under another one
    the same config is another trial, and those trained so far stay marked with theirs.

    Raises:
        UserError: names every other change, and those that no run can survive.
    """
    old, new = _leaves(run.study), _leaves(study)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    revisions = [session.get(CODE, "not recorded") for session in run.ledger.sessions[-1:]]
    if revisions not in ([], [code_revision()]):
        changed.add(CODE)
        old[CODE], new[CODE] = revisions[0], code_revision()
    if run.manifest.fingerprint != manifest.fingerprint:
        raise UserError(
            f"{study.data}: another data set than the one that {run.path} was begun with. Name "
            "that one with --data, or start a new run."
        )
    texts = {key: f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(changed)}
    broken = [
        text
        for key, text in texts.items()
        if _within(key, _FIXED) and (key != _FINAL or new[key] != FULL)
    ]
    if broken:
        raise UserError(
            f"{run.path}: {'; '.join(broken)}. Its trials were judged otherwise and would not "
            "compare. Start a new run."
        )
    meant = (
        *accepted,
        *(["search.trials"] if study.search.trials > run.study.search.trials else []),
    )
    if refused := [text for key, text in texts.items() if not _within(key, meant)]:
        raise UserError(_unmeant(run.path, refused))
    return list(texts)


def lessons(study: Study, manifest: Manifest) -> list[Record]:
    """The trials that the sampler can learn from of the study's `search.warm_start`; none without.

    They are its completed trials that have every objective, and those that were stopped. Raises
    `UserError` if there is no run, nothing in it, or if it was judged otherwise or on other data:
    its figures and those of `study` on `manifest`'s data would be other measures of one name.
    """
    if study.search.warm_start is None:
        return []
    source = Path(study.search.warm_start)
    run = Run.open(source)
    old, new = _leaves(run.study), _leaves(study)
    other = [
        f"{key} was {old.get(key)} and is {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if _within(key, ("evaluation",)) and key != _FINAL and old.get(key) != new.get(key)
    ]
    if Manifest.load(run.path).fingerprint != manifest.fingerprint:
        other.append("on other data")
    if other:
        raise UserError(
            f"{source}: judged otherwise ({'; '.join(other)}), so that its figures would mislead "
            "the sampler. Name another run, or leave --warm-start out."
        )
    names = study.objectives
    usable = [record for record in run.ledger.records.values() if _teaches(record, names)]
    if not usable:
        raise UserError(
            f"{source}: no completed trial with {', '.join(names)}, so nothing to start from. Name "
            "another run, or leave --warm-start out."
        )
    return usable


def teach(ledger: Ledger, records: Iterable[Record]) -> None:
    """Keep what an earlier run has found for the sampler, each trial once."""
    known = {record.id for record in ledger.priors}
    for record in records:
        if record.id not in known:
            ledger.prior(record)


def _teaches(record: Record, objectives: list[str]) -> bool:
    if record.stage != SEARCH:
        return False
    complete = record.state is State.COMPLETED and set(objectives) <= record.metrics.keys()
    return complete or record.state is State.STOPPED


def _unmeant(run: Path, refused: list[str]) -> str:
    """What to say of changes that nobody has accepted."""
    sentences = []
    if code := [text for text in refused if text.startswith(f"{CODE}: ")]:
        sentences.append(
            f"the code has changed since ({code[0]}). Trials trained so far stay marked with the "
            f"revision that trained them, and the front will hold both. Go on with --accept {CODE},"
            " or with that revision."
        )
    if study := [text for text in refused if text not in code]:
        sentences.append(
            f"the study has changed since: {'; '.join(study)}. Say which change is meant with "
            "--accept KEY, or leave the study out to go on as it was."
        )
    return f"{run}: {' Also '.join(sentences)}"


def _within(key: str, sections: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or lies below one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _leaves(study: Study) -> dict[str, Any]:
    """Every value of a study by its dotted key."""
    leaves: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            leaves[prefix] = value

    walk("", study.model_dump(mode="json"))
    # The same data may lie elsewhere by now; its fingerprint says whether they are the same.
    del leaves["data"]
    return leaves
