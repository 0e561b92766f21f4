# The base of both stages, without registry too: see .ci/images.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# python-etcd has no wheel: what builds it (and the project) is locked by hash as well.
COPY requirements.lock requirements-build.lock ./
RUN pip install --require-hashes --no-deps -r requirements-build.lock \
 && pip wheel --require-hashes --no-deps --no-build-isolation -w /wheels \
        -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY service_monitor service_monitor
# The image is read-only to its user, so Python could not cache bytecode later. Trusting
# the cache without looking at the source saves a stat of every module at each start.
RUN pip wheel --no-deps --no-build-isolation -w /wheels . \
 && python -m venv --without-pip /opt/service-monitor \
 && pip --python /opt/service-monitor/bin/python install \
        --no-index --no-deps --no-compile /wheels/*.whl \
 # Of the hundreds of services that botocore describes: ours, and where credentials come
 # from.
 && find /opt/service-monitor/lib/*/site-packages/botocore/data -mindepth 1 -maxdepth 1 \
        -type d ! -name dynamodb ! -name signin ! -name sso ! -name sso-oidc ! -name sts \
        -exec rm -r {} + \
 && python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/service-monitor/lib \
 && rm /opt/service-monitor/bin/*ctivate* \
 # Isolated (-I): the PYTHONPATH of the service beside it must not change what is run.
 && sed -i '1s:$: -IuB:' /opt/service-monitor/bin/service-monitor
# The kernel drops a SIGTERM for PID 1 that comes while Python is still booting, but keeps
# one that is blocked; the program asks for it as soon as it can. So start it blocked.
RUN sed -i '1s:#!:#!/usr/bin/env -S --block-signal=TERM,INT,HUP,QUIT,PWR,USR1,USR2,WINCH,RTMIN+3 :' \
        /opt/service-monitor/bin/service-monitor

FROM python:3.13-slim
ENV PATH=/opt/service-monitor/bin:$PATH
COPY --from=build /opt/service-monitor /opt/service-monitor
# The base image has no bytecode of the standard library: keep that of the modules which
# the program imports (0.6 s to 0.4 s for a cold start), and only of those.
RUN printf '%s\n' \
    'import importlib, pkgutil, service_monitor as package' \
    'for m in pkgutil.walk_packages(package.__path__, "service_monitor."):' \
    '    importlib.import_module(m.name)' \
  | python -
# A watch, a run or a waiter whose rounds stall is unhealthy: the file's time is when the
# next sign of life is due. /dev/shm can be written with a read-only root file system.
ENV SERVICE_MONITOR_HEARTBEAT_FILE=/dev/shm/service-monitor
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD find "$SERVICE_MONITOR_HEARTBEAT_FILE" -newermt now | grep -q .
USER 65532:65532
ENTRYPOINT ["service-monitor"]
CMD ["--help"]
# Last, as they differ from build to build and would make all above be done again.
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="service_monitor" \
      org.opencontainers.image.description="Ordered, health-gated startup and honest discovery for clustered services" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
