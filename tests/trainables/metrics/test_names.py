"""A full name is read and written by one type, whatever stands in it."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables import conditions
from trustsweep.trainables.conditions import ConditionName
from trustsweep.trainables.evaluation import EvaluationPlan
from trustsweep.trainables.metrics import names
from trustsweep.trainables.metrics.catalog import AREAS, COSTS, METRICS, all_names, metric_info
from trustsweep.trainables.metrics.names import MetricName
from trustsweep.trainables.registry import CONDITIONS

PLAN = EvaluationPlan(
    epsilons=(0.0, 0.0000125, 0.01),
    corruptions=(("gaussian-noise", 1), ("contrast-down", 5)),
    sites=True,
)
KINDS = st.builds(
    ConditionName,
    st.sampled_from([*CONDITIONS, "shift"]),
    st.from_regex(r"[a-z0-9.-]*", fullmatch=True),
)
GROUPS = st.tuples(
    st.from_regex(r"[a-z_]+", fullmatch=True), st.text(st.characters(exclude_characters="[]"))
)


@given(
    st.one_of(
        st.builds(
            MetricName,
            st.sampled_from(list(METRICS)),
            KINDS,
            skill=st.booleans(),
            group=st.none() | GROUPS,
        ),
        st.builds(
            MetricName,
            st.just("dice"),
            area=st.just(True),
            skill=st.booleans(),
            group=st.none() | GROUPS,
        ),
        st.builds(MetricName, st.sampled_from(list(COSTS))),
    )
)
def test_what_is_written_is_read(name: MetricName) -> None:
    assert MetricName.parse(str(name)) == name


@given(st.text())
def test_any_text_has_a_reading(text: str) -> None:
    assert isinstance(MetricName.parse(text), MetricName)


@pytest.mark.parametrize("task", list(TaskName))
def test_names_of_an_evaluation_read_as_they_were_meant(task: TaskName) -> None:
    for text in all_names(PLAN, task):
        name = MetricName.parse(text)
        assert str(name) == text
        assert name.area == (text.removeprefix("skill.") in AREAS)
        assert metric_info(text).name == text


def test_two_conditions_have_no_shift_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tilted(conditions.Condition):
        name = "tilted"
        shifts = True

        def describe(self, detail: str) -> str:
            return f"tilted by {detail}"

        def perturb(self, batch, member, tools, before):
            return batch

    monkeypatch.setitem(CONDITIONS._added, "tilted", Tilted)
    apart = EvaluationPlan(epsilons=(0.0, 0.01), conditions=("tilted@0.02",))
    assert apart.shift_names == ["shift", "shift@0.01", "shift@0.02"]
    same = EvaluationPlan(epsilons=(0.0, 0.01), conditions=("tilted@0.01",))
    with pytest.raises(UserError, match=r"attacked@0.01, tilted@0.01: two share"):
        _ = same.shift_names


def test_a_group_crosses_any_condition() -> None:
    info = metric_info("attacked@0.01.auroc[sex=F]")
    assert info.meaning.endswith("under attack with ε = 0.01, of the samples whose sex is F")
    assert metric_info("skill.clean.auroc[site=a.b]").low == float("-inf")


@pytest.mark.parametrize(
    "text",
    [
        "attacked@.dice",
        "attacked@1e-2.dice",
        "clean@1.dice",
        "ood@a.dice",
        "corrupted@a-6.dice",
        "x.dice",
    ],
)
def test_a_name_has_one_spelling(text: str) -> None:
    with pytest.raises(UserError, match="unknown metric"):
        metric_info(text)


@pytest.mark.parametrize("module", [names, conditions])
def test_examples_run(module) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed
