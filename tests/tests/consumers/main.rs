//! Real consumers of what the agent tells: Prometheus and its promtool, the queries of Evenkeel's own dashboard and rules, those of Kiali and
//! of Istio's dashboards, and Jaeger.

mod dashboard;
mod mesh;
mod rules;
mod scrape;
mod traces;
mod watched;
