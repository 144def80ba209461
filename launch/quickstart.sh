#!/usr/bin/env bash
# From a fresh machine to a trained model: set-up, Fashion-MNIST, training, result. A second run skips what is done.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
bash "$here/setup.sh"
cd -P "$here/.."

recipe=recipes/fashion_mnist_quick.yaml
say() { printf '\n== %s\n' "$*"; }
stop() { printf 'quickstart: %s\n' "$@" >&2; exit 1; }

# Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28 pixels, 10 classes (Xiao et al. 2017, MIT licence).
packaged=/usr/share/datasets/fashion-mnist # by Debian's and Ubuntu's package dataset-fashion-mnist
downloaded=data/FashionMNIST/raw

# Sizes of the unpacked files: the packed ones differ between Debian and the original, by the name in gzip's header.
complete() {
    local name size
    while read -r name size; do
        [[ -f $1/$name.gz && $(gzip -dc "$1/$name.gz" 2>/dev/null | wc -c) == "$size" ]] || return 1
    done <<'FILES'
train-images-idx3-ubyte 47040016
train-labels-idx1-ubyte 60008
t10k-images-idx3-ubyte 7840016
t10k-labels-idx1-ubyte 10008
FILES
}
install_package() {
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
    ((EUID == 0)) || apt=(sudo -n "${apt[@]}")
    { "${apt[@]}" install -y dataset-fashion-mnist || { "${apt[@]}" update && "${apt[@]}" install -y dataset-fashion-mnist; }; } &>/dev/null
}
converted() { [[ -f data/fashion_mnist_$1.beton && -f data/fashion_mnist_$1.json ]]; }
download() { .venv/bin/python -c 'from torchvision.datasets import FashionMNIST; FashionMNIST("data", download=True)'; }

if converted train && converted val; then
    say "data: data/fashion_mnist_{train,val}.beton are there"
else
    say "data: Fashion-MNIST"
    mkdir -p data
    folder=$packaged
    if ! complete "$packaged" && ! { install_package && complete "$packaged"; }; then
        folder=$downloaded
        complete "$downloaded" || download || true
        complete "$downloaded" ||
            stop "Fashion-MNIST was to be had neither from the package dataset-fashion-mnist nor by torchvision's download." \
                "Put its four .gz files into $downloaded and start again."
    fi
    for split in train val; do
        converted "$split" ||
            .venv/bin/distcls data convert "$folder" "data/fashion_mnist_$split.beton" --split "$split" --source-type fashion-mnist
    done
fi

# accelerate gets the topology only, everything else is the recipe's. What is not said here it guesses aloud, and on a CPU it would use one
# thread; a config that the user made for another project lies in HF_HOME.
gpus=$(.venv/bin/python -c 'import torch; print(torch.cuda.device_count())')
processes=1
while ((2 * processes <= gpus)); do processes=$((2 * processes)); done # a power of two, so that it divides the batch
command=(.venv/bin/accelerate launch --quiet --num_machines 1 --num_processes "$processes" --mixed_precision no --dynamo_backend no
    --num_cpu_threads_per_process "$((($(nproc) + processes - 1) / processes))")
((processes == 1)) || command+=(--multi_gpu)

say "training: $recipe on $( ((gpus)) && echo "$processes of $gpus GPU(s)" || echo "$(nproc) CPU cores")"
# Passive: on a CPU torch's threads share the cores with those that load data. On two busy cores spinning took four times as long.
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE} HF_HOME="$PWD/.venv/huggingface" "${command[@]}" launch/train.py "$recipe"

.venv/bin/python - runs/fashion_mnist_quick <<'RESULT'
import sys
from pathlib import Path

from distcls.tracking import jsonl

run = Path(sys.argv[1])
last = [row for row in jsonl.read(run) if "val/top1" in row][-1]
print(f"""
== result
val top-1 {last["val/top1"]:.4f}, top-5 {last["val/top5"]:.4f} on {last["val/n"]:,} images, step {last["step"]:,}
run folder: {run}""")
offline = sorted(run.glob("wandb/**/offline-run-*"))
if offline:
    print(f"""W&B: this run was recorded offline. Look at it here:   .venv/bin/wandb leet {offline[-1]}
     or upload it:  .venv/bin/wandb login && .venv/bin/wandb sync {" ".join(map(str, offline))}""")
elif any(run.glob("wandb/**/run-*")):
    print("W&B: the address is in the lines above, and in run.json")
RESULT
