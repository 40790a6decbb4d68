# The project with everything it may need, for one machine or for the nodes of a cluster.
#
#   docker build -t worldmodels .                              # PyTorch for CPUs, about 3 GB
#   docker build --build-arg TORCH=gpu -t worldmodels:gpu .    # PyTorch for CUDA, about 10 GB
#   docker run --rm -it -v "$PWD/runs:/opt/worldmodels/runs" worldmodels worldmodels train_in_dream quick
#   docker run --rm -it -p 127.0.0.1:8123:8123 worldmodels worldmodels play --host 0.0.0.0
#
# With a GPU, add `--gpus all` to docker run. The base is not root's: files in runs are yours with
# `--user "$(id -u):$(id -g)"`.
FROM python:3.11-slim

ARG TORCH=cpu

# libgl1 and libglib2.0-0 are what pygame and VizDoom link against; make is for the README's commands.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/worldmodels/.venv/bin:$PATH \
    SDL_VIDEODRIVER=dummy \
    SDL_AUDIODRIVER=dummy \
    MPLBACKEND=Agg

WORKDIR /opt/worldmodels
COPY . .
# uv knows where PyTorch keeps its builds for CPUs; the default one is for CUDA.
RUN pip install --no-cache-dir uv \
    && uv venv .venv \
    && if [ "$TORCH" = cpu ]; then backend="--torch-backend cpu"; else backend=""; fi \
    && uv pip install --no-cache --python .venv/bin/python $backend -c constraints.txt -e ".[all]" \
    && python -c "import agents, envs, generative, worldmodels"

CMD ["worldmodels", "--help"]
