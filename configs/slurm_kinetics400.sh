#!/bin/bash
# sbatch configs/slurm_kinetics400.sh
#
# Oct-I3D-R50 on Kinetics-400 on 2 machines with 8 GPUs each: one task per GPU, 4 clips each, 64 in all as in the recipe.
# Every machine must see the same output folder and the same videos. 5 minutes before its time is up SLURM tells the job
# to stop (SIGTERM); the run writes a checkpoint, ends with exit code 130, and the job goes back into the queue.
#SBATCH --job-name=octvideo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

export OMP_NUM_THREADS=1
srun --kill-on-bad-exit=1 octvideo train --config configs/kinetics400/i3d_r50_alpha0.1.yaml \
    --output runs/kinetics400_oct_i3d_r50 --resume --checkpoint_every_n_steps 500 \
    --trainer.num_nodes 2 --trainer.devices 8 --data.batch_size 4 --data.num_workers 7
code=$?
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
