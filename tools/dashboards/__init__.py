"""Grafana dashboards as code: `make generate` writes their JSON into the chart."""
