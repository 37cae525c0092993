# shellcheck shell=sh
# What the start scripts share; they read it before anything else. Everything they need to know is in
# environment variables, so that one and the same script runs on a laptop, in a container and in a pod.
set -eu

# Nobody is told that this runs.
export DO_NOT_TRACK=1
export PREFECT_SERVER_ANALYTICS_ENABLED=false
export PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS=false
export PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT=false
export MLFLOW_DISABLE_TELEMETRY=true
export HF_HUB_DISABLE_TELEMETRY=1

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# need NAME WHAT: the environment variable has to be set.
need() {
    eval "value=\${$1:-}"
    [ -n "$value" ] || fail "$1 is not set: $2"
}

loopback() {
    case "$1" in
        127.* | localhost | ::1) return 0 ;;
        *) return 1 ;;
    esac
}

# guarded HOST NAME WHAT: who listens beyond this machine has to know whom to answer.
guarded() {
    loopback "$1" && return 0
    eval "value=\${$2:-}"
    [ -n "$value" ] || fail "it would listen on $1 and answer anybody: set $2 ($3), or listen on 127.0.0.1"
}
