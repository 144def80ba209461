"""What `accelerate launch` is given on one node of a SLURM step."""

from distcls.engine.slurm.accelerate_launch import options

NODE = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_NODES": "4", "SLURM_NODEID": "2", "SLURM_STEP_NODELIST": "gpu[003-006]"}


def test_eight_gpus_on_each_of_four_nodes():
    assert " ".join(options({**NODE, "SLURM_GPUS_ON_NODE": "8"}, ["train.py", "a.yaml"])) == (
        "--num_machines 4 --num_processes 32 --machine_rank 2 --main_process_ip gpu003 --main_process_port 20056 "
        "--mixed_precision no --dynamo_backend no --max_restarts 0 --multi_gpu train.py a.yaml"
    )


def test_one_process():
    alone = {**NODE, "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0"}
    assert "--multi_gpu" not in options(alone, ["train.py"])
