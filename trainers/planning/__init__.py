"""What `python -m trainers.benchmark planners` plans in, beside whom, and how it shows the results."""
