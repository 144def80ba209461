"""Recipes: YAML files and the command line -> checked values; each mistake is reported with file, line and column.

In the order of reading: source (files, bases and overrides -> one tree, with the place of each key), based on yaml12;
schema (the keys and their defaults) and `check`, which walks the tree with checker; signature (the arguments of a class
as keys) and values (one value against one annotation). editor writes the JSON schema for editors; refill adds today's
defaults to the recipe of an old run. Imports no torch: callers import the classes that a recipe may name.
"""
