"""Alert rules and Grafana dashboards as code; what they make lies in deploy/observability/."""
