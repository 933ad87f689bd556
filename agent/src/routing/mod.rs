//! Which backend a call goes to. Pure.
//!
//! Today a destination has one backend; rules on hosts, paths and headers choose among several here. What comes out
//! goes to [`crate::balance`].

use crate::http2::FieldList;
use crate::mesh::{Backend, Destination};
use std::sync::Arc;

/// Why a call goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// The destination is not, or no longer, known.
    UnknownDestination,
}

/// Chooses the backend for a request to `destination`; `None` stands for a destination that the snapshot does not hold.
pub fn route<'a>(
    destination: Option<&'a Destination>,
    _request: &FieldList,
) -> Result<&'a Arc<Backend>, NoRoute> {
    destination.map(|destination| &destination.backend).ok_or(NoRoute::UnknownDestination)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Balancing, ObjectName, ServicePort};

    #[test]
    fn a_known_destination_leads_to_its_backend_and_an_unknown_one_nowhere() {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let backend = Arc::new(Backend::new(service_port, Arc::from([]), Balancing::default()));
        let destination =
            Destination { original: "10.96.0.7:50051".parse().unwrap(), backend: Arc::clone(&backend) };
        let request = FieldList::new();
        assert!(Arc::ptr_eq(route(Some(&destination), &request).unwrap(), &backend));
        assert_eq!(route(None, &request).unwrap_err(), NoRoute::UnknownDestination);
    }
}
