"""What the schema refuses is said in words a person understands: where, what stands there, what is wrong, what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.reading.schema import child, run_schema, walk
from rlhf_api.validation import Problem, validate
from rlhf_api.validation.phrases import PATTERNS
from rlhf_api.validation.structure.repair import STAND_INS
from rlhf_api.validation.suggest import nearest
from support.manifests import GONE, manifest, paths, problems


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.iterations", 99, "spec.iterations: 99: too large; write a whole number from 1 to 50"),
        ("spec.iterations", 0, "spec.iterations: 0: too small; write a whole number from 1 to 50"),
        ("spec.seed", 2**31, "spec.seed: 2147483648: too large; write at most 2147483647"),
        ("spec.train.loss.beta", 2e12, "too large; write at most 1e+12"),
        ("spec.iterations", 2.5, "spec.iterations: 2.5: is a number; write a whole number from 1 to 50"),
        ("spec.iterations", "3", 'spec.iterations: "3": is text; write a whole number from 1 to 50'),
        ("spec.suspend", "yes", 'spec.suspend: "yes": is text; write true or false'),
        ("spec.suspend", 1, "spec.suspend: 1: is a number; write true or false"),
        ("spec.image", 3, 'spec.image: 3: is a number; put it in quotes: "3"'),
        ("spec.gates", {}, "spec.gates: {}: is an object; write a list of at most 16 entries"),
        ("spec.train", [], "spec.train: []: is a list; write an object"),
        (
            "spec.policy.dtype",
            "bfloat",
            'spec.policy.dtype: "bfloat": not one of the values that there are; did you mean bfloat16? write bfloat16 or float32',
        ),
        (
            "spec.storage.url",
            "bucket/prefix",
            'url: "bucket/prefix": has the wrong form; write s3://bucket/prefix or file:///folder, without / at the end',
        ),
        (
            "spec.storage.url",
            GONE,
            "spec.storage.url: required, and absent; give s3://bucket/prefix or file:///folder, without / at the end",
        ),
        ("spec.trian", {}, "spec.trian: {}: unknown field; did you mean train?"),
        (
            "spec.train.learning_rate",
            1e-6,
            "spec.train.learning_rate: 1e-06: unknown field; did you mean optimization.learningRate?",
        ),
        ("spec.train.optimization.learning_rate", 1e-6, "learning_rate: 1e-06: unknown field; did you mean learningRate?"),
        ("spec.sample.beta", 1, "spec.sample.beta: 1: unknown field; did you mean spec.train.loss.beta?"),
        ("spec.retry.xyz", 1, "spec.retry.xyz: 1: unknown field; there are application, infrastructure, backoffSeconds"),
        ("spec.sample.pod", {"hostPath": "/"}, 'spec.sample.pod.hostPath: "/": unknown field; there are resources'),
        (
            "spec.sample.pod",
            {"resources": {"limits": {"cpu": 1.5}}},
            'spec.sample.pod.resources.limits.cpu: 1.5: is a number; put it in quotes: "1.5"',
        ),
        (
            "spec.sample.pod",
            {"resources": {"limits": {"memory": "lots"}}},
            'memory: "lots": has the wrong form; write a whole number, or a quantity, as "500m", "8" or 64Gi',
        ),
        (
            "spec.sample.pod",
            {"resources": {"limits": {"-x": 1}}},
            'spec.sample.pod.resources.limits["-x"]: 1: the key has the wrong form; a key is the name of a resource',
        ),
        (
            "spec.sample.mixture",
            [{"name": "a"}, {"name": "b"}, {"name": "a"}],
            'spec.sample.mixture[2].name (of "a"): "a": another entry has this name; make each name unique',
        ),
        ("spec.sample.mixture", [], "spec.sample.mixture: []: has 0 entries; write a list of 1 to 16 entries"),
        ("spec.gates", [3], "spec.gates[0]: 3: is a number; write an object with name, action"),
        (
            "spec.evaluate.against",
            ["Intial"],
            'spec.evaluate.against[0]: "Intial": not one of the values that there are; did you mean Initial?',
        ),
        ("metadata.name", "A_b", 'metadata.name: "A_b": has the wrong form; write small letters, digits and -, a letter first'),
        (
            "metadata.name",
            "x" * 64,
            "has 64 characters; write small letters, digits and -, a letter first and no - at the end, 1 to 63",
        ),
        ("kind", "RLHFrun", 'kind: "RLHFrun": not one of the values that there are; did you mean RLHFRun? write RLHFRun'),
        ("kind", GONE, "kind: required, and absent; write kind: RLHFRun"),
        ("apiVersion", GONE, "apiVersion: required, and absent; write apiVersion: rlhf.dev/v1alpha1"),
        ("spec.seed", 10**30, "spec.seed: too large a number; Kubernetes keeps 64 bits"),
    ],
)
def test_a_wrong_value_is_one_problem_in_plain_words(path: str, value: Any, said: str) -> None:
    (problem,) = problems({path: value})
    assert said in str(problem)


def test_every_problem_is_reported_at_once_and_none_that_only_follows_from_another() -> None:
    found = paths(
        {
            "spec.iterations": "three",
            "spec.train.optimization": {"globalBatchSiz": 100},
            "spec.train.compute": {"processesPerNode": 3},
            "spec.sft": {
                "data": [{"name": "a", "uri": "hf://a/b"}],
                "optimization": {"globalBatchSize": 100},
                "compute": {"nodes": 0},
            },
            "spec.gates": [{"name": "g", "metric": "winRateVsInital", "min": 45, "max": 50, "action": "Stop"}],
            "spec.reward": {"type": "BradleyTery", "bradleyTerry": {"model": {"uri": "hf://a/b"}}},
            "spec.sample.parallelism": 4,
            "spec.label.parallelism": 4,
            "spec.label.shards": "many",
        }
    )
    assert found == [
        "spec.iterations",
        "spec.sft.compute.nodes",
        "spec.reward.type",
        "spec.label.shards",
        "spec.train.optimization.globalBatchSiz",
        "spec.gates[0].metric",
        "spec.gates[0]",
        "spec.sample.parallelism",
    ]


def test_null_is_absent_as_in_the_api_server() -> None:
    assert validate(manifest({"spec.sft": None, "spec.queue": None, "spec.train": None})).ok


def test_a_whole_float_is_a_whole_number() -> None:
    assert validate(manifest({"spec.iterations": 2.0})).ok


def test_names_of_the_wire_are_the_only_names() -> None:
    assert paths({"spec.pod_defaults": {}}) == ["spec.pod_defaults"]


def test_a_status_is_not_looked_at() -> None:
    checked = validate({**manifest(), "status": {"phase": "nonsense"}})
    assert checked.ok
    assert checked.run is not None
    assert checked.run.status is None


def test_what_kubernetes_adds_to_metadata_is_welcome() -> None:
    assert validate(manifest({"metadata.managedFields": [{"manager": "kubectl"}], "metadata.annotations": {"a/b": "c"}})).ok


@pytest.mark.parametrize("raw", [None, 3, "text", [], [1]])
def test_what_is_no_object_is_no_manifest(raw: Any) -> None:
    assert [str(problem) for problem in validate(raw).problems] == [
        "manifest: not an object; a manifest has apiVersion, kind, metadata and spec"
    ]


def test_an_empty_object_lacks_the_four_parts() -> None:
    assert [problem.path for problem in validate({}).problems] == ["apiVersion", "kind", "metadata", "spec"]


def test_an_empty_spec_lacks_what_is_required_and_nothing_else() -> None:
    found = paths({"spec": {}})
    assert found == ["spec.storage", "spec.policy", "spec.reward", "spec.prompts", "spec.evaluate"]


def test_validation_does_not_change_what_it_is_given() -> None:
    raw = manifest({"spec.iterations": 99, "spec.gates": [3]})
    validate(raw)
    assert raw == manifest({"spec.iterations": 99, "spec.gates": [3]})


def test_everything_required_has_a_stand_in_so_that_the_rest_can_be_checked() -> None:
    spec = child(run_schema(), "spec")
    assert spec is not None
    required = {name for _, node in walk(spec) for inner in (node, node.get("items", {})) for name in inner.get("required", ())}
    assert required - {"name"} <= STAND_INS.keys()


def test_every_pattern_of_the_schema_has_words() -> None:
    patterns = {
        inner["pattern"]
        for _, node in walk(run_schema())
        for inner in (node, node.get("items", {}), node.get("additionalProperties", {}), node.get("propertyNames", {}))
        if "pattern" in inner
    }
    assert patterns == set(PATTERNS)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(Problem((), "wrong", value="x" * 10_000).shown_value) == 60


@pytest.mark.parametrize(
    ("word", "meant"), [("max_length", "maxLength"), ("MAXLENGTH", "maxLength"), ("maxLenght", "maxLength"), ("colour", None)]
)
def test_suggestions_come_for_what_is_near_and_for_nothing_else(word: str, meant: str | None) -> None:
    assert nearest(word, ["minLength", "maxLength"]) == meant
