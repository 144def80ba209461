"""Recipe -> objects, the only room that does it: nothing below receives the recipe, only plain values from here.

build says in which order; datasets, model (with initial_weights, precision, cuda_graphs), loaders and backends are the
parts. recipe_start is for commands that want the model that a run would begin with.
"""
