#!/bin/bash
# One sweep as a Slurm job: every node starts Ray, the first one also drives. The end of the time limit is like
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
#SBATCH --signal=TERM@120

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

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# When the sweep is over this ends every Ray on its nodes, so they must be ours alone (--exclusive).
srun ray symmetric-run --address "$head_ip:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE" \
  -- emergence sweep "$config" --address auto --results "$results"
