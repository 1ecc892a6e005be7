"""Access logs and metrics. What is measured is counted by the parts that do the work; this package only reads it."""
