"""Where inferences are kept for queries: a lake, a bucket, a search server."""

from typing import Literal, Self

from pydantic import model_validator

from sidelight.service._quantities import Size
from sidelight.service._settings_elasticsearch import ElasticsearchSettings
from sidelight.service._settings_s3 import LakePlace, S3Settings
from sidelight.service._settings_section import Section


class StoreSettings(Section):
    """Where inferences are kept for queries."""

    lake: LakePlace = True
    """Parquet files under the data folder, or in a bucket, ``s3://BUCKET[/PREFIX]``; without them a
    search server must have the rows."""

    s3: S3Settings | None = None
    """How the bucket of the lake is reached."""

    archive: bool = False
    """Whether sealed segments of the archive are copied into the bucket of the lake, too."""

    local_copies: Size = 10 << 30
    """Room for local copies of files of the lake that are in the bucket, in bytes."""

    elasticsearch: ElasticsearchSettings | None = None
    """A search server that gets every row as well; none when absent."""

    queries: Literal["lake", "elasticsearch"] | None = None
    """Which of the two answers the API; the lake when absent and there is one."""

    @property
    def answers(self) -> Literal["lake", "elasticsearch"]:
        """Which of the two answers."""
        return self.queries or ("lake" if self.lake else "elasticsearch")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.elasticsearch is None and self.answers == "elasticsearch":
            raise ValueError("expected elasticsearch beside this, got no search server")
        if self.answers == "lake" and not self.lake:
            raise ValueError("expected queries: elasticsearch where lake is false, got lake")
        if not isinstance(self.lake, str) and (self.s3 is not None or self.archive):
            raise ValueError("expected lake: s3://BUCKET/PREFIX beside s3 and archive, got none")
        return self
