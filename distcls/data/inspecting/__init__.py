"""Inspecting and measuring data sets: `distcls data check`, `browse` and `describe`, `distcls bench data`."""
