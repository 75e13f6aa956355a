"""The object store in a bucket of MinIO or another S3 server, through the `minio` client."""

from __future__ import annotations

import io
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import parse_qsl, urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials import AWSConfigProvider, ChainedProvider, EnvAWSProvider, EnvMinioProvider
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from viper import retries
from viper.errors import AlreadyExistsError, NotFoundError, StoreError, UnfitStoreError
from viper.retries import retrying
from viper.store.base import RESERVED, ObjectInfo, check_key, check_prefix, open_source
from viper.store.multipart import PART_BYTES, MultipartUpload

log = logging.getLogger(__name__)


class Patience(urllib3.Retry):
    """As urllib3's, and says that a server is asked again, and why. Never the request's URL: it holds a signature."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> Self:
        """See `urllib3.Retry.increment`."""
        left = super().increment(method, url, response, error, _pool, _stacktrace)
        said = f"it answers {response.status}" if response is not None else type(error).__name__
        log.info("the store is asked again, %s", said, extra={"viper_waits": True})
        return left


_BLOCK_BYTES = 256 << 10
_WRITER, _SHA256 = "viper-writer", "viper-sha256"  # names of user metadata

# It warns of every repeated request, with a URL that holds a signature.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

#: What servers answer to one of several writers of a key while another one's request is being carried out; AWS says of
#: the first that the upload is to be made again, of parts too.
_CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted", "ConcurrentModification", "Conflict"})
#: Errors that AWS sends with status 200 when joining the parts has failed, and for a request that came too slowly.
_PASSING = frozenset({"InternalError", "ServiceUnavailable", "SlowDown"})

_if_absent: ContextVar[bool] = ContextVar("_if_absent", default=False)


class _Pool(urllib3.PoolManager):
    """Adds `If-None-Match: *`, for which `minio` has no parameter, to the request that creates an object.

    The signature covers the headers it names, so that one more is in order.
    """

    def urlopen(  # type: ignore[override]  # as in urllib3 itself
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        if method == "PUT" and _if_absent.get():
            kw["headers"]["If-None-Match"] = "*"
        if isinstance(kw.get("body"), bytes) and len(kw["body"]) > _BLOCK_BYTES:
            # urllib3 sends bytes in one call under the *connect* timeout, however many; a file it sends in blocks.
            kw["body"] = io.BytesIO(kw["body"])
        if method == "DELETE" and "uploadId=" in url:  # tidying up after a failure must not wait as long again
            kw["retries"] = urllib3.Retry(total=0)
        return super().urlopen(method, url, redirect, **kw)


class _ConflictError(StoreError):
    """A write was not carried out because of another one, or of nothing that lasts."""


class MinioStore:
    """An `ObjectStore` under a prefix of a bucket. Nothing is contacted before the first operation.

    Args:
        bucket: an existing bucket.
        prefix: a key prefix without slashes at its ends; empty for the whole bucket.
        endpoint: `http://host:port` or `https://host`.
        explicit_endpoint: whether `uri` names the endpoint, or leaves it to the environment.
        patience: how often and how long requests that fail on the way are repeated.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str = "https://s3.amazonaws.com",
        explicit_endpoint: bool = True,
        patience: retries.Policy = retries.STORE,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or "@" in parts.netloc:
            raise StoreError("not an S3 endpoint", where=endpoint, fix="write http://host:port or https://host")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
            raise StoreError(
                "not a bucket name", where=bucket, fix="3 to 63 lower-case letters, digits, dots and hyphens"
            )
        if prefix:
            check_key(prefix)
        authorities = os.environ.get("SSL_CERT_FILE") or certifi.where()
        if not Path(authorities).is_file():
            raise StoreError(
                "there is no such file", where=f"SSL_CERT_FILE {authorities}", fix="correct it, or unset it"
            )
        query = f"?endpoint={endpoint}" if explicit_endpoint else ""
        self._uri = f"s3://{bucket}{'/' + prefix if prefix else ''}{query}"
        self._bucket, self._endpoint = bucket, endpoint
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience
        self._pool = _Pool(
            timeout=urllib3.Timeout(connect=10, read=60),
            blocksize=_BLOCK_BYTES,
            maxsize=16,
            retries=retries.of_requests(
                patience,
                Patience,
                read=4,  # a server that accepts requests and never answers: four times the read timeout
                backoff_jitter=0.25,
                status_forcelist=[429, 500, 502, 503, 504],
                respect_retry_after_header=False,  # MinIO asks for two minutes
            ),
            cert_reqs="CERT_REQUIRED",
            ca_certs=authorities,
        )
        self._client = Minio(
            endpoint=parts.netloc,
            secure=parts.scheme == "https",
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            credentials=ChainedProvider([EnvAWSProvider(), EnvMinioProvider(), AWSConfigProvider()]),
            http_client=self._pool,
        )

    @classmethod
    def from_uri(cls, uri: str) -> MinioStore:
        """Open `s3://bucket/prefix?endpoint=…`. Raises StoreError when the URI is malformed or holds credentials."""
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query))
        if "@" in parts.netloc:
            raise StoreError(
                "credentials do not belong in a URI",
                where=f"s3://…@{parts.hostname}",
                fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            )
        if not parts.netloc or parts.fragment or set(query) - {"endpoint"}:
            raise StoreError("not an S3 URI", where=uri, fix="write s3://bucket/prefix or …?endpoint=http://host:9000")
        endpoint = query.get("endpoint") or os.environ.get("VIPER_S3_ENDPOINT") or "https://s3.amazonaws.com"
        return cls(parts.netloc, parts.path.strip("/"), endpoint=endpoint, explicit_endpoint="endpoint" in query)

    @property
    def uri(self) -> str:
        return self._uri

    def get(self, key: str) -> bytes:
        buffer = io.BytesIO()
        self._read(key, buffer)
        return buffer.getvalue()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        def send(metadata: dict[str, str]) -> None:
            self._put(key, io.BytesIO(data), len(data), metadata)

        self._write(key, send, if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        known = {_SHA256: sha256} if sha256 else {}
        with open_source(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > PART_BYTES:
                if if_absent and self.stat(key):  # tell before the upload, not after it
                    raise self._exists(key)
                self._send_parts(key, file, size, known, if_absent)
                return

            def send(metadata: dict[str, str]) -> None:
                file.seek(0)
                self._put(key, file, size, {**metadata, **known})

            self._write(key, send, if_absent)

    def put_in_parts(self, key: str, path: Path, *, if_absent: bool = False) -> None:
        """`put_file` in the requests of a large file, whatever the size (of at least one byte)."""
        with open_source(path) as file:
            self._send_parts(key, file, os.fstat(file.fileno()).st_size, {}, if_absent)

    def get_file(self, key: str, path: Path) -> None:
        temporary = path.parent / f"{RESERVED}{uuid.uuid4().hex}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                self._read(key, file)
            temporary.replace(path)
        except OSError as error:
            raise StoreError(
                f"the downloaded object cannot be written: {error.strerror or error}",
                where=str(path),
                fix="check the free space and the mode of this path, then run the same command again",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)

    def stat(self, key: str) -> ObjectInfo | None:
        status = self._stat(key)
        return None if status is None else ObjectInfo(key, status.size)

    def sha256(self, key: str) -> str | None:
        status = self._stat(key)
        return None if status is None else _metadata(status).get(_SHA256)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        full = self._prefix + check_prefix(prefix)
        with self._explained(prefix):
            for item in self._client.list_objects(self._bucket, prefix=full, recursive=True):
                if not item.object_name.endswith("/"):
                    yield ObjectInfo(item.object_name.removeprefix(self._prefix), item.size)

    def delete(self, key: str) -> None:
        with self._explained(key):
            self._client.remove_object(self._bucket, self._prefix + check_key(key))

    def _stat(self, key: str) -> Any:
        check_key(key)
        try:
            with self._explained(key):
                return self._client.stat_object(self._bucket, self._prefix + key)
        except NotFoundError:
            return None

    def _read(self, key: str, target: IO[bytes]) -> None:
        """Append the object to `target`, going on where a broken connection left off, on the same version (ETag)."""
        check_key(key)
        etag = ""

        def read_on() -> None:
            nonlocal etag
            done = target.tell()
            headers = {"If-Match": etag, "Range": f"bytes={done}-"} if done else {}
            try:
                with self._explained(key):
                    response = self._client.get_object(self._bucket, self._prefix + key, request_headers=headers)
            except AlreadyExistsError as error:  # what `_explained` makes of a failed precondition
                raise StoreError("the object was replaced while being read", where=self._where(key)) from error
            etag = response.headers.get("etag", "")
            try:
                for block in response.stream(1 << 20):
                    target.write(block)
            finally:
                response.close()
                response.release_conn()

        with self._explained(key):
            retrying(retries.STORE_BODY, urllib3.exceptions.HTTPError)(read_on)

    def _put(self, key: str, data: IO[bytes], size: int, metadata: dict[str, str]) -> None:
        """One request. Raises as the client does, and when what answers does not store objects."""
        part_size = max(size, 5 << 20)  # never split by the client, whose parts would not be conditional
        result = self._client.put_object(
            self._bucket, self._prefix + key, data, size, metadata=metadata, part_size=part_size
        )
        if not result.etag:
            raise ServerError("its answer to a PUT has no ETag", 200)

    def _send_parts(self, key: str, file: IO[bytes], size: int, known: dict[str, str], if_absent: bool) -> None:
        def send(metadata: dict[str, str]) -> None:
            upload = MultipartUpload(self._client, self._pool, self._bucket, self._prefix + key)
            upload.send(file.fileno(), size, {**metadata, **known}, if_absent=if_absent)

        self._write(key, send, if_absent)

    def _write(self, key: str, send: Callable[[dict[str, str]], None], if_absent: bool) -> None:
        """Do `send` with metadata that identify this call; again when another writer was in the way."""
        check_key(key)
        writer = uuid.uuid4().hex
        token = _if_absent.set(if_absent)
        try:
            for attempt in retrying(self._patience, _ConflictError):
                with attempt:
                    # Tell before a large file is sent again.
                    before = self._writer(key) if if_absent and attempt.retry_state.attempt_number > 1 else None
                    if before not in (None, writer):
                        raise self._exists(key)
                    if before is None:
                        self._once(key, send, writer)
        finally:
            _if_absent.reset(token)

    def _once(self, key: str, send: Callable[[dict[str, str]], None], writer: str) -> None:
        try:
            with self._explained(key):
                send({_WRITER: writer})
        except (AlreadyExistsError, NotFoundError):
            # Perhaps our own success: its answer got lost and the client repeated the request.
            if self._writer(key) != writer:
                raise

    def _writer(self, key: str) -> str | None:
        """Which call of `_write` the object is from, empty when another program's; None when there is none."""
        status = self._stat(key)
        return None if status is None else _metadata(status).get(_WRITER, "")

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key} at {self._endpoint}"

    def _exists(self, key: str) -> AlreadyExistsError:
        return AlreadyExistsError("there is an object under this key already", where=self._where(key))

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn the client's errors into StoreErrors that say what to do."""
        where = self._where(key)
        try:
            yield
        except S3Error as error:
            if error.code == "PreconditionFailed":
                raise self._exists(key) from error
            if error.code in {"NoSuchKey", "NoSuchUpload"}:
                raise NotFoundError("there is no object under this key", where=where) from error
            code = "XMinioStorageFull" if "no space left" in (error.message or "") else error.code or ""
            if code in _CONFLICTS or code == "RequestTimeout" or (code in _PASSING and error.response.status < 300):
                raise _ConflictError(
                    f"other writers keep this key busy, after several attempts: {error.message} ({code})",
                    where=where,
                    fix=_AGAIN,
                ) from error
            if code == "NotImplemented":
                raise UnfitStoreError(
                    f"the server does not offer what was asked of it: {error.message} ({code})",
                    where=where,
                    fix="use a store with conditional writes (If-None-Match), as AWS S3 and MinIO have them",
                ) from error
            what, fix = _EXPLANATIONS.get(code, (f"the server refused: {error.message} ({code})", ""))
            raise StoreError(what, where=where, fix=fix) from error
        except urllib3.exceptions.MaxRetryError as error:
            reason = error.reason or error
            raise StoreError(
                f"the store does not answer, after several attempts ({type(reason).__name__}: {reason})",
                where=where,
                fix=f"start the server or correct the endpoint, then {_AGAIN}",
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise StoreError(
                f"the transfer broke off: {error}", where=where, fix="run the same command again"
            ) from error
        except (ServerError, InvalidResponseError, MinioException) as error:
            raise StoreError(
                f"not the answer of a working S3 server: {error}",
                where=where,
                fix="check that the endpoint is the S3 port, and the server's log",
            ) from error
        except ValueError as error:  # how the client reports missing credentials
            raise StoreError(str(error), where=where, fix=_CREDENTIALS) from error


def _metadata(status: Any) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {k.lower().removeprefix(prefix): v for k, v in status.metadata.items() if k.lower().startswith(prefix)}


_AGAIN = "run the same command again; what is complete is kept"
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) in the environment"
_FULL = ("the server's disk is full", f"free some space there, then {_AGAIN}")
_CONFLICT = (
    "this key would be both an object and a folder of objects",
    "choose a key that is not part of another one's path",
)
_EXPLANATIONS = {
    "NoSuchBucket": ("there is no such bucket", "create the bucket, or correct its name in the store's URI"),
    "AccessDenied": ("the server forbids it", f"check the bucket policy of these credentials, or {_CREDENTIALS}"),
    "InvalidAccessKeyId": ("the server does not know this access key", _CREDENTIALS),
    "SignatureDoesNotMatch": ("the secret key is wrong", _CREDENTIALS),
    "XMinioStorageFull": _FULL,
    "InsufficientStorage": _FULL,
    "QuotaExceeded": ("the bucket's quota is used up", _FULL[1]),
    "XMinioAdminBucketQuotaExceeded": ("the bucket's quota is used up", _FULL[1]),
    "XMinioObjectExistsAsDirectory": _CONFLICT,
    "XMinioParentIsObject": _CONFLICT,
}
