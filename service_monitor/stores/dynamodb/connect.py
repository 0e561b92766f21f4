"""Let boto3 connect as the other stores do: to all addresses of a name side by side.

botocore has no hook for it, and makes its pools by these two classes alone. One after
the other, a dead address would cost each new connection `ATTEMPT` seconds.
"""

from __future__ import annotations

from botocore import awsrequest

from service_monitor.net.pooled import SideBySide


class _Plain(SideBySide, awsrequest.AWSHTTPConnection):  # type: ignore[misc]
    pass


class _Tls(SideBySide, awsrequest.AWSHTTPSConnection):  # type: ignore[misc]
    pass


def connect_side_by_side() -> None:
    """Make botocore's connections from now on ours."""
    awsrequest.AWSHTTPConnectionPool.ConnectionCls = _Plain
    awsrequest.AWSHTTPSConnectionPool.ConnectionCls = _Tls
