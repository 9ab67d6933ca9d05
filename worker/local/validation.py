"""Validation: the bodies of requests, and what is wrong with one in the words of the real server.

The real server validates with pydantic too, so an entry of its 422 is one of pydantic's errors.
"""

from typing import Annotated, Optional  # pydantic reads them: no `X | None`, for Python 3.9

from pydantic import BaseModel, Field, ValidationError, model_validator

MAX_BATCH_SIZE = 100
MAX_TEXT_LENGTH = 10_000

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_LENGTH)]
Wrong = dict[str, object]

NO_AUTHORIZATION: Wrong = {
    "type": "missing",
    "loc": ("header", "authorization"),
    "msg": "Field required",
    "input": None,
}
NO_BODY: Wrong = {**NO_AUTHORIZATION, "loc": ("body",)}


class EmbedBody(BaseModel):
    """One text. A `model` that is not sent is the server's."""

    text: Text
    model: str = ""


class BatchBody(BaseModel):
    """Several texts."""

    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_SIZE)]
    model: str = ""

    @model_validator(mode="after")
    def _check_texts(self) -> "BatchBody":
        """Name the first wrong text. The entry repeats the whole body."""
        for index, text in enumerate(self.texts):
            if not text:
                raise ValueError(f"texts[{index}] must be at least 1 character")
            if len(text) > MAX_TEXT_LENGTH:
                told = f"texts[{index}] exceeds max length of {MAX_TEXT_LENGTH} characters"
                raise ValueError(told)
        return self


class SearchBody(BaseModel):
    """A query, as a text or as a vector."""

    query_text: Optional[Text] = None
    query_vector: Optional[list[float]] = None
    model: str
    top_k: Annotated[int, Field(ge=1, le=100)] = 10
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    include_text: bool = True
    include_vectors: bool = False

    @model_validator(mode="after")
    def _check_query(self) -> "SearchBody":
        if (self.query_text is None) == (self.query_vector is None):
            raise ValueError("exactly one of query_text and query_vector is required")
        return self


def wrongs_of(error: ValidationError) -> list[Wrong]:
    """The entries of a 422."""
    wrongs: list[Wrong] = []
    for found in error.errors(include_url=False):
        wrong: Wrong = {**found, "loc": ("body", *found["loc"])}
        if found["type"] == "value_error":
            wrong["ctx"] = {"error": {}}  # what the server makes of the exception itself
        wrongs.append(wrong)
    return wrongs


def not_json(position: int, reason: str) -> Wrong:
    """The entry for a body that is not JSON from this character on."""
    return {
        "type": "json_invalid",
        "loc": ("body", position),
        "msg": "JSON decode error",
        "input": {},
        "ctx": {"error": reason},
    }
