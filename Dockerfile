# medgan for XNAT, a DGX or any Docker host. Any uid may run it, with a read-only root and without a network: docs/how-to/dgx.md
#
#   GPU (PyPI's CUDA wheels of torch)   docker build -t medgan:0.1.0 .
#   CPU                                 docker build -t medgan:0.1.0-cpu --build-arg TORCH_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu" .
#
# Plain instructions only, so that the classic builder (Docker's API) builds it as well as BuildKit. A digest can be pinned in BASE.
ARG BASE=python:3.11-slim
FROM ${BASE}

# Further words for the `pip install` of torch alone: its wheel is the one thing that differs between machines.
ARG TORCH_OPTIONS=""
COPY constraints.txt pyproject.toml /opt/medgan/
RUN pip install --no-cache-dir --constraint /opt/medgan/constraints.txt ${TORCH_OPTIONS} torch \
 && python -c "import pathlib, tomllib; t = tomllib.loads(pathlib.Path('/opt/medgan/pyproject.toml').read_text()); print(*t['project']['dependencies'], sep='\n')" > /tmp/requirements.txt \
 && pip install --no-cache-dir --constraint /opt/medgan/constraints.txt --requirement /tmp/requirements.txt \
 && rm /tmp/requirements.txt

# Triton compiles its launchers with a C compiler; a CPU wheel of torch has no use for one.
RUN if python -c "import sys, torch; sys.exit(torch.version.cuda is None)"; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi

# The Inception weights (Apache-2.0) that FID rests on, checked by SHA-256. Only the files this needs are copied before it, so that a change
# elsewhere in the code downloads nothing again. They lie beside /weights, which stays free for a mount of the user's own.
COPY medgan/__init__.py medgan/errors.py medgan/runs.py medgan/weights.py /tmp/fetch/medgan/
RUN PYTHONPATH=/tmp/fetch python -c "import pathlib; from medgan.weights import fetch; fetch('inception-2015-12-05', pathlib.Path('/opt/medgan/weights'))" \
 && rm -rf /tmp/fetch

COPY LICENSE /opt/medgan/
COPY medgan /opt/medgan/medgan
COPY plugin /opt/medgan/plugin
COPY xnat-command.json /xnat-command.json
# A checkout made under umask 077 must still be readable by any uid.
RUN chmod -R a+rX /opt/medgan/medgan /opt/medgan/plugin /opt/medgan/LICENSE /xnat-command.json \
 && PYTHONPATH=/opt/medgan python -m compileall -q /opt/medgan/medgan /opt/medgan/plugin \
 && printf '#!/bin/sh\nexec python -m medgan "$@"\n' > /usr/local/bin/medgan \
 && chmod 755 /usr/local/bin/medgan

ARG MEDGAN_COMMIT=unknown
ENV PYTHONPATH=/opt/medgan \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDGAN_COMMIT=${MEDGAN_COMMIT} \
    MEDGAN_WEIGHTS=/opt/medgan/weights \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
LABEL org.opencontainers.image.title="medgan" \
      org.opencontainers.image.description="StyleGAN2-ADA for medical images: scans in, synthetic images, FID, model and report out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${MEDGAN_COMMIT}"

# No USER: XNAT's output folder belongs to XNAT's own user, so the platform chooses who runs this.
WORKDIR /opt/medgan
ENTRYPOINT ["python", "-m", "plugin"]
