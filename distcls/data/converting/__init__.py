"""From folders, lists and torchvision's sets to .beton files: `distcls data convert`."""
