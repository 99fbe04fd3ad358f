# The image of Backstay: its two programs, no shell, nobody's account. What the program is made of stands in
# /usr/share/backstay/sbom.cdx.json (CycloneDX 1.5).
#
#   docker build --tag backstay .
#
# PROFILE and FEATURES are for builds that already have what they need: tests/image/build makes a debug build with the
# machine's own OpenSSL in seconds. WORKDIR is where the sources are put.

FROM docker.io/library/rust:1-bookworm AS build
ARG PROFILE=release
ARG FEATURES=vendored-openssl
ARG WORKDIR=/src
WORKDIR ${WORKDIR}
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY example-repo ./example-repo
COPY tests/image/sbom ./tests/image/sbom
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/var/cache/target \
    set -eu; \
    target="${CARGO_TARGET_DIR:-/var/cache/target}"; \
    folder="$PROFILE"; if [ "$folder" = dev ]; then folder=debug; fi; \
    cargo build --locked --bins --profile "$PROFILE" --features "$FEATURES" --target-dir "$target"; \
    install -D -m 0755 -t /out/usr/local/bin "$target/$folder/backstay" "$target/$folder/backstay-keeper"; \
    install -d /out/usr/share/backstay; \
    sh tests/image/sbom --features "$FEATURES" >/out/usr/share/backstay/sbom.cdx.json; \
    install -d -o 65532 -g 65532 -m 0750 /out/var/lib/backstay

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /
USER 65532:65532
EXPOSE 8740
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/local/bin/backstay", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/backstay"]
CMD ["run"]
