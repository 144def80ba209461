"""From a checked recipe to a trained model: everything that happens in a run, on every rank.

The way of a run, in the order of reading:

    run          the command and the function; signals first
    attempt/     one attempt: check, meet the other ranks, open the folder, build, restore, train, close
    checks/      what can be wrong before the first batch, said at the recipe's line
    building/    recipe -> job, the only room that does it
    job          what the loop works with
    trainer      the loop, whole; rows (what is logged), totals (sums of losses and counts), seeding
    evaluate     every image of the set once
    stopping/    requests to stop, on which all ranks act at the same step; what the caller gets

What these stand on: ranks/ (the processes of a run), strategies/ (where weights lie), checkpoints/, records/ (the run
folder), evaluation/ (beside loss and top-k), performance/ (where time goes).

Commands of their own: library and trained_model (a model that was trained, in use), plan/, verify/, slurm/.
"""
