# The repository with what it needs on TPUs, for GKE.
#   docker build -f launch/tpu.Dockerfile -t gcr.io/PROJECT/pe_research .
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /pe_research
COPY requirements.txt .
COPY launch/requirements-tpu.txt launch/
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir -r launch/requirements-tpu.txt
COPY . .
ENV PATH=/pe_research/.venv/bin:$PATH
