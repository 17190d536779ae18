#!/bin/sh
# A batch script of the tests, with the contract of slurm/vneva.sbatch in a few lines: hands
# USR1 on to the step, and queues the job again when vneva-node ends with 75.
#   RUN: the run folder; WORDS: after --; VNEVA_BIN

# A node that died has kept the socket of PMIx for step 0, and Slurm's plugin does not start
# another step under that number: a later start of the job begins with step 1.
[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || srun --ntasks-per-node=1 --mpi=none true
srun --ntasks-per-node=1 --kill-on-bad-exit=0 --mpi=pmix "$VNEVA_BIN/vneva-node" \
    --run-dir "$RUN" --devices 1 --grace 20 --stranded 40 -- $WORDS &
step=$!
trap 'kill -USR1 $step' USR1
while :; do
    wait $step
    status=$?
    kill -0 $step 2>/dev/null || break # else a signal ended the wait
done
echo "start ${SLURM_RESTART_COUNT:-0} ended with $status"
[ $status != 75 ] || scontrol requeue "$SLURM_JOB_ID"
exit $status
