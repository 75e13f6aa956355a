"""Make the store ready: bucket and user of the bundled MinIO; then see, with the stages' own credentials, that it does
what they rely on. Run by the chart after install and upgrade, with the operator's image; running it again changes
nothing.

Environment: VIPER_STORE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; MINIO_ROOT_USER and MINIO_ROOT_PASSWORD only
for the bundled MinIO; VIPER_PATIENCE, in seconds, while the server is still starting (default 240).
"""

import os
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider
from minio.error import MinioException

from viper.errors import ViperError
from viper.store import open_store, probe

PAUSE_S = 4
POLICY = "viper"  # of MinIO: what the stages may do


def policy(bucket: str) -> dict[str, Any]:
    """Rights on one bucket and nothing else, in the S3 policy language."""
    arn = f"arn:aws:s3:::{bucket}"
    objects = ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts"]
    folder = ["ListBucket", "GetBucketLocation", "ListBucketMultipartUploads"]
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
    user = os.environ["AWS_ACCESS_KEY_ID"]
    admin.policy_add(policy_name=POLICY, policy=policy(parts.netloc))
    admin.user_add(access_key=user, secret_key=os.environ["AWS_SECRET_ACCESS_KEY"])
    admin.policy_set(policy_name=POLICY, user=user)
    print(f"the user of the stages may use the bucket {parts.netloc}, and nothing else")


def check_store(uri: str) -> None:
    """Creates, reads, lists and deletes objects below `probe/`. Raises `StoreError`."""
    store = open_store(uri)
    probe(store, thorough=True)
    print(f"{store.uri} can be written and read, and lets one of several writers win")


def main() -> int:
    uri = os.environ["VIPER_STORE"]
    try:
        if "MINIO_ROOT_USER" in os.environ:
            prepare_minio(uri, int(os.environ.get("VIPER_PATIENCE", "240")))
        check_store(uri)
    except (ViperError, MinioException, urllib3.exceptions.HTTPError, OSError) as e:
        print(f"error: the store cannot be used: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
