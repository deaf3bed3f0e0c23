# syntax=docker/dockerfile:1
# The image holds one static binary, the CA certificates and nothing else: no shell, no libraries, no package manager.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Paths and times of the machine that builds are in no binary, so that the same source makes the same one.
ENV CARGO_INCREMENTAL=0 \
    SOURCE_DATE_EPOCH=0 \
    RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=/cortex --remap-path-prefix=/usr/local/cargo=/cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --locked --release --target "$target" --package cortex-cli \
    && mkdir -p /image/usr/local/bin /image/etc/ssl/certs /image/var/lib/cortex \
    && cp "target/$target/release/cortex" /image/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && chown 10001:10001 /image/var/lib/cortex

FROM scratch
COPY --from=build /image /
USER 10001:10001
WORKDIR /var/lib/cortex
# The keys and the log's anchor lie here, where `cortex.toml` does not say otherwise: the keys are the same for every
# replica, and backed up.
VOLUME /var/lib/cortex
ENV PATH=/usr/local/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    CORTEX_CONFIG=/etc/cortex/cortex.toml \
    CORTEX__SERVER__LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=4s --start-period=30s --retries=3 CMD ["cortex", "health"]
ENTRYPOINT ["cortex"]
CMD ["serve"]
