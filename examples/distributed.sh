#!/usr/bin/env bash
# Pre-training in several processes of one machine, each with a share of every batch; negatives come from all of them.
#
#   examples/distributed.sh                    two processes, ml-100k
#   examples/distributed.sh 4 --epochs 10      four; further options are those of adaptssr pretrain, and the last value
#                                              of an option counts
#   PYTHON=.venv/bin/python examples/distributed.sh    by the Python of an environment that is not activated
#
# One process per GPU (NCCL) where there are GPUs, else on the CPU (gloo). torch.distributed.run is torchrun. On several
# machines, give it --nnodes, --node-rank and --rdzv-endpoint too, and run the same on each; all of them have to see the
# folder of --output.
set -euo pipefail

processes=${1:-2}
"${PYTHON:-python3}" -m torch.distributed.run --standalone --nproc-per-node "$processes" -m adaptssr_plugin pretrain \
    --dataset ml-100k --output adaptssr-distributed --mlm-epochs 2 --epochs 2 --max-len 50 "${@:2}"
