# medgan for XNAT, a DGX or any Docker host. Any uid may run it, with a read-only root and without a network: docs/how-to/dgx.md
#
#   GPU (PyPI's CUDA wheels of torch)   docker build -t medgan:0.1.0 .
#   CPU                                 docker build -t medgan:0.1.0-cpu --build-arg TORCH_OPTIONS="--index-url <PyTorch's index of CPU wheels>" .
#
# Plain instructions only, so that the classic builder (Docker's API) builds it as well as BuildKit. A digest can be pinned in BASE.
ARG BASE=python:3.11-slim
FROM ${BASE}

# All but torch, each file with its digest: scripts/write_lock.py wrote the list. Packages' own tests and torch's build tools (240 MB) are of no use here.
COPY requirements.lock constraints.txt /opt/medgan/
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement /opt/medgan/requirements.lock \
 && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && find . -type d -name tests -prune -exec rm -rf {} +
# Further words for the `pip install` of torch alone: its wheel is the one thing that differs between machines. What every build of it needs is
# there already; a CUDA build brings the libraries it names, with their exact versions, itself.
ARG TORCH_OPTIONS=""
RUN pip install --no-cache-dir --constraint /opt/medgan/constraints.txt ${TORCH_OPTIONS} torch \
 && cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" && rm -rf torch/test && find torch/bin -type f ! -name torch_shm_manager -delete \
 && if [ -d triton ]; then find triton -name "*.a" -delete; fi

# Triton compiles its launchers with a C compiler; a CPU wheel of torch has no use for one. Link-time optimisation and sanitizers (89 MB) go.
RUN if python -c "import sys, torch; sys.exit(torch.version.cuda is None)"; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
      && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/bin/*lto-dump* \
      && find /usr/lib/gcc /usr/lib/*-linux-gnu \( -name lto1 -o -name "lib[at]san*" -o -name "lib*[lu][sb]san*" -o -name "libhwasan*" \) -delete; \
    fi

# The weights that FID (Inception, Apache-2.0) and LPIPS (BSD) rest on, checked by SHA-256. Only the files this needs are copied before it, so that a change
# elsewhere in the code downloads nothing again. They lie beside /weights, which stays free for a mount of the user's own.
COPY medgan/__init__.py medgan/errors.py medgan/runs.py medgan/weights.py /tmp/fetch/medgan/
RUN PYTHONPATH=/tmp/fetch python -c "import pathlib; from medgan.weights import KNOWN, fetch; [fetch(name, pathlib.Path('/opt/medgan/weights')) for name in KNOWN]" \
 && rm -rf /tmp/fetch

COPY LICENSE /opt/medgan/
COPY medgan /opt/medgan/medgan
COPY plugin /opt/medgan/plugin
COPY xnat-command.json xnat-command.check.json processing-container.json /
# A checkout made under umask 077 must still be readable by any uid.
RUN chmod -R a+rX /opt/medgan/medgan /opt/medgan/plugin /opt/medgan/LICENSE /xnat-command.json /xnat-command.check.json /processing-container.json \
 && PYTHONPATH=/opt/medgan python -m compileall -q /opt/medgan/medgan /opt/medgan/plugin \
 && printf '#!/bin/sh\nexec python -m medgan "$@"\n' > /usr/local/bin/medgan \
 && chmod 755 /usr/local/bin/medgan \
 && PYTHONPATH=/opt/medgan python -m plugin.sbom /opt/medgan/sbom.cdx.json

# TMPDIR: scratch and caches go to /work where it is mounted, else to /tmp, to which Python falls back.
ARG MEDGAN_COMMIT=unknown
ENV PYTHONPATH=/opt/medgan \
    PYTHONDONTWRITEBYTECODE=1 \
    MEDGAN_COMMIT=${MEDGAN_COMMIT} \
    MEDGAN_WEIGHTS=/opt/medgan/weights \
    TMPDIR=/work \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Of the build: the commit's time, where the code and its documentation are to be had, and the base.
ARG MEDGAN_CREATED=""
ARG MEDGAN_SOURCE=""
ARG BASE
LABEL org.opencontainers.image.title="medgan" \
      org.opencontainers.image.description="StyleGAN2-ADA for medical images: scans in, synthetic images, FID, model and report out" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${MEDGAN_COMMIT}" \
      org.opencontainers.image.created="${MEDGAN_CREATED}" \
      org.opencontainers.image.authors="The medgan authors" \
      org.opencontainers.image.vendor="The medgan authors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://arxiv.org/abs/2210.03786" \
      org.opencontainers.image.source="${MEDGAN_SOURCE}" \
      org.opencontainers.image.documentation="${MEDGAN_SOURCE}" \
      org.opencontainers.image.base.name="${BASE}"

# No USER: XNAT's output folder belongs to XNAT's own user, so the platform chooses who runs this.
WORKDIR /opt/medgan
ENTRYPOINT ["python", "-m", "plugin"]

# Written by `python -m plugin.xnat write`: pulling the image registers these commands in XNAT.
LABEL org.nrg.commands="[\
 {\
  \"name\": \"medgan-train\",\
  \"label\": \"medgan: train a generator of synthetic images\",\
  \"description\": \"Trains StyleGAN2-ADA on the scans stored here and returns synthetic images, metrics, the model and a report. The form can be left as it is. For one Docker server with the NVIDIA runtime.\",\
  \"version\": \"0.1.0+548067b1\",\
  \"schema-version\": \"1.0\",\
  \"info-url\": \"https://arxiv.org/abs/2210.03786\",\
  \"image\": \"medgan:0.1.0\",\
  \"type\": \"docker\",\
  \"command-line\": \"train\",\
  \"override-entrypoint\": false,\
  \"mounts\": [\
   {\
    \"name\": \"input\",\
    \"writable\": false,\
    \"path\": \"/input\"\
   },\
   {\
    \"name\": \"output\",\
    \"writable\": true,\
    \"path\": \"/output\"\
   }\
  ],\
  \"environment-variables\": {\
   \"MEDGAN_RECIPE\": \"#recipe#\",\
   \"MEDGAN_MASK_LABEL\": \"#mask_label#\",\
   \"MEDGAN_WINDOW\": \"#window#\",\
   \"MEDGAN_SIZE\": \"#size#\",\
   \"MEDGAN_SESSIONS\": \"#sessions#\",\
   \"MEDGAN_SCAN_TYPES\": \"#scan_types#\",\
   \"MEDGAN_PRESET\": \"#preset#\",\
   \"MEDGAN_KIMG\": \"#kimg#\",\
   \"MEDGAN_PRETRAINED\": \"#pretrained#\",\
   \"MEDGAN_IMAGES\": \"#images#\",\
   \"MEDGAN_SEED\": \"#seed#\",\
   \"MEDGAN_TIME_BUDGET\": \"#time_budget#\",\
   \"MEDGAN_TARGET\": \"#target#\",\
   \"MEDGAN_PROJECT_ID\": \"#project-id#\"\
  },\
  \"ports\": {},\
  \"inputs\": [\
   {\
    \"name\": \"recipe\",\
    \"label\": \"Recipe\",\
    \"description\": \"what is done to the scans\",\
    \"type\": \"select-one\",\
    \"required\": false,\
    \"default-value\": \"ct-liver\",\
    \"replacement-key\": \"#recipe#\",\
    \"select-values\": [\
     \"ct-liver\",\
     \"sliver07\",\
     \"chest-xray14\",\
     \"acdc\",\
     \"msd-brain\",\
     \"pneumonia-mnist\",\
     \"oct-mnist\",\
     \"fashion-mnist\",\
     \"medmnist\",\
     \"ct\",\
     \"mr\",\
     \"xray\",\
     \"png\"\
    ]\
   },\
   {\
    \"name\": \"mask_label\",\
    \"label\": \"Mask label\",\
    \"description\": \"keep slices with this label of the masks (0: the recipe's own, -1: every slice)\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#mask_label#\"\
   },\
   {\
    \"name\": \"window\",\
    \"label\": \"Window (level width)\",\
    \"description\": \"window level and width in the scan's unit, e.g. 50 350 (empty: the recipe's own)\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#window#\"\
   },\
   {\
    \"name\": \"size\",\
    \"label\": \"Image size (px)\",\
    \"description\": \"side of the images in pixels: 32 to 1024, a power of two\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"256\",\
    \"replacement-key\": \"#size#\"\
   },\
   {\
    \"name\": \"sessions\",\
    \"label\": \"Sessions\",\
    \"description\": \"only sessions of a project whose label fits one of these patterns, e.g. CT_*,MR_0?\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#sessions#\"\
   },\
   {\
    \"name\": \"scan_types\",\
    \"label\": \"Scan types\",\
    \"description\": \"only scans whose type in XNAT fits one of these patterns, e.g. CT,T1*\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#scan_types#\"\
   },\
   {\
    \"name\": \"preset\",\
    \"label\": \"Training preset\",\
    \"description\": \"settings of the training\",\
    \"type\": \"select-one\",\
    \"required\": false,\
    \"default-value\": \"standard\",\
    \"replacement-key\": \"#preset#\",\
    \"select-values\": [\
     \"paper-2210.03786\",\
     \"paper-2308.02505\",\
     \"stylegan2\",\
     \"paper256\",\
     \"paper512\",\
     \"paper1024\",\
     \"cifar\",\
     \"auto\",\
     \"standard\",\
     \"quick\",\
     \"demo\"\
    ]\
   },\
   {\
    \"name\": \"kimg\",\
    \"label\": \"Training length (kimg)\",\
    \"description\": \"length of the training in thousands of images shown (0: the preset's own)\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#kimg#\"\
   },\
   {\
    \"name\": \"pretrained\",\
    \"label\": \"Start from\",\
    \"description\": \"start from these networks: ffhq-256, ffhq-512, ffhq-1024 (in the weights folder) or a file\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#pretrained#\"\
   },\
   {\
    \"name\": \"images\",\
    \"label\": \"Synthetic images\",\
    \"description\": \"synthetic images to give back\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"1000\",\
    \"replacement-key\": \"#images#\"\
   },\
   {\
    \"name\": \"seed\",\
    \"label\": \"Seed\",\
    \"description\": \"seed of split, weights and all draws\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#seed#\"\
   },\
   {\
    \"name\": \"time_budget\",\
    \"label\": \"Time budget\",\
    \"description\": \"stop after this long, e.g. 20h, keep the state and give back the best so far\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#time_budget#\"\
   },\
   {\
    \"name\": \"target\",\
    \"description\": \"XNAT's address of what was launched on.\",\
    \"type\": \"string\",\
    \"required\": false\
   },\
   {\
    \"name\": \"project-id\",\
    \"description\": \"The project that holds it.\",\
    \"type\": \"string\",\
    \"required\": false\
   }\
  ],\
  \"outputs\": [\
   {\
    \"name\": \"report\",\
    \"description\": \"One HTML file to read first, with figures, log and what became of every scan.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"report\"\
   },\
   {\
    \"name\": \"synthetic\",\
    \"description\": \"Synthetic images as one zip of PNGs, with a manifest and a contact sheet.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"synthetic\"\
   },\
   {\
    \"name\": \"metrics\",\
    \"description\": \"FID and the curves of the training, as JSON and pictures.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"metrics\"\
   },\
   {\
    \"name\": \"model\",\
    \"description\": \"The trained generator as a MONAI bundle, with its model card.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"model\"\
   },\
   {\
    \"name\": \"checkpoint\",\
    \"description\": \"The complete state of an unfinished training, to be resumed with --resume.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"checkpoint\"\
   }\
  ],\
  \"xnat\": [\
   {\
    \"name\": \"project\",\
    \"label\": \"medgan: train on this project\",\
    \"description\": \"One generator from every scan of the project.\",\
    \"contexts\": [\
     \"xnat:projectData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"project\",\
      \"description\": \"The project mounted at /input, read-only.\",\
      \"type\": \"Project\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\",\
      \"load-children\": false\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"project-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"project\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"project-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"project\",\
      \"derived-from-xnat-object-property\": \"id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_REPORT\"\
     },\
     {\
      \"name\": \"synthetic-resource\",\
      \"accepts-command-output\": \"synthetic\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_SYNTHETIC\"\
     },\
     {\
      \"name\": \"metrics-resource\",\
      \"accepts-command-output\": \"metrics\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_METRICS\"\
     },\
     {\
      \"name\": \"model-resource\",\
      \"accepts-command-output\": \"model\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_MODEL\"\
     },\
     {\
      \"name\": \"checkpoint-resource\",\
      \"accepts-command-output\": \"checkpoint\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECKPOINT\"\
     }\
    ]\
   },\
   {\
    \"name\": \"session\",\
    \"label\": \"medgan: train on this session\",\
    \"description\": \"One generator from one session. Launched on many sessions, it makes one training for each.\",\
    \"contexts\": [\
     \"xnat:imageSessionData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"session\",\
      \"description\": \"The session mounted at /input, read-only.\",\
      \"type\": \"Session\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\"\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"session-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"session\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"session-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"session\",\
      \"derived-from-xnat-object-property\": \"project-id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_REPORT\"\
     },\
     {\
      \"name\": \"synthetic-resource\",\
      \"accepts-command-output\": \"synthetic\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_SYNTHETIC\"\
     },\
     {\
      \"name\": \"metrics-resource\",\
      \"accepts-command-output\": \"metrics\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_METRICS\"\
     },\
     {\
      \"name\": \"model-resource\",\
      \"accepts-command-output\": \"model\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_MODEL\"\
     },\
     {\
      \"name\": \"checkpoint-resource\",\
      \"accepts-command-output\": \"checkpoint\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECKPOINT\"\
     }\
    ]\
   },\
   {\
    \"name\": \"scan\",\
    \"label\": \"medgan: train on this scan\",\
    \"description\": \"One generator from one scan. Launched on many scans, it makes one training for each.\",\
    \"contexts\": [\
     \"xnat:imageScanData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"scan\",\
      \"description\": \"The scan mounted at /input, read-only.\",\
      \"type\": \"Scan\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\"\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"scan-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"scan-session\",\
      \"type\": \"Session\",\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan\"\
     },\
     {\
      \"name\": \"scan-session-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan-session\",\
      \"derived-from-xnat-object-property\": \"project-id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_REPORT\"\
     },\
     {\
      \"name\": \"synthetic-resource\",\
      \"accepts-command-output\": \"synthetic\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_SYNTHETIC\"\
     },\
     {\
      \"name\": \"metrics-resource\",\
      \"accepts-command-output\": \"metrics\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_METRICS\"\
     },\
     {\
      \"name\": \"model-resource\",\
      \"accepts-command-output\": \"model\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_MODEL\"\
     },\
     {\
      \"name\": \"checkpoint-resource\",\
      \"accepts-command-output\": \"checkpoint\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECKPOINT\"\
     }\
    ]\
   }\
  ],\
  \"shm-size\": 2147483648,\
  \"runtime\": \"nvidia\"\
 },\
 {\
  \"name\": \"medgan-check\",\
  \"label\": \"medgan: check the data before a training\",\
  \"description\": \"Reads the scans stored here as a training would and returns counts, warnings, a sheet of images and the predicted time on a GPU. Trains nothing, needs no GPU. The form can be left as it is.\",\
  \"version\": \"0.1.0+76b89861\",\
  \"schema-version\": \"1.0\",\
  \"info-url\": \"https://arxiv.org/abs/2210.03786\",\
  \"image\": \"medgan:0.1.0\",\
  \"type\": \"docker\",\
  \"command-line\": \"check\",\
  \"override-entrypoint\": false,\
  \"mounts\": [\
   {\
    \"name\": \"input\",\
    \"writable\": false,\
    \"path\": \"/input\"\
   },\
   {\
    \"name\": \"output\",\
    \"writable\": true,\
    \"path\": \"/output\"\
   }\
  ],\
  \"environment-variables\": {\
   \"MEDGAN_RECIPE\": \"#recipe#\",\
   \"MEDGAN_MASK_LABEL\": \"#mask_label#\",\
   \"MEDGAN_WINDOW\": \"#window#\",\
   \"MEDGAN_SIZE\": \"#size#\",\
   \"MEDGAN_SESSIONS\": \"#sessions#\",\
   \"MEDGAN_SCAN_TYPES\": \"#scan_types#\",\
   \"MEDGAN_PRESET\": \"#preset#\",\
   \"MEDGAN_KIMG\": \"#kimg#\",\
   \"MEDGAN_SEED\": \"#seed#\",\
   \"MEDGAN_TARGET\": \"#target#\",\
   \"MEDGAN_PROJECT_ID\": \"#project-id#\"\
  },\
  \"ports\": {},\
  \"inputs\": [\
   {\
    \"name\": \"recipe\",\
    \"label\": \"Recipe\",\
    \"description\": \"what is done to the scans\",\
    \"type\": \"select-one\",\
    \"required\": false,\
    \"default-value\": \"ct-liver\",\
    \"replacement-key\": \"#recipe#\",\
    \"select-values\": [\
     \"ct-liver\",\
     \"sliver07\",\
     \"chest-xray14\",\
     \"acdc\",\
     \"msd-brain\",\
     \"pneumonia-mnist\",\
     \"oct-mnist\",\
     \"fashion-mnist\",\
     \"medmnist\",\
     \"ct\",\
     \"mr\",\
     \"xray\",\
     \"png\"\
    ]\
   },\
   {\
    \"name\": \"mask_label\",\
    \"label\": \"Mask label\",\
    \"description\": \"keep slices with this label of the masks (0: the recipe's own, -1: every slice)\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#mask_label#\"\
   },\
   {\
    \"name\": \"window\",\
    \"label\": \"Window (level width)\",\
    \"description\": \"window level and width in the scan's unit, e.g. 50 350 (empty: the recipe's own)\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#window#\"\
   },\
   {\
    \"name\": \"size\",\
    \"label\": \"Image size (px)\",\
    \"description\": \"side of the images in pixels: 32 to 1024, a power of two\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"256\",\
    \"replacement-key\": \"#size#\"\
   },\
   {\
    \"name\": \"sessions\",\
    \"label\": \"Sessions\",\
    \"description\": \"only sessions of a project whose label fits one of these patterns, e.g. CT_*,MR_0?\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#sessions#\"\
   },\
   {\
    \"name\": \"scan_types\",\
    \"label\": \"Scan types\",\
    \"description\": \"only scans whose type in XNAT fits one of these patterns, e.g. CT,T1*\",\
    \"type\": \"string\",\
    \"required\": false,\
    \"default-value\": \"\",\
    \"replacement-key\": \"#scan_types#\"\
   },\
   {\
    \"name\": \"preset\",\
    \"label\": \"Training preset\",\
    \"description\": \"settings of the training\",\
    \"type\": \"select-one\",\
    \"required\": false,\
    \"default-value\": \"standard\",\
    \"replacement-key\": \"#preset#\",\
    \"select-values\": [\
     \"paper-2210.03786\",\
     \"paper-2308.02505\",\
     \"stylegan2\",\
     \"paper256\",\
     \"paper512\",\
     \"paper1024\",\
     \"cifar\",\
     \"auto\",\
     \"standard\",\
     \"quick\",\
     \"demo\"\
    ]\
   },\
   {\
    \"name\": \"kimg\",\
    \"label\": \"Training length (kimg)\",\
    \"description\": \"length of the training in thousands of images shown (0: the preset's own)\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#kimg#\"\
   },\
   {\
    \"name\": \"seed\",\
    \"label\": \"Seed\",\
    \"description\": \"seed of split, weights and all draws\",\
    \"type\": \"number\",\
    \"required\": false,\
    \"default-value\": \"0\",\
    \"replacement-key\": \"#seed#\"\
   },\
   {\
    \"name\": \"target\",\
    \"description\": \"XNAT's address of what was launched on.\",\
    \"type\": \"string\",\
    \"required\": false\
   },\
   {\
    \"name\": \"project-id\",\
    \"description\": \"The project that holds it.\",\
    \"type\": \"string\",\
    \"required\": false\
   }\
  ],\
  \"outputs\": [\
   {\
    \"name\": \"report\",\
    \"description\": \"One HTML file to read first, what became of every scan, a sheet of images and the plan.\",\
    \"required\": true,\
    \"mount\": \"output\",\
    \"path\": \"report\"\
   }\
  ],\
  \"xnat\": [\
   {\
    \"name\": \"project\",\
    \"label\": \"medgan: check the data of this project\",\
    \"description\": \"What a training on every scan of the project would learn from, and how long it would take.\",\
    \"contexts\": [\
     \"xnat:projectData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"project\",\
      \"description\": \"The project mounted at /input, read-only.\",\
      \"type\": \"Project\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\",\
      \"load-children\": false\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"project-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"project\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"project-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"project\",\
      \"derived-from-xnat-object-property\": \"id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"project\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECK\"\
     }\
    ]\
   },\
   {\
    \"name\": \"session\",\
    \"label\": \"medgan: check the data of this session\",\
    \"description\": \"What a training on this session would learn from. Launched on many sessions, it checks each by itself.\",\
    \"contexts\": [\
     \"xnat:imageSessionData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"session\",\
      \"description\": \"The session mounted at /input, read-only.\",\
      \"type\": \"Session\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\"\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"session-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"session\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"session-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"session\",\
      \"derived-from-xnat-object-property\": \"project-id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"session\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECK\"\
     }\
    ]\
   },\
   {\
    \"name\": \"scan\",\
    \"label\": \"medgan: check the data of this scan\",\
    \"description\": \"What a training on this scan would learn from. Launched on many scans, it checks each by itself.\",\
    \"contexts\": [\
     \"xnat:imageScanData\"\
    ],\
    \"external-inputs\": [\
     {\
      \"name\": \"scan\",\
      \"description\": \"The scan mounted at /input, read-only.\",\
      \"type\": \"Scan\",\
      \"required\": true,\
      \"provides-files-for-command-mount\": \"input\"\
     }\
    ],\
    \"derived-inputs\": [\
     {\
      \"name\": \"scan-uri\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan\",\
      \"derived-from-xnat-object-property\": \"uri\",\
      \"provides-value-for-command-input\": \"target\"\
     },\
     {\
      \"name\": \"scan-session\",\
      \"type\": \"Session\",\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan\"\
     },\
     {\
      \"name\": \"scan-session-id\",\
      \"type\": \"string\",\
      \"required\": true,\
      \"user-settable\": false,\
      \"derived-from-wrapper-input\": \"scan-session\",\
      \"derived-from-xnat-object-property\": \"project-id\",\
      \"provides-value-for-command-input\": \"project-id\"\
     }\
    ],\
    \"output-handlers\": [\
     {\
      \"name\": \"report-resource\",\
      \"accepts-command-output\": \"report\",\
      \"as-a-child-of\": \"scan\",\
      \"type\": \"Resource\",\
      \"label\": \"MEDGAN_CHECK\"\
     }\
    ]\
   }\
  ]\
 }\
]"
