# Khala in a small image: built with TLS, run by a user without rights.
#   docker build --tag khala:0.1.0 .
FROM rust:1.95-bookworm AS builder
# librdkafka is built from source and links OpenSSL.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Dependencies first: they change seldom, and this layer is most of the build.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --features tls \
 && rm -rf src
COPY README.md ./
COPY src src
# The stand-ins above are newer than the sources: without this cargo would keep them.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --features tls

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/khala --create-home khala
COPY --from=builder /build/target/release/khala /usr/local/bin/khala
USER khala
# The embedded default keeps its data below the working directory: mount a volume here to keep it.
WORKDIR /var/lib/khala
EXPOSE 7600
STOPSIGNAL SIGTERM
ENTRYPOINT ["khala"]
CMD ["serve"]
