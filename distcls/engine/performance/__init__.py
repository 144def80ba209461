"""Where a run's time goes, what bounds it, and how near the device is to its peak."""
