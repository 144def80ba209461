"""What all fixed parts of a recipe are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0)]


class Part(BaseModel):
    """A fixed part of the recipe. The docstrings below its fields are what editors show."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
