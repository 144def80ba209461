#!/usr/bin/env bash
# Set-up, then all tests: the fast ones first, the slow ones after them, whatever came of the fast ones.
#
#   bash launch/test.sh [PYTEST ARGUMENT ...]             e.g. bash launch/test.sh tests/house -k lint
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
bash "$here/setup.sh" test
cd -P "$here/.."

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
# What torchrun, wandb and compilers leave in the folder for temporary files goes with it; pytest's own folders stay, to look at.
export PYTEST_DEBUG_TEMPROOT="${TMPDIR:-/tmp}" TMPDIR="$results"

# Nothing of the caller's account, launcher or cluster job reaches a test.
unset "${!WANDB_@}" "${!ACCELERATE_@}" "${!SLURM_@}" "${!PET_@}" RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
export NETRC="$results/no_netrc" HF_HOME="$results/huggingface"
export WANDB_DIR="$results/wandb" WANDB_DATA_DIR="$results/wandb" WANDB_CACHE_DIR="$results/wandb" WANDB_CONFIG_DIR="$results/wandb"
mkdir "$WANDB_DIR"
# Several processes of a test share few cores: a thread that has nothing to do sleeps instead of spinning on the others' core.
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1

suites=("not slow" "slow")
[[ " $* " != *" -m "* ]] || suites=("") # the caller chooses by marker: one run
status=0
for suite in "${suites[@]}"; do
    echo "== tests${suite:+: $suite}"
    code=0 side_by_side=()
    # Fast tests keep one core busy, slow ones (two ranks, a cluster) the machine; a GPU is for one test at a time.
    [[ $suite != "not slow" || -e /dev/nvidia0 ]] || side_by_side=(-n 2 --dist loadfile --no-loadscope-reorder)
    .venv/bin/python -m pytest "${side_by_side[@]}" -m "$suite" --durations 5 \
        --junit-xml "$results/tests $suite.xml" "$@" || code=$?
    # 5: no test in this selection. Whether there was none at all, the sum tells.
    ((code == 0 || code == 5)) || status=$code
done

.venv/bin/python - "$results"/*.xml <<'SUM' || status=1
import sys
import xml.etree.ElementTree as ElementTree

suites = [suite for file in sys.argv[1:] for suite in ElementTree.parse(file).iter("testsuite")]
tests, failures, errors, skipped = (sum(int(suite.get(key)) for suite in suites) for key in ("tests", "failures", "errors", "skipped"))
print(f"distcls: {tests - failures - errors - skipped} passed, {failures + errors} failed, {skipped} skipped")
sys.exit(tests == 0)
SUM
exit "$status"
