# cgankd on a processor. Images and public sets in /data, results in /runs:
#   docker build -t cgankd .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/my_images:/data/my_images" -v "$PWD/runs:/runs" \
#       cgankd run /data/my_images --out /runs/mine
FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
# torch first and from its own index, because the usual one has only the build for CUDA, which is ten times as large
RUN python -m venv /opt/cgankd \
 && /opt/cgankd/bin/pip install --no-cache-dir --index-url "$TORCH_INDEX" torch \
 && /opt/cgankd/bin/pip install --no-cache-dir ".[export]"

FROM python:3.12-slim
# --user may name any user, also one without a name and a home
RUN useradd --create-home --uid 1000 cgankd && mkdir -m 1777 /data /runs
COPY --from=build /opt/cgankd /opt/cgankd
ENV PATH=/opt/cgankd/bin:$PATH CGANKD_DATA=/data MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
USER 1000
WORKDIR /runs
VOLUME ["/data", "/runs"]
ENTRYPOINT ["cgankd"]
CMD ["--help"]
