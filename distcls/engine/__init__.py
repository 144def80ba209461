"""From a checked recipe to a trained model: everything that happens in a run, on every rank.

The way of a run, in the order of reading:

    run          the command and the function; signals first
    session      one attempt: check, meet the other ranks, open the folder, build, restore, train, close
    plugins, located, fit, fit_ranks, initial_weights
                 what can be wrong before the first batch, said at the recipe's line
    build        recipe -> job, the only file that does it; job is what the loop works with
    trainer      the loop, whole; agreement (all ranks act on the same step), rows (what is logged), seeding
    evaluate     every image of the set once; totals adds up over samples, reduction over ranks
    ending       what an attempt leaves behind; outcome and exit_codes what its caller gets

The rooms: ranks (the processes of a run), strategies (where weights lie), checkpoints, records (the run folder),
evaluation (beside loss and top-k), performance (where time goes), plan and verify (commands of their own), slurm.
"""
