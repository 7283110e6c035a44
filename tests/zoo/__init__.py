"""A benchmark of sick and healthy training runs, for any tool that judges training."""
