"""Where a data set lies: a local folder, or any URL that pyarrow or fsspec understands."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trustsweep.data_pipelines.errors import StorageError, UserError

if TYPE_CHECKING:
    from pyarrow import fs

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")
_CREDENTIALS = re.compile(r"(?i)(key|secret|token|password|signature|credential)")


class Folder:
    """A folder that files are read from and written to by name.

    Args:
        location: A path, or a URL such as ``s3://bucket/data/qata`` (pyarrow reads S3, GCS, HDFS;
            fsspec what else is installed). S3 credentials, region and endpoint come from the usual
            variables (AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL, ...), never from the URL,
            which is written to run folders and logs.

    Raises:
        UserError: for a URL that holds credentials. Methods raise it for a storage that is not
            known, and `StorageError` for one that cannot be reached; a file that is not there is
            FileNotFoundError.
    """

    def __init__(self, location: str | Path | Folder) -> None:
        self.location = str(location)
        self.remote = bool(_SCHEME.match(self.location)) and not self.location.startswith("file://")
        if self.remote:
            parts = urlsplit(self.location)
            if "@" in parts.netloc or _CREDENTIALS.search(parts.query):
                raise UserError(
                    f"{parts.scheme}://...: credentials in a URL would end up in logs. Give them "
                    "by environment variables, or by the machine's role."
                )
            self.location = self.location.rstrip("/")
        else:
            self.location = self.location.removeprefix("file://")

    def __str__(self) -> str:
        return self.location

    def __repr__(self) -> str:
        return f"Folder({self.location!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A file system's connection stays in its process.
        return (Folder, (self.location,))

    @property
    def local(self) -> Path:
        """The path of a local folder. Raises ValueError for a remote one."""
        if self.remote:
            raise ValueError(f"{self}: not on this machine")
        return Path(self.location)

    @property
    def name(self) -> str:
        """The last part of the location."""
        return self.local.resolve().name if not self.remote else self.location.rsplit("/", 1)[-1]

    def resolved(self) -> Folder:
        """The same folder for a process with another working directory."""
        return self if self.remote else Folder(self.local.resolve())

    def child(self, name: str) -> Folder:
        """A folder below this one."""
        return Folder(f"{self.location}/{name}")

    @property
    def filesystem(self) -> fs.FileSystem:
        """For pyarrow; paths on it are those of `path`."""
        return self._opened[0]

    def path(self, name: str = "") -> str:
        """The path of a file of this folder on `filesystem`."""
        root = self._opened[1]
        return f"{root}/{name}" if name else root

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError, and `UserError` as the class."""
        try:
            with self.filesystem.open_input_stream(self.path(name)) as file:
                content: bytes = file.read()
                return content
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.unreachable(error) from error

    def files(self, prefix: str = "") -> dict[str, int]:
        """Name (relative to this folder) to bytes of the files below `prefix`, sorted.

        Names that a program makes for its own use, from "." on, are left out.
        """
        from pyarrow import fs

        selector = fs.FileSelector(self.path(prefix), recursive=True, allow_not_found=True)
        try:
            infos = self.filesystem.get_file_info(selector)
        except OSError as error:
            raise self.unreachable(error) from error
        start = len(self.path()) + 1
        sizes = {f.path[start:]: f.size for f in infos if f.type == fs.FileType.File}
        return {n: sizes[n] for n in sorted(sizes) if not n.rsplit("/", 1)[-1].startswith(".")}

    def clear(self) -> None:
        """Remove everything below a remote folder."""
        try:
            self.filesystem.delete_dir_contents(self.path(), missing_dir_ok=True)
        except OSError as error:
            raise self.unreachable(error) from error

    def delete(self, name: str) -> None:
        """Remove a file."""
        try:
            self.filesystem.delete_file(self.path(name))
        except OSError as error:
            raise self.unreachable(error) from error

    def upload(self, source: Path, names: list[str]) -> None:
        """Copy files of a local folder here, under the same names."""
        try:
            for name in names:
                parent = self.path(name).rsplit("/", 1)[0]
                self.filesystem.create_dir(parent, recursive=True)
                with (
                    (source / name).open("rb") as file,
                    self.filesystem.open_output_stream(self.path(name)) as target,
                ):
                    while block := file.read(8 * 2**20):
                        target.write(block)
        except OSError as error:
            raise self.unreachable(error) from error

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        # Not before something is read: whoever lists or checks names needs no pyarrow.
        import pyarrow as pa
        from pyarrow import fs

        if not self.remote:
            return fs.LocalFileSystem(), str(self.local)
        try:
            opened, path = fs.FileSystem.from_uri(self.location)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            opened, path = self._by_fsspec()
        except OSError as error:
            raise self.unreachable(error) from error
        return opened, path.rstrip("/")

    def _by_fsspec(self) -> tuple[fs.FileSystem, str]:
        import fsspec
        from pyarrow import fs

        try:
            filesystem, path = fsspec.core.url_to_fs(self.location)
        except (ValueError, ImportError) as error:
            raise UserError(f"{self}: no way to read this kind of URL ({error}).") from error
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path

    def unreachable(self, error: OSError) -> StorageError:
        """What to raise where reading or writing here has failed."""
        return StorageError(
            f"{self}: the storage does not answer as it should ({error}). Check the address and "
            "the credentials of this machine, then try again."
        )
