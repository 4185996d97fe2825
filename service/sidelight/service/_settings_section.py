"""What all parts of the configuration have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration: it does not change, and a key that it does not know is wrong."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
