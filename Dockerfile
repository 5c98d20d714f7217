# One file, three images: docker build --target worker|gateway|notifier .
# Each holds the whole (small) distribution, the libraries of its own extra only, and no root.

FROM python:3.13-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1


FROM base AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy \
    UV_PROJECT_ENVIRONMENT=/opt/banksman
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
# The libraries first, so that a change of Banksman's own code reuses their layer.
FROM build AS build-worker
RUN uv sync --frozen --no-dev --no-install-project --extra tracing --extra worker
COPY shared shared
COPY services services
COPY examples examples
COPY deploy/valkey deploy/valkey
RUN uv sync --frozen --no-dev --no-editable --extra tracing --extra worker

FROM build AS build-gateway
RUN uv sync --frozen --no-dev --no-install-project --extra tracing --extra gateway
COPY shared shared
COPY services services
COPY examples examples
COPY deploy/valkey deploy/valkey
RUN uv sync --frozen --no-dev --no-editable --extra tracing --extra gateway

FROM build AS build-notifier
RUN uv sync --frozen --no-dev --no-install-project --extra tracing --extra notifier
COPY shared shared
COPY services services
COPY examples examples
COPY deploy/valkey deploy/valkey
RUN uv sync --frozen --no-dev --no-editable --extra tracing --extra notifier


FROM base AS runtime
RUN useradd --system --uid 10001 --create-home --home-dir /home/banksman banksman
ENV PATH=/opt/banksman/bin:$PATH BANKSMAN_LOG_FORMAT=json
WORKDIR /home/banksman
USER 10001


# Users' agents come with an image of their own (FROM this one, pip install acme-agents)
# or as a folder mounted on /agents.
FROM runtime AS worker
COPY --from=build-worker /opt/banksman /opt/banksman
ENV PYTHONPATH=/agents
CMD ["python", "-m", "banksman_worker"]

FROM runtime AS notifier
COPY --from=build-notifier /opt/banksman /opt/banksman
CMD ["python", "-m", "banksman_notifier"]

# Last, so that a plain `docker build .` makes it. It also carries `banksman migrate`.
FROM runtime AS gateway
COPY --from=build-gateway /opt/banksman /opt/banksman
ENV BANKSMAN_HOST=0.0.0.0 BANKSMAN_PORT=8420
EXPOSE 8420
CMD ["python", "-m", "banksman_gateway"]
