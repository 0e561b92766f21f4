"""What errors of DynamoDB and boto3 mean: try later, or never like this.

Of boto3's own errors only those texts are shown that cannot quote a request, a
credential or what a program printed that gives credentials out.
"""

from __future__ import annotations

import re

from botocore.exceptions import BotoCoreError, ClientError

from service_monitor.errors import (
    LocalLack,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from service_monitor.net.lacks import lack_in

_BUSY = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingError",
    "ThrottlingException",
    "TransactionConflict",
    "TransactionConflictException",
    "TransactionInProgressException",
}
_LONGEST = 300
"""Characters of a service's own words that are shown."""
_QUOTED = re.compile(r"(?i)the canonical string|the string-to-sign|authorization=")
"""Where AWS begins to quote the request, its headers included."""

# By the beginning of the code; what AWS says of these may quote the request.
_REMEDIES = {
    "AccessDenied": "let our role do that: docs/dynamodb.md has the least policy",
    "UnrecognizedClient": "are the access key, the secret key and the session token "
    "of one session, and of this account?",
    "InvalidClientTokenId": "is the access key of this account, and active?",
    "InvalidSignature": "is the secret key that of the access key?",
    "SignatureDoesNotMatch": "is the secret key that of the access key?",
    "IncompleteSignature": "are the credentials complete?",
    "MissingAuthentication": "are the credentials complete?",
    "Expired": "renew the session",
    "RequestExpired": "renew the session",
    "TransactionCanceled": "",  # each item says what it is about
}

_SAFE = {
    "ConfigNotFound",
    "ConfigParseError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "NoRegionError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
}
"""Errors of boto3 that name files, profiles and settings, never what they hold."""
_SOURCES = {"CredentialRetrievalError", "MetadataRetrievalError"}
"""Where the source of the credentials failed, which may pass."""


class UnknownOperation(StoreRefused):
    """The service has no such operation: it is not DynamoDB, or a part of it."""


def refusal(where: str, error: ClientError) -> StoreError:
    """Turn an error that the service gave into the store's."""
    code = error.response["Error"]["Code"]
    words = _own_words(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = f"{where}: {error.operation_name}: {code}: {words}"
    if code.startswith(("UnknownOperation", "NotImplemented")) or status == 501:
        return UnknownOperation(
            f"{where}: {error.operation_name} is not known there ({code}), and nothing "
            "works without it: use DynamoDB itself, or a work-alike with transactions "
            "(DynamoDB Local), or another store"
        )
    if set(reasons(error)) & _BUSY or code in _BUSY or status >= 500 or status == 429:
        return StoreUnavailable(text)
    if code == "ResourceNotFoundException":
        text = f"{where} does not exist: `service-monitor init-store` makes it"
    elif "schema" in words or (code == "ValidationException" and "key" in words):
        text = f"{where} was not made by `service-monitor init-store`: {words}"
    else:
        text = ": ".join(filter(None, (text.rstrip(": "), _remedy(code))))
    return StoreRefused(text)


def _remedy(code: str) -> str:
    for beginning, remedy in _REMEDIES.items():
        if code.startswith(beginning):
            return remedy
    if code.isdigit():
        return "is that DynamoDB, or something on the way to it?"
    return "look that code up in the service's documentation"


def _own_words(error: ClientError) -> str:
    words = error.response["Error"].get("Message", "")
    if error.response["Error"]["Code"] == "TransactionCanceledException":
        # What it is about stands below.
        found = error.response.get("CancellationReasons", ())
        texts = (str(reason.get("Message") or "") for reason in found)
        words = "; ".join(filter(None, texts)) or words
    words = " ".join(_QUOTED.split(words)[0].split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def reasons(error: ClientError) -> list[str]:
    """Say for each item of a cancelled transaction, or of one write, why it failed."""
    code = error.response["Error"]["Code"]
    if code == "ConditionalCheckFailedException":
        return ["ConditionalCheckFailed"]
    found = error.response.get("CancellationReasons", ())
    return [str(reason.get("Code", "None")) for reason in found]


def in_boto3(error: Exception) -> str:
    """Say what failed inside boto3, without what it may quote."""
    name = type(error).__name__
    if isinstance(error, BotoCoreError) and name in _SAFE:
        return " ".join(str(error).split())
    return f"{name} in boto3, whose text may hold secrets and is not shown"


def unusable(where: str, error: Exception) -> StoreError | LocalLack:
    """Turn an error that boto3 raised before anything was sent into ours."""
    if lack := lack_in(error, unclear=True):  # it forgets why a file was not read
        return lack
    if type(error).__name__ in _SOURCES:
        return StoreUnavailable(
            f"{where}: the source of the credentials gave none ({in_boto3(error)}): "
            "see to it, be it a credential_process or a metadata service"
        )
    remedy = "" if type(error).__name__ in _SAFE else ": are the AWS settings right?"
    return StoreRefused(f"{where}: {in_boto3(error)}{remedy}")
