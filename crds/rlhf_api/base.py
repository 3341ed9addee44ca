"""What every model of the API has in common: camelCase on the wire, nothing unknown, nothing unbounded, nothing mutable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function


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


@dataclass(frozen=True)
class unique_by:  # noqa: N801 - reads as the constraint that it is, in an Annotated
    """For a list that Kubernetes merges by key (x-kubernetes-list-type: map): no two entries share it."""

    attribute: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.attribute]}

    def _check(self, items: list[Any]) -> list[Any]:
        seen: set[Any] = set()
        for index, item in enumerate(items):
            key = getattr(item, self.attribute)
            if key in seen:
                raise PydanticCustomError(
                    "duplicate_entry",
                    "two entries have {attribute} {key}; make each {attribute} unique",
                    {"attribute": self.attribute, "key": str(key), "index": index},
                )
            seen.add(key)
        return items


#: For `model_config` of an object that one writer writes as a whole: the API server keeps no record of who wrote which field of it.
ATOMIC: ConfigDict = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

#: The name of an entry in a list (a gate, a mixture entry, a data source): an RFC 1123 label, at most 63 characters.
EntryName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
#: The name of a Kubernetes object that we only refer to: an RFC 1123 subdomain.
ObjectName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
#: A key of a ConfigMap.
DataKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", min_length=1, max_length=253)]
ShortText = Annotated[str, StringConstraints(max_length=1024)]
SOURCE_URI = r"^(hf|s3|file)://.+$"
STORE_URL = r"^(s3|file)://.*[^/]$"
#: hf://, s3:// or file://.
SourceUri = Annotated[str, StringConstraints(pattern=SOURCE_URI, min_length=6, max_length=1024)]
#: s3:// or file://, without a slash at the end.
StoreUrl = Annotated[str, StringConstraints(pattern=STORE_URL, min_length=6, max_length=1024)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
Revision = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
WholeNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0, le=1e12)]
Positive = Annotated[float, Field(gt=0.0, le=1e12)]
