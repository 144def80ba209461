"""Conversion of folders, lists and torchvision data sets to .beton files: `distcls data convert`."""
