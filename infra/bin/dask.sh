# shellcheck shell=sh
# What scheduler and workers of Dask share.

# encrypted HOST: tls where there are certificates, and not without them beyond loopback.
encrypted() {
    guarded "$1" DASK_DISTRIBUTED__COMM__TLS__CA_FILE \
        "with certificate and key of each part: \`infra/bin/certificates FOLDER\` makes them and says what to set"
    protocol=tcp
    if [ -n "${DASK_DISTRIBUTED__COMM__TLS__CA_FILE:-}" ]; then
        protocol=tls
        export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
    fi
}
