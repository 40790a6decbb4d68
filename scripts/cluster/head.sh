#!/bin/sh
# Starts the head of a Ray cluster: head.sh [IP], where IP is this machine's address in the cluster.
#
# Without an IP nothing but this machine can join. The dashboard is on 127.0.0.1:8265 in any case.
# Nobody joins or submits without the token in ~/.ray/auth_token, which is made here if there is none.
set -eu
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
IP=${1:-127.0.0.1}
PORT=${PORT:-6379}
BIN=${BIN:-$(dirname "$0")/../../.venv/bin}

"$BIN/ray" get-auth-token --generate > /dev/null
# Nodes that are lost are noticed within some 10 seconds.
exec "$BIN/ray" start --head --node-ip-address="$IP" --port="$PORT" --dashboard-host=127.0.0.1 \
    --num-cpus="${CPUS:-$(nproc)}" --disable-usage-stats --block \
    --system-config='{"health_check_period_ms": 2000, "health_check_failure_threshold": 4}'
