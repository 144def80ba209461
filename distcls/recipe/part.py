"""The base class of the fixed parts of a recipe."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]


class Part(BaseModel):
    """A fixed part of the recipe. Editors show the docstrings below its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
