"""Upload of large files in parts that are read from disk and sent in parallel, through URLs that `minio` presigns.

`Minio.put_object` would do it, but it holds whole parts in memory, hashes each (as the server then does again: together
a third of the processor time of an upload) and cannot make the upload conditional.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from xml.etree import ElementTree as ET

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error, ServerError

from viper.store.leaving import tidied

PART_BYTES = 32 << 20
"""S3 allows 10,000 parts: files up to 320 GiB with parts of this size; larger files get larger parts."""

_MAX_PARTS = 10_000
_PARALLEL = 3
_VALID = timedelta(hours=1)


class FileSlice:
    """`size` bytes of an open file from `offset`, as the file-like body of a request that can be repeated."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._offset, self._size, self._position = descriptor, offset, size, 0

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        block = os.pread(self._descriptor, left if size < 0 else min(size, left), self._offset + self._position)
        self._position += len(block)
        return block

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = position
        return position


class MultipartUpload:
    """The S3 multipart upload of one object (API: CreateMultipartUpload, UploadPart, CompleteMultipartUpload).

    Raises what the `minio` client raises: `S3Error` for refusals, urllib3's errors when the server is away.
    """

    def __init__(self, client: Minio, pool: urllib3.PoolManager, bucket: str, key: str) -> None:
        self._client, self._pool, self._bucket, self._key = client, pool, bucket, key

    def send(self, descriptor: int, size: int, metadata: Mapping[str, str], *, if_absent: bool) -> None:
        """Upload `size` bytes of an open file; the object appears when all of them are there, or not at all."""
        query = {"uploads": "", **{f"x-amz-meta-{name}": value for name, value in metadata.items()}}
        upload = _text(self._request("POST", query), "UploadId")
        part_size = max(PART_BYTES, -(-size // _MAX_PARTS))

        def send_part(number: int) -> str:
            offset = (number - 1) * part_size
            body = FileSlice(descriptor, offset, min(part_size, size - offset))
            answer = self._request("PUT", {"partNumber": str(number), "uploadId": upload}, body)
            return str(answer.headers["etag"])

        try:
            with ThreadPoolExecutor(_PARALLEL) as pool:
                sending = [pool.submit(send_part, number) for number in range(1, -(-size // part_size) + 1)]
                try:
                    etags = [part.result() for part in sending]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            self._complete(upload, etags, if_absent)
        except BaseException:  # a program that is told to stop, too: nothing else ever removes the parts
            tidied(partial(self._abort, upload))
            raise

    def _abort(self, upload: str) -> None:
        with suppress(MinioException, urllib3.exceptions.HTTPError):  # the first error tells more
            self._request("DELETE", {"uploadId": upload})

    def _complete(self, upload: str, etags: list[str], if_absent: bool) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        headers = {"If-None-Match": "*"} if if_absent else {}
        answer = self._request("POST", {"uploadId": upload}, body, headers)
        if b"<Error>" in answer.data:  # S3 has sent status 200 by the time it joins the parts
            raise S3Error.fromxml(answer)

    def _request(
        self,
        method: str,
        query: Mapping[str, str],
        body: bytes | FileSlice = b"",
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        url = self._client.get_presigned_url(
            method, self._bucket, self._key, expires=_VALID, extra_query_params=dict(query)
        )
        everything = {**(headers or {}), "Content-Length": str(len(body))}
        answer = self._pool.urlopen(method, url, body=body, headers=everything)
        if answer.status >= 300:
            if not answer.data:
                raise ServerError(f"server failed with HTTP status code {answer.status}", answer.status)
            raise S3Error.fromxml(answer)
        return answer


def _text(answer: urllib3.BaseHTTPResponse, name: str) -> str:
    found = ET.fromstring(answer.data).findtext(f"{{*}}{name}")  # noqa: S314 (the server's answer, as in minio itself)
    if not found:
        raise ServerError(f"the answer has no {name}", answer.status)
    return found
