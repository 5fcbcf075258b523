#!/bin/bash
# One sweep as a Slurm job: every node starts Ray, the first one also drives. Two minutes before the time limit is like
# Ctrl-C: what is done is kept, and the same command goes on from there.
#
#   sbatch --nodes=4 ray_configs/clusters/slurm.sh pythia "$SCRATCH/pythia"
#   tail -f emergence-*.log
#   scancel --name=emergence
#
#SBATCH --job-name=emergence
#SBATCH --output=emergence-%j.log
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120

set -euo pipefail
config=${1:?usage: sbatch slurm.sh CONFIG RESULTS}
results=${2:?usage: sbatch slurm.sh CONFIG RESULTS}

# The environment that holds `emergence`; compute nodes often have no way to the hub, so fetch models beforehand
# (hf download MODEL) into an HF_HOME that all nodes see.
source "${EMERGENCE_VENV:-$HOME/emergence-venv}/bin/activate"
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} RAY_USAGE_STATS_ENABLED=0

# Other users of these nodes must not run code here: a token in the home that all nodes see.
export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
read -r head_ip _ < <(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)

# Ray runs in the foreground of steps of this job, so that ending a step ends its Ray and no other.
steps=() sweep=
end() {
  trap - EXIT TERM INT
  [ -z "$sweep" ] || { kill -TERM "$sweep" 2> /dev/null && wait "$sweep"; } || true
  [ ${#steps[@]} -eq 0 ] || { kill "${steps[@]}" 2> /dev/null && wait "${steps[@]}"; } || true
}
trap end EXIT
trap 'end; exit 143' TERM INT

has=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE")
srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$head_ip" --port=6379 "${has[@]}" --block & steps+=($!)
until [[ $(ray status --address "$head_ip:6379" 2> /dev/null) == *node_* ]]; do
  kill -0 "${steps[0]}" && [ $SECONDS -lt 300 ] || { echo "Ray did not start on $head" >&2; exit 1; }
  sleep 1
done
others=$((SLURM_JOB_NUM_NODES - 1))
if [ $others -gt 0 ]; then # they join while the sweep already runs
  srun --nodes=$others --ntasks=$others --exclude="$head" \
    ray start --address="$head_ip:6379" "${has[@]}" --block & steps+=($!)
fi

emergence sweep "$config" --address "$head_ip:6379" --results "$results" & sweep=$!
code=0
wait "$sweep" || code=$?
sweep=
exit $code
