"""A recipe: YAML files and the command line -> checked values, every mistake at its file, line and column.

In the order of reading: source (files, bases, overrides -> one tree with places) on yaml12; schema (the keys and their
defaults) and `check`, which walks the tree with checker; signature (a class's arguments as keys) and values (one value
against one annotation). editor writes the JSON schema for editors, refill gives an old run's recipe today's defaults.
Imports no torch: who checks a recipe has imported the classes that it may name.
"""
