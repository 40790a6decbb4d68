#!/bin/sh
# Adds this machine to a Ray cluster: worker.sh HEAD_IP [IP], where IP is this machine's own address.
#
# Needs the head's ~/.ray/auth_token in the same place here, readable by you alone.
set -eu
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
HEAD=${1:?give the address of the head}
IP=${2:-}
PORT=${PORT:-6379}
BIN=${BIN:-$(dirname "$0")/../../.venv/bin}

if [ -z "${RAY_AUTH_TOKEN:-}" ] && [ ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]; then
    echo "worker.sh: there is no token; copy ~/.ray/auth_token from the head to this machine" >&2
    exit 2
fi
exec "$BIN/ray" start --address="$HEAD:$PORT" ${IP:+--node-ip-address="$IP"} \
    --num-cpus="${CPUS:-$(nproc)}" --disable-usage-stats --block
