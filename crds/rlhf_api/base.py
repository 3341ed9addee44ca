"""What every model of the API has in common: camelCase on the wire, nothing unknown, nothing unbounded, nothing mutable."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A frozen object of the API. The docstring under a field is its documentation: `rlhfctl explain` and the CRD print it."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        # A manifest writes numbers as numbers; but YAML's 1 for a float field and "64" for a quantity are both right.
        allow_inf_nan=False,
    )

    def to_wire(self) -> dict[str, Any]:
        """The object as Kubernetes stores it: camelCase, and absent where the value is the default None (never null)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def unique_by(attribute: str) -> AfterValidator:
    """For a list that Kubernetes merges by key (x-kubernetes-list-type: map): no two entries share it."""

    def check(items: list[Any]) -> list[Any]:
        seen: set[Any] = set()
        for item in items:
            key = getattr(item, attribute)
            if key in seen:
                raise ValueError(f"two entries have {attribute} {key!r}; make each {attribute} unique")
            seen.add(key)
        return items

    return AfterValidator(check)


#: The name of an entry in a list (a gate, a mixture entry, a data source): an RFC 1123 label, at most 63 characters.
EntryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
#: The name of a Kubernetes object that we only refer to: an RFC 1123 subdomain.
ObjectName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
#: A key of a ConfigMap.
DataKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
ShortText = Annotated[str, StringConstraints(max_length=1024)]
#: hf://, s3:// or file://.
SourceUri = Annotated[str, StringConstraints(pattern=r"^(hf|s3|file)://.+$", min_length=6, max_length=1024)]
#: s3:// or file://, without a slash at the end.
StoreUrl = Annotated[str, StringConstraints(pattern=r"^(s3|file)://.*[^/]$", min_length=6, max_length=1024)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Revision = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
WholeNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e12)]
Positive = Annotated[float, Field(gt=0.0, le=1e12)]
