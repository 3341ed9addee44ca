"""label: every completion scored, every prompt paired or counted, whatever the shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.resource.labeler import Labeler, LabelerType, Rule
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label
from rlhf_api.stage import ArtifactRef, LabelWork, StageResult
from rlhf_api.words import ArtifactKind, StageExit, StageName
from rlhf_store import ArtifactWriter, Store, committed_shards, open_artifact, open_store
from rlhf_store.backends.files import FileStore
from rlhf_trainer.data.parquet import LABELS, SAMPLES
from rlhf_trainer.labelers.base import ScoreNotFinite
from rlhf_trainer.labelers.rule import RuleFailed, RuleLabeler
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem, StageError
from rlhf_trainer.stages.label import run
from support.stages import config_of, context_of


def words(messages: Sequence[Mapping[str, str]], response: str) -> float:
    """The number of words: a rule as the manifest names it."""
    return float(len(response.split()))


def raises(messages: Sequence[Mapping[str, str]], response: str) -> float:
    raise ValueError("no such word")


def away(messages: Sequence[Mapping[str, str]], response: str) -> float:
    raise ConnectionError("the service does not answer")


def as_text(messages: Sequence[Mapping[str, str]], response: str) -> str:
    return "0.5"


def not_finite(messages: Sequence[Mapping[str, str]], response: str) -> float:
    return float("nan")


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the functions of this file can be imported."""
    monkeypatch.setitem(sys.modules, "rules_of_test", sys.modules[__name__])
    return "rules_of_test"


def sample(prompt: str, index: int, text: str, *, stopped: bool = True) -> dict[str, Any]:
    ids = [3 + len(word) for word in text.split()]
    return {
        "prompt_id": prompt,
        "prompt_ids": [1, 2, 3],
        "messages": [{"role": "user", "content": prompt}],
        "completion_index": index,
        "completion_ids": [*ids, 2] if stopped else ids,
        "text": text,
        "logps": [-1.0] * (len(ids) + stopped),
        "finish_reason": "stop" if stopped else "length",
        "iterate": 0,
        "temperature": 1.0,
        "template_hash": "0" * 16,
    }


def seal_samples(storage: Storage, rows: Sequence[dict[str, Any]], folder: Path) -> ArtifactRef:
    """In two files, rows in disorder."""
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    for number in range(2):
        file = folder / f"samples-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows[::-1][number::2]), schema=SAMPLES), file)
        writer.add_file(file, file.name)
    return writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref


def label(
    storage: Storage,
    samples: ArtifactRef,
    scratch: Path,
    rule: str,
    *,
    shards: int = 1,
    completions: int = 3,
    revision: str | None = None,
    **fields: Any,
) -> StageResult:
    work = LabelWork(
        samples=samples,
        labeler=Labeler(type=LabelerType.RULE, rule=Rule(entry_point=rule)),
        rule_revision=revision,
        label=Label.model_validate({"minYield": 0.0, **fields}),
        completions_per_prompt=completions,
    )
    config = config_of(work, storage, shards=shards)
    results = [run(context_of(config, scratch / str(shard), shard)) for shard in range(shards)]
    assert [result.artifact is None for result in results] == [True] * (shards - 1) + [False]
    return results[-1]


def read(storage: Storage, result: StageResult, folder: Path) -> list[dict[str, Any]]:
    assert result.artifact is not None
    place = open_artifact(open_store(storage), result.artifact).fetch(folder)
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(place.rglob("*.parquet"))]).to_pylist()
    return sorted(rows, key=lambda row: row["prompt_id"])


ROWS = [
    *(sample("a", i, text) for i, text in enumerate(["one", "one two three", "one two"])),
    *(sample("b", i, text) for i, text in enumerate(["one", "two", "three"])),
    *(sample("c", i, text) for i, text in enumerate(["one two", "one"])),
    *(sample("d", i, text) for i, text in enumerate(["one two", "one", "one two three four"])),
]


def test_a_label_says_what_was_chosen_and_why(storage: Storage, tmp_path: Path, rules: str) -> None:
    result = label(storage, seal_samples(storage, ROWS, tmp_path), tmp_path, f"{rules}:words")
    rows = read(storage, result, tmp_path / "read")
    assert [(r["prompt_id"], r["chosen_index"], r["rejected_index"], r["scores"]) for r in rows] == [
        ("a", 1, 0, [1.0, 3.0, 2.0]),
        ("d", 2, 1, [2.0, 1.0, 4.0]),
    ]
    assert rows[0]["chosen_ids"] == [6, 6, 8, 2]
    assert rows[0]["iteration"] == 1
    assert pa.Table.from_pylist(rows, schema=LABELS).num_rows == 2


def test_defect_a_prompt_with_fewer_completions_is_counted_and_does_not_drop_the_others(
    storage: Storage, tmp_path: Path, rules: str
) -> None:
    """The released loop dropped every row when 4 were generated and 8 expected, and went on training on nothing."""
    result = label(storage, seal_samples(storage, ROWS, tmp_path), tmp_path, f"{rules}:words")
    assert result.counts == {"prompts": 4, "promptsIncomplete": 1, "promptsPaired": 2, "promptsTied": 1, "pairs": 2}
    assert result.metrics[Metric.YIELD].value == 0.5
    assert result.metrics[Metric.PAIRS].value == 2


def test_defect_too_small_a_yield_fails_the_stage_with_counts(storage: Storage, tmp_path: Path, rules: str) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    with pytest.raises(ConfigurationProblem, match=r"promptsIncomplete 4.*promptsPaired|promptsIncomplete 4") as raised:
        label(storage, samples, tmp_path / "k", f"{rules}:words", completions=8)
    assert raised.value.reason == "YieldTooSmall"
    with pytest.raises(ConfigurationProblem, match=r"Only 50\.0% .* asks for 60%.* Look at the samples and the reward\. These"):
        label(storage, samples, tmp_path / "y", f"{rules}:words", minYield=0.6)
    with pytest.raises(ConfigurationProblem, match=r"Only 0\.0% .*promptsBelowMargin 2.* a smaller label\.pairing\.minMargin"):
        label(storage, samples, tmp_path / "m", f"{rules}:words", pairing={"minMargin": 10})


@pytest.mark.parametrize("shards", [1, 3])
def test_a_reward_that_is_corrected_after_too_small_a_yield_scores_anew(
    storage: Storage, tmp_path: Path, rules: str, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    """The code of a rule is not in the fingerprint: shards with its old scores must not be found again."""
    samples = seal_samples(storage, ROWS, tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "words", lambda messages, response: 1.0)
    tied = r"promptsTied 3\)\. The reward gives the same score to all completions of a prompt, whatever the prompt: correct it"
    with pytest.raises(ConfigurationProblem, match=tied) as raised:
        label(storage, samples, tmp_path / "tied", f"{rules}:words", shards=shards)
    assert "minMargin" not in str(raised.value)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, rules, sys.modules[__name__])
    result = label(storage, samples, tmp_path / "corrected", f"{rules}:words", shards=shards)
    assert result.metrics[Metric.YIELD].value == 0.5


class KilledError(BaseException):
    """Nothing catches it."""


class KilledAfter(FileStore):
    """Whoever writes or removes more than so many objects in it is killed before the next."""

    def __init__(self, url: str, writes: int) -> None:
        super().__init__(url)
        self._left = writes

    def _write(self, key: str, fill: Callable[[IO[bytes]], object], *, if_absent: bool) -> None:
        self._count()
        super()._write(key, fill, if_absent=if_absent)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._count()
            super().delete([key])

    def _count(self) -> None:
        if self._left == 0:
            raise KilledError
        self._left -= 1


def by_words(samples: ArtifactRef, rules: str, min_yield: float) -> LabelWork:
    return LabelWork(
        samples=samples,
        labeler=Labeler(type=LabelerType.RULE, rule=Rule(entry_point=f"{rules}:words")),
        label=Label(min_yield=min_yield),
        completions_per_prompt=3,
    )


@pytest.mark.parametrize("writes", range(6))
def test_whoever_is_killed_while_a_yield_is_refused_comes_to_the_same_end(
    storage: Storage, tmp_path: Path, rules: str, writes: int
) -> None:
    """Two shards: two files, two records, and the removal of these. No shard with the scores that were refused is left."""
    samples = seal_samples(storage, ROWS, tmp_path)
    config = config_of(by_words(samples, rules, min_yield=0.9), storage, shards=2)

    def run_shards(store: Store) -> None:
        for shard in range(2):
            run(replace(context_of(config, tmp_path / "scratch", shard), store=store))

    with pytest.raises(KilledError):
        run_shards(KilledAfter(storage.url, writes))
    with pytest.raises(ConfigurationProblem, match=r"Only 50\.0%"):
        run_shards(open_store(storage))
    assert committed_shards(open_store(storage), ArtifactKind.LABELS, config.fingerprint, 2) == {}


@pytest.mark.parametrize("shards", [2, 3, 7])
def test_labels_are_the_same_whatever_the_number_of_shards(storage: Storage, tmp_path: Path, rules: str, shards: int) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    one = read(storage, label(storage, samples, tmp_path / "one", f"{rules}:words"), tmp_path / "read-one")
    other = Storage(url=f"{storage.url}-other")
    again = seal_samples(other, ROWS, tmp_path)
    many = read(other, label(other, again, tmp_path / "many", f"{rules}:words", shards=shards), tmp_path / "read-many")
    assert many == one


def test_a_committed_shard_is_not_scored_again(storage: Storage, tmp_path: Path, rules: str) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    config = config_of(by_words(samples, rules, min_yield=0.0), storage, shards=2)
    first = run(context_of(config, tmp_path / "0", 0))
    assert first.shard == 0
    assert run(context_of(config, tmp_path / "again", 0)) == first
    assert not (tmp_path / "again" / "inputs").exists()
    assert run(context_of(config, tmp_path / "1", 1)).artifact is not None


def test_the_yield_is_of_the_prompts_that_are_selected_by_their_rewards_spread(
    storage: Storage, tmp_path: Path, rules: str
) -> None:
    """a has 1 to 3 words (0.82), d 1 to 4 (1.25), b is a tie, c incomplete."""
    samples = seal_samples(storage, ROWS, tmp_path)
    found = {}
    for minimum in (0.5, 1.0):
        result = label(storage, samples, tmp_path / str(minimum), f"{rules}:words", pairing={"minRewardStd": minimum}, minYield=0.3)
        found[minimum] = (result.counts.get("promptsBelowRewardStd"), result.metrics[Metric.YIELD].value)
        assert result.counts["promptsTied"] == 1
    assert found == {0.5: (None, 0.5), 1.0: (1, pytest.approx(1 / 3))}
    said = r"Only 33.3% of the prompts whose standard deviation is above label.pairing.minRewardStd \(1.0\) gave"
    with pytest.raises(ConfigurationProblem, match=said):
        label(storage, samples, tmp_path / "most", f"{rules}:words", pairing={"minRewardStd": 1.0}, minYield=0.5)
    with pytest.raises(ConfigurationProblem, match=r"promptsBelowRewardStd 2, .* No prompt's scores differ so much.*: lower it"):
        label(storage, samples, tmp_path / "none", f"{rules}:words", pairing={"minRewardStd": 3.0})


@pytest.mark.parametrize("shards", [2, 3])
def test_selection_by_spread_does_not_depend_on_shards(storage: Storage, tmp_path: Path, rules: str, shards: int) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    pairing = {"minRewardStd": 1.0}
    one = label(storage, samples, tmp_path / "one", f"{rules}:words", pairing=pairing)
    other = Storage(url=f"file://{tmp_path}/other")
    (tmp_path / "again").mkdir()
    again = seal_samples(other, ROWS, tmp_path / "again")
    many = label(other, again, tmp_path / "many", f"{rules}:words", pairing=pairing, shards=shards)
    assert read(storage, one, tmp_path / "read-one") == read(other, many, tmp_path / "read-many")
    assert one.counts == many.counts


def test_the_length_penalty_is_by_character(storage: Storage, tmp_path: Path, rules: str) -> None:
    samples = seal_samples(storage, ROWS[:3], tmp_path)
    result = label(storage, samples, tmp_path, f"{rules}:words", lengthPenaltyPerCharacter=1.0)
    (row,) = read(storage, result, tmp_path / "read")
    assert row["scores"] == [1.0 - 3, 3.0 - 13, 2.0 - 7]
    assert (row["chosen_index"], row["rejected_index"]) == (0, 1)


def test_a_rule_that_fails_is_named_with_the_response(storage: Storage, tmp_path: Path, rules: str) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    here = r"\(test_label_stage.py, line \d+\),"
    cases = [
        ("raises", f"raised ValueError: no such word {here}", RuleFailed),
        ("as_text", "answered '0.5'", RuleFailed),
        ("not_finite", "answered nan", ScoreNotFinite),
        ("away", f"raised ConnectionError: the service does not answer {here}", ApplicationProblem),
    ]
    for rule, said, error in cases:
        with pytest.raises(error, match=f"{rule} {said} for prompt a, completion 0, which begins 'one'"):
            label(storage, samples, tmp_path / rule, f"{rules}:{rule}")


def test_only_what_may_be_the_machines_fault_is_tried_again(storage: Storage, tmp_path: Path, rules: str) -> None:
    """A function that is asked the same again answers the same; a service may be there again."""
    samples = seal_samples(storage, ROWS, tmp_path)
    ends = {}
    for rule in ("raises", "away"):
        with pytest.raises(StageError) as raised:
            label(storage, samples, tmp_path / rule, f"{rules}:{rule}")
        ends[rule] = (raised.value.exit, raised.value.reason)
    assert ends == {"raises": (StageExit.CONFIGURATION, "RuleFailed"), "away": (StageExit.APPLICATION, "RuleFailed")}


def test_a_rule_whose_code_is_not_what_preflight_saw_scores_nothing(storage: Storage, tmp_path: Path, rules: str) -> None:
    samples = seal_samples(storage, ROWS, tmp_path)
    seen = RuleLabeler.load(f"{rules}:words").revision
    assert seen is not None
    label(storage, samples, tmp_path / "same", f"{rules}:words", revision=seen)
    other = Storage(url=f"{storage.url}-other")
    samples = seal_samples(other, ROWS, tmp_path)
    with pytest.raises(ConfigurationProblem, match=f"{rules}:words has other code .* resolved to {'0' * 40}, and is {seen} now"):
        label(other, samples, tmp_path / "edited", f"{rules}:words", revision="0" * 40)
    assert not [entry for entry in open_store(other).list() if entry.key.startswith("labels/")]
