"""A bucket that is a folder: what the client of a store does, without a store."""

from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from sidelight.adapters import Bucket, Place


class FolderStore:
    """The few methods of a client that are used; it can be made to refuse."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.is_down = False
        self._files = SubTreeFileSystem(str(folder), LocalFileSystem())

    def open_output_stream(self, name: str) -> Any:
        self._may()
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        return self._files.open_output_stream(name)

    def open_input_stream(self, name: str) -> Any:
        self._may()
        return self._files.open_input_stream(name)

    def get_file_info(self, wanted: Any) -> Any:
        self._may()
        return self._files.get_file_info(wanted)

    def delete_file(self, name: str) -> None:
        self._may()
        self._files.delete_file(name)

    def names(self) -> set[str]:
        """Return all objects."""
        return {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file()
        }

    def _may(self) -> None:
        if self.is_down:
            raise OSError("SLOW_DOWN: reduce your request rate")


def folder_bucket(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return a bucket whose client is the folder, for every place."""
    monkeypatch.setattr("sidelight.adapters._lake_remote.connect_s3", lambda _: store)
    monkeypatch.setattr("sidelight.adapters._lake_remote._PAUSE_S", 0.0)
    monkeypatch.setattr("sidelight.adapters._lake_remote._SILENCES", 0.0)
    return Bucket(Place(url="s3://bucket/prefix"))
