"""Make the store ready: bucket and user of the bundled MinIO; then see, with the stages' own credentials, that it does
what they rely on. Run by the chart after install and upgrade, with the operator's image; running it again changes
nothing.

Environment: VIPER_STORE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; VIPER_READER_ACCESS_KEY_ID and
VIPER_READER_SECRET_ACCESS_KEY, the operator's; MINIO_ROOT_USER and MINIO_ROOT_PASSWORD only for the bundled MinIO;
VIPER_PATIENCE, in seconds, while the server is still starting (default 240).
"""

import itertools
import os
import sys
import uuid
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioException

from viper.errors import StoreError, ViperError
from viper.stage.termination import stoppable
from viper.store import open_store, probe

PAUSE_S = 4
POLICY, READER_POLICY = "viper", "viper-reader"  # of MinIO: what the stages and what the operator may do


def policy(bucket: str, *, write: bool) -> dict[str, Any]:
    """Rights on one bucket and nothing else, in the S3 policy language."""
    arn = f"arn:aws:s3:::{bucket}"
    objects, folder = ["GetObject"], ["ListBucket", "GetBucketLocation"]
    if write:
        objects += ["PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"]
        folder += ["ListBucketMultipartUploads"]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": [f"s3:{a}" for a in objects], "Resource": [f"{arn}/*"]},
            {"Effect": "Allow", "Action": [f"s3:{a}" for a in folder], "Resource": [arn]},
        ],
    }


def prepare_minio(uri: str, patience_s: int) -> None:
    """Bucket, policy and user. Raises `MinioException` or `urllib3.exceptions.HTTPError`."""
    parts = urlsplit(uri)
    endpoint = urlsplit(parse_qs(parts.query)["endpoint"][0])
    root = StaticProvider(os.environ["MINIO_ROOT_USER"], os.environ["MINIO_ROOT_PASSWORD"])
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=30),
        retries=urllib3.Retry(
            total=max(1, patience_s // PAUSE_S),
            backoff_factor=PAUSE_S,
            backoff_max=PAUSE_S,
            status_forcelist=[429, 500, 502, 503, 504],
            allowed_methods=None,
            respect_retry_after_header=False,  # MinIO asks for two minutes
        ),
    )
    secure = endpoint.scheme == "https"
    client = Minio(endpoint=endpoint.netloc, secure=secure, credentials=root, http_client=pool)
    if not client.bucket_exists(bucket_name=parts.netloc):
        client.make_bucket(bucket_name=parts.netloc)
        print(f"made the bucket {parts.netloc}")
    admin = MinioAdmin(endpoint=endpoint.netloc, secure=secure, credentials=root, http_client=pool)
    for name, keys, write in ((POLICY, "AWS", True), (READER_POLICY, "VIPER_READER", False)):
        user = os.environ.get(f"{keys}_ACCESS_KEY_ID")
        if user is None or (not write and user == os.environ["AWS_ACCESS_KEY_ID"]):
            continue
        admin.policy_add(policy_name=name, policy=policy(parts.netloc, write=write))
        admin.user_add(access_key=user, secret_key=os.environ[f"{keys}_SECRET_ACCESS_KEY"])
        admin.policy_set(policy_name=name, user=user)
    print(f"the users of the stages and of the operator may use the bucket {parts.netloc}, and nothing else")


def check_store(uri: str) -> None:
    """Creates, reads, lists and deletes objects below `probe/`. Raises `StoreError`."""
    store = open_store(uri)
    probe(store, thorough=True)
    print(f"{store.uri} can be written and read, and lets one of several writers win")


def check_reader(uri: str) -> None:
    """Lists with the operator's credentials, and says so when they may do more than read. Raises `StoreError`."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        os.environ[f"AWS_{name}"] = os.environ[f"VIPER_READER_{name}"]
    store, key = open_store(uri), f"probe/{uuid.uuid4().hex}"
    for _ in itertools.islice(store.list(), 1):
        pass
    try:
        store.put(key, b"")
    except StoreError:
        print("the operator may read it, and not write")
        return
    store.delete(key)
    print(
        "the operator may read it; its credentials may also write, which it does not need (store.readerExistingSecret)"
    )


def main() -> int:
    uri = os.environ["VIPER_STORE"]
    try:
        if "MINIO_ROOT_USER" in os.environ:
            prepare_minio(uri, int(os.environ.get("VIPER_PATIENCE", "240")))
        check_store(uri)
        if "VIPER_READER_ACCESS_KEY_ID" in os.environ:
            check_reader(uri)
    except (ViperError, MinioException, urllib3.exceptions.HTTPError, OSError) as e:
        print(f"error: the store cannot be used: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with stoppable():  # it is process 1 of its container
        sys.exit(main())
