"""Rules of labelers across fields: each breaks with the manifest that breaks it, and names the field to change."""

from __future__ import annotations

from typing import Any

import pytest

from support.manifests import DATA, MADE, MATCHED, RULE, SERVED, compared, limits, made, problems

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    # Judges that are served.
    (
        {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.prompt": "{prompt} {responseA} {responseB} {reference}"},
        "spec.evaluate.judge.judge.prompt",
        "{reference} is no placeholder; write one of {prompt}, {responseA}, {responseB}, {mark}, or leave out the braces",
    ),
    (
        {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.prompt": "Which is better? {prompt} {responseA}"},
        "spec.evaluate.judge.judge.prompt",
        "has placeholders and no {responseB}, so that the judge would not read what it judges",
    ),
    ({"spec.evaluate.judge": SERVED, "spec.reward": SERVED}, "spec.evaluate.judge.judge.endpoint.model", "is the training reward"),
    (
        {"spec.evaluate.judge": SERVED, "spec.evaluate.judge.judge.endpoint.baseUrl": "http://me:secret@judge/v1"},
        "spec.evaluate.judge.judge.endpoint.baseUrl",
        "without user or query",
    ),
    # The judge.
    ({"spec.reward": RULE}, "spec.evaluate.judge.rule.entryPoint", '"grades:judge": the judge is the training reward'),
    ({"spec.reward": MATCHED, "spec.evaluate.judge": MATCHED}, "spec.evaluate.judge.rule", "the judge is the training reward"),
    (
        {"spec.evaluate.judge": {"type": "Rule", "rule": {"regex": {"pattern": "a", "mode": "Search"}}}, "spec.reward": MATCHED},
        "spec.evaluate.judge.rule",
        "the judge is the training reward",
    ),
    # A judge that the run trains.
    (
        {"spec.reward": MADE, "spec.evaluate.judge": MADE},
        "spec.evaluate.judge.bradleyTerry.train",
        "the judge is the training reward: both are trained from the same base, on the same data; give it another",
    ),
    (
        {"spec.reward": MADE, "spec.evaluate.judge": made(base={"uri": "hf://owner/policy"}, maxLength=512)},
        "spec.evaluate.judge.bradleyTerry.train",
        "the judge is the training reward",
    ),
    (
        {"spec.evaluate.judge": made(base={"uri": "hf://owner/reward"})},
        "spec.evaluate.judge.bradleyTerry.train.base.uri",
        "the judge descends from the training reward",
    ),
    (
        {"spec.evaluate.judge": made(compute={"processesPerNode": 3})},
        "spec.evaluate.judge.bradleyTerry.train.optimization.globalBatchSize",
        "510 or 513",
    ),
    (
        {"spec.evaluate.judge": made(compute={"deepspeed": {"offload": "All"}})},
        "spec.evaluate.judge.bradleyTerry.train.compute.deepspeed.offload",
        "needs zeroStage 3",
    ),
    (
        {"spec.evaluate.judge": made(heldOut={"data": DATA[0]})},
        "spec.evaluate.judge.bradleyTerry.train.heldOut.data.name",
        "is the name of a set of data, too",
    ),
    (
        {"spec.evaluate.judge": made(compute={"processesPerNode": 8}), "spec.podDefaults": limits(4)},
        "spec.evaluate.judge.bradleyTerry.train.compute.processesPerNode",
        "write at most 4",
    ),
    # One that compares, or a judge that scores beside a reward that compares: of what they are made decides, not how.
    (
        {"spec.reward": MADE, "spec.evaluate.judge": compared(orders="Both")},
        "spec.evaluate.judge.pairwise.train",
        "the judge is the training reward: both are trained from the same base, on the same data",
    ),
    (
        {"spec.reward": compared(), "spec.evaluate.judge": MADE},
        "spec.evaluate.judge.bradleyTerry.train",
        "the judge is the training reward",
    ),
    (
        {"spec.evaluate.judge": compared(base={"uri": "hf://owner/reward"})},
        "spec.evaluate.judge.pairwise.train.base.uri",
        "the judge descends from the training reward",
    ),
    (
        {"spec.reward": compared(compute={"processesPerNode": 3})},
        "spec.reward.pairwise.train.optimization.globalBatchSize",
        "126 or 129",
    ),
    (
        {"spec.reward": compared(heldOut={"data": DATA[0]})},
        "spec.reward.pairwise.train.heldOut.data.name",
        "is the name of a set of data, too",
    ),
    (
        {"spec.reward": compared(compute={"processesPerNode": 8}), "spec.podDefaults": limits(4)},
        "spec.reward.pairwise.train.compute.processesPerNode",
        "write at most 4",
    ),
    ({"spec.reward": {"type": "Pairwise", "pairwise": {}}}, "spec.reward.pairwise", "give exactly one of model and train"),
    # What is about scores, where nobody gives any or where they cannot be so far apart.
    *(
        ({"spec.reward": {"type": "Human", "human": {}}, f"spec.label.{field}": value}, f"spec.label.{field}", "people give none")
        for field, value in (
            ("lengthPenaltyPerCharacter", 0.001),
            ("pairing.strategy", "BestSecond"),
            ("pairing.minMargin", 0.1),
            ("pairing.minRewardStd", 0.6),
        )
    ),
    ({"spec.reward": SERVED, "spec.label.pairing.minMargin": 1.0}, "spec.label.pairing.minMargin", "write less than 1"),
]


@pytest.mark.parametrize(
    ("changes", "path", "said"), REFUSED, ids=[f"{path}-{index}" for index, (_, path, _) in enumerate(REFUSED)]
)
def test_labelers_that_do_not_fit_are_refused_at_the_field_to_change(changes: dict[str, Any], path: str, said: str) -> None:
    (problem,) = problems(changes)
    assert problem.path == path
    assert said in str(problem)
    assert problem.right


def test_other_configurations_of_a_data_set_are_other_data() -> None:
    def trained(config: str) -> dict[str, Any]:
        data = [{"name": "prefs", "uri": "hf://owner/prefs", "config": config}]
        return {"type": "BradleyTerry", "bradleyTerry": {"train": {"base": {"uri": "hf://owner/base"}, "data": data}}}

    assert problems({"spec.reward": trained("helpful"), "spec.evaluate.judge": trained("harmless")}) == []
    assert problems({"spec.reward": trained("helpful"), "spec.evaluate.judge": trained("helpful")}) != []
