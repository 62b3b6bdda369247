# Gradatim with the sandbox's programs and the compilers of all seven languages. docs/install.md has the flags that let the
# sandbox work inside a container.
FROM python:3.11-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        bubblewrap default-jdk-headless g++ gcc golang-go libboost-dev libssl-dev nodejs npm util-linux \
    && npm install --global typescript@5.9.3 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/gradatim
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gradatim gradatim
# The CPU build of torch is the small one; another index has the builds for accelerators.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch==2.13.0 --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir --constraint constraints.txt '.[api,gguf,languages,lora,onnx]'

RUN useradd --create-home user
USER user
WORKDIR /home/user/work
ENTRYPOINT ["gradatim"]
CMD ["--help"]
