# syntax=docker/dockerfile:1
# The Label Studio backend, for the CPU. For NVIDIA GPUs: --build-arg TORCH_INDEX=https://pypi.org/simple, whose PyTorch
# for Linux brings the CUDA libraries. compose.yaml starts it beside Label Studio.

FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV VENV=/opt/sam2
WORKDIR /build
RUN python -m venv --without-pip "$VENV"
# a layer each for what is large and seldom changes, for the other dependencies, and for the project
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python "$VENV/bin/python" install --index-url "$TORCH_INDEX" torch torchvision
COPY pyproject.toml docker/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py pyproject.toml label-studio train > requirements.txt \
    && pip --python "$VENV/bin/python" install -r requirements.txt
COPY README.md LICENSE NOTICE ./
COPY src src
COPY training training
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python "$VENV/bin/python" install --no-deps .

FROM python:3.12-slim
RUN useradd --uid 1000 --create-home sam2 && install --directory --owner sam2 --group sam2 /data
COPY --from=build /opt/sam2 /opt/sam2
ENV PATH=/opt/sam2/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SAM2_SERVE_LABELS=/data/labels \
    SAM2_CACHE_DIR=/data/models \
    SAM2_EMBEDDINGS_CACHE=/data/embeddings
USER sam2
WORKDIR /data
VOLUME /data
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:9090/health', timeout=4)"]
# to be reached from outside it wants SAM2_SERVE_SECRET or SAM2_SERVE_BASIC_AUTH, and says so
CMD ["sam2", "serve", "--host", "0.0.0.0"]
