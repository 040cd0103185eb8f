# Khala in a small image: built with TLS, run by a user without rights.
#   docker build --tag khala:0.1.0 .
FROM rust:1.95-bookworm AS builder
# librdkafka is built from source and links OpenSSL.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Cargo wants every target that the manifest names, so the tests come along; they are not built.
COPY Cargo.toml Cargo.lock README.md ./
COPY src src
COPY tests tests
# Dependencies stay in the builder's cache, and so does what did not change.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --features tls \
 && cp target/release/khala /usr/local/bin/khala

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/khala --create-home khala
COPY --from=builder /usr/local/bin/khala /usr/local/bin/khala
USER khala
# The embedded default keeps its data below the working directory: mount a volume here to keep it.
WORKDIR /var/lib/khala
EXPOSE 7600
STOPSIGNAL SIGTERM
ENTRYPOINT ["khala"]
CMD ["serve"]
