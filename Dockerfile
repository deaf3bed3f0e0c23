# syntax=docker/dockerfile:1
# The image holds the one binary and the CA certificates; everything else is configuration.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --package cortex-cli && cp target/release/cortex /cortex

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/cortex --create-home cortex
COPY --from=build /cortex /usr/local/bin/cortex
USER cortex
WORKDIR /var/lib/cortex
# The key that signing keys are encrypted under lies in this folder: the same for every replica, and backed up.
VOLUME /var/lib/cortex
ENV CORTEX__SERVER__LISTEN=0.0.0.0:8080 \
    CORTEX__KEYS__ENCRYPTION_KEY_FILE=/var/lib/cortex/cortex.key
EXPOSE 8080
ENTRYPOINT ["cortex"]
CMD ["serve", "--config", "/etc/cortex/cortex.toml"]
