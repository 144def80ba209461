"""Where the time of a run goes, what limits its speed, and how close the device is to its peak."""
