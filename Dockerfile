# One image for every part: `punctual up` by default; `punctual web`, `worker` and `migrate` in production.
FROM python:3.13-slim AS build
WORKDIR /app
COPY setup/uv.txt setup/uv.txt
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir --quiet --no-deps --require-hashes -r setup/uv.txt
COPY requirements.txt ./
RUN .venv/bin/uv pip sync --python .venv/bin/python --no-cache --require-hashes --compile-bytecode requirements.txt
COPY pyproject.toml README.md LICENSE punctual.py ./
COPY web web
COPY jobs jobs
COPY scheduler scheduler
COPY models models
COPY migrations migrations
RUN .venv/bin/uv pip install --python .venv/bin/python --no-cache --no-deps --no-build-isolation -e . \
    && .venv/bin/python -m compileall -q punctual.py web jobs scheduler models migrations \
    && .venv/bin/pip uninstall --yes --quiet uv

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /app --no-create-home punctual && install -d -o punctual /data
WORKDIR /app
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PUNCTUAL_HOST=0.0.0.0 \
    PUNCTUAL_DATA_DIR=/data
USER punctual
VOLUME /data
EXPOSE 8080
# A worker serves no HTTP: compose.yaml switches this check off for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('PUNCTUAL_PORT', '8080') + '/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["punctual", "up"]
