"""Resuming a run: which changes are allowed, and what an earlier run teaches the sampler."""

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

#: Sections that every metric of a run depends on: with other values, trials are not comparable.
_FIXED = ("evaluation", "fidelity")
#: Except this: it affects no trial of the search, and a front may be evaluated again.
_FINAL = "evaluation.final"
#: Stands for the revision of the code among the changes.
CODE = "code"


def check_changes(run: Run, study: Study, manifest: Manifest, accepted: Iterable[str]) -> list[str]:
    """The keys in which `study` differs from the run's own.

    `accepted` keys (``search.sampler``, or a whole section, ``space``) may differ; the number of
    trials may always grow. ``code`` stands for the revision of the code: under another one
    the same config is another trial, and those trained so far stay marked with theirs.

    Raises:
        UserError: names every other change, and those that cannot be accepted.
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
            f"{run.path}: {'; '.join(broken)}. Its trials were evaluated differently and "
            "would not be comparable. Start a new run."
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
    `UserError` if there is no run, nothing in it, or if it was evaluated differently or on other
    data: its metrics would then not be comparable with those of `study`.
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
            f"{source}: evaluated differently ({'; '.join(other)}), so its metrics would mislead "
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
    """Record the trials of an earlier run for the sampler, each once."""
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
    """The message for changes that were not accepted."""
    sentences = []
    if code := [text for text in refused if text.startswith(f"{CODE}: ")]:
        sentences.append(
            f"the code has changed since ({code[0]}). Trials trained so far stay marked with the "
            f"revision that trained them, and the front will hold both. Go on with --accept {CODE},"
            " or with that revision."
        )
    if study := [text for text in refused if text not in code]:
        sentences.append(
            f"the study has changed since: {'; '.join(study)}. Confirm a change with "
            "--accept KEY, or leave the study out to resume it as it was."
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
