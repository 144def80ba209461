"""What is in a data set, and how fast it is: `distcls data check`, `browse` and `describe`, `distcls bench data`."""
