"""The monitor: which workers are alive, what became of requests, and the metrics of both."""
