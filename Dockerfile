# syntax=docker/dockerfile:1
# Three images from one file: `--target service` (the data plane), `--target operator` (the control plane),
# `--target cli` (`tidegate` for a person or a job), and `--target sbom` (a CycloneDX file of what is inside).
# Nothing in the last stages needs a shell, a writable root or root; /tmp and the snapshot folder are mounts.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY requirements ./requirements
RUN python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator ./operator
COPY ratelimit_service ./ratelimit_service
RUN uv build --quiet --wheel --no-build-isolation --out-dir /wheel

# --target and not a virtual environment: the interpreter of the last stage may lie elsewhere.
FROM build AS build-service
RUN uv pip install --quiet --target /opt/tidegate --require-hashes -r requirements/service.txt \
 && uv pip install --quiet --target /opt/tidegate --no-deps /wheel/*.whl \
 && rm -rf /opt/tidegate/bin && python -m compileall -q /opt/tidegate

FROM build AS build-operator
RUN uv pip install --quiet --target /opt/tidegate --require-hashes -r requirements/operator.txt \
 && uv pip install --quiet --target /opt/tidegate --no-deps /wheel/*.whl \
 && rm -rf /opt/tidegate/bin && python -m compileall -q /opt/tidegate

FROM build AS build-sbom
RUN uv pip install --quiet --system --require-hashes -r requirements/audit.txt \
 && cyclonedx-py requirements requirements/service.txt --output-file /service.cdx.json \
 && cyclonedx-py requirements requirements/operator.txt --output-file /operator.cdx.json

FROM scratch AS sbom
COPY --from=build-sbom /service.cdx.json /operator.cdx.json /

FROM python:${PYTHON}-slim AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tidegate" \
      org.opencontainers.image.description="Exact rate limiting for Envoy and Istio" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PYTHONPATH=/opt/tidegate PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp

FROM base AS operator
COPY --from=build-operator /opt/tidegate /opt/tidegate
EXPOSE 18002 8080
ENTRYPOINT ["python3", "-m", "ratelimit_operator"]

FROM base AS cli
COPY --from=build-service /opt/tidegate /opt/tidegate
ENTRYPOINT ["python3", "-m", "ratelimit_service.cli"]

FROM cli AS service
EXPOSE 8081 8080
CMD ["serve"]
