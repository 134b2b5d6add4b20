"""Steps on the machines of a Ray cluster. Only this package imports Ray and dagster-ray, and only
when the settings or ``--on`` name a cluster."""
