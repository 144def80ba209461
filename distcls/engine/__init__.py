"""From a checked recipe to a trained model: everything that happens in a run, on every rank.

The modules in the order in which a run uses them:

    run          the entry points, as a command and as a function
    attempt/     one attempt: check, meet the other ranks, open the run folder, build, restore, train, close
    checks/      mistakes that can be found before the first batch, reported at their line in the recipe
    building/    recipe -> job; nothing else turns a recipe into objects
    job          what the loop works with
    trainer      the whole loop; rows (what is logged), totals (sums of losses and counts), seeding
    evaluate     every image of the validation set exactly once
    stopping/    requests to stop, which all ranks follow at the same step; the outcome of a run

They build on: ranks/ (the processes of a run), strategies/ (how weights are distributed), checkpoints/, records/ (the
run folder), evaluation/ (metrics and predictions), performance/ (where the time goes).

For other commands: library and trained_model (using a trained model), plan/, verify/, slurm/.
"""
