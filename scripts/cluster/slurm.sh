#!/bin/bash
#SBATCH --job-name=worldmodels
#SBATCH --nodes=5
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#
# sbatch scripts/cluster/slurm.sh scripts/train_controller.py paper --out runs/paper [...]
#
# Starts a Ray cluster on the job's nodes, and on the first of them the command, with
# `--backend ray --ray-address auto --workers 0` behind it. A minute before the time is over the
# command is told to stop; the same sbatch line then goes on where it stopped.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?run this by sbatch}"
umask 077
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN  # srun hands it on; it is in no file and on no command line
RAY=.venv/bin/ray

HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
IP=$(srun --nodes=1 --ntasks=1 -w "$HEAD" hostname --ip-address | awk '{print $1}')
PORT=$((20000 + SLURM_JOB_ID % 20000))  # other jobs may share a node

srun --nodes=1 --ntasks=1 -w "$HEAD" --overlap "$RAY" start --head --node-ip-address="$IP" \
    --port="$PORT" --dashboard-host=127.0.0.1 --num-cpus="$((SLURM_CPUS_PER_TASK - 1))" \
    --disable-usage-stats --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$HEAD" --overlap "$RAY" start \
        --address="$IP:$PORT" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
fi

RAY_ADDRESS="$IP:$PORT" .venv/bin/python "$@" --backend ray --ray-address "$IP:$PORT" --workers 0 &
SEARCH=$!
trap 'kill -TERM $SEARCH' TERM
# `wait` returns when the signal comes, and again when the search has saved and gone.
wait $SEARCH || STATUS=$?
wait $SEARCH || STATUS=$?
exit "${STATUS:-0}"
