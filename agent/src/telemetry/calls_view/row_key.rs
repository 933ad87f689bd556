//! What a row of `/calls` is of.

use super::by::{By, Dimension};
use crate::mesh::{ObjectName, ServicePort, Workload};
use crate::telemetry::{CallKey, Status};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a row is told apart by. Of equal numbers of calls the order is by this, so that what is cut off is the same the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RowKey<'a> {
    pub(super) pod: Option<&'a ObjectName>,
    /// Its namespace and name.
    pub(super) workload: Option<(&'a Arc<str>, &'a Arc<str>)>,
    pub(super) service_port: Option<&'a ServicePort>,
    pub(super) method: Option<&'a Arc<str>>,
    pub(super) endpoint: Option<(SocketAddr, Option<&'a Arc<str>>)>,
    pub(super) status: Option<Status>,
}

impl<'a> RowKey<'a> {
    pub(super) fn new(key: &'a CallKey, by: By) -> Self {
        let caller = key.link.caller.as_ref();
        let workload = caller.map(|caller| (&caller.workload.namespace, &caller.workload.name));
        let endpoint = key.endpoint.as_ref().map(|endpoint| (endpoint.address, endpoint.pod.as_ref()));
        Self {
            pod: by.only(Dimension::Pod, || caller.map(|caller| &caller.name)).flatten(),
            // A pod has one.
            workload: workload.filter(|_| by.has(Dimension::Pod) || by.has(Dimension::Workload)),
            service_port: by.only(Dimension::Service, || &key.link.service_port),
            method: by.only(Dimension::Method, || &key.method),
            endpoint: endpoint.filter(|_| by.has(Dimension::Endpoint)),
            status: by.only(Dimension::Status, || key.status),
        }
    }

    pub(super) fn of_workload(
        source: Option<&'a Workload>,
        service_port: &'a ServicePort,
        method: &'a Arc<str>,
        status: Status,
        by: By,
    ) -> Self {
        Self {
            pod: None,
            workload: source
                .filter(|_| by.has(Dimension::Workload))
                .map(|workload| (&workload.namespace, &workload.name)),
            service_port: by.only(Dimension::Service, || service_port),
            method: by.only(Dimension::Method, || method),
            endpoint: None,
            status: by.only(Dimension::Status, || status),
        }
    }
}
