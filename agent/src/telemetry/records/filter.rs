//! Which calls somebody wants to hear of.

use crate::mesh::{MethodFilter, ObjectName, ServiceFilter};
use crate::telemetry::{CallEnd, GRPC_CODES, Status};
use std::str::FromStr;

/// Which calls a tap takes; without anything, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// Of pods of this namespace alone.
    pub namespace: Option<String>,
    /// Of this pod alone.
    pub pod: Option<ObjectName>,
    /// To this Service, or one port of it.
    pub service: Option<ServiceFilter>,
    /// Of this method, or these.
    pub method: Option<MethodFilter>,
    /// That ended so.
    pub status: Option<StatusFilter>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFilter {
    /// In an error ([`Status::is_error`]).
    Error,
    /// With this gRPC status. A client that did not wait for one has cancelled.
    Grpc(u8),
    /// With this HTTP status.
    Http(u16),
}

impl FromStr for StatusFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            "expected error, a gRPC status by name or number, as UNAVAILABLE or 14, or an HTTP status, as 503"
                .to_owned()
        };
        if text.eq_ignore_ascii_case("error") {
            return Ok(Self::Error);
        }
        if let Ok(number) = text.parse::<u16>() {
            return match number {
                // Below the number of codes, which is small.
                _ if usize::from(number) < GRPC_CODES.len() => Ok(Self::Grpc(number as u8)),
                100..=599 => Ok(Self::Http(number)),
                _ => Err(expected()),
            };
        }
        let name = text.replace('-', "_");
        let code = (0..).zip(GRPC_CODES).find(|(_, known)| known.eq_ignore_ascii_case(&name));
        code.map(|(code, _)| Self::Grpc(code)).ok_or_else(expected)
    }
}

impl StatusFilter {
    fn takes(self, status: Status) -> bool {
        const CANCELLED: u8 = 1;
        match self {
            Self::Error => status.is_error(),
            Self::Grpc(code) => status.is_grpc && status.grpc.unwrap_or(CANCELLED) == code,
            Self::Http(code) => status.http_code() == Some(code),
        }
    }
}

impl TapFilter {
    /// Whether a call is one of them.
    pub fn takes(&self, end: &CallEnd<'_>) -> bool {
        let Self { namespace, pod, service, method, status } = self;
        let source = end.source.map(|pod| &pod.name);
        namespace.as_deref().is_none_or(|wanted| source.is_some_and(|name| &*name.namespace == wanted))
            && pod.as_ref().is_none_or(|wanted| source == Some(wanted))
            && service.as_ref().is_none_or(|wanted| wanted.takes(end.service_port))
            && status.is_none_or(|wanted| wanted.takes(end.stats.status))
            && method.as_ref().is_none_or(|wanted| end.path().is_some_and(|path| wanted.takes(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::{Pod, PodKey, ServicePort, Workload};
    use crate::telemetry::{CallStats, Flag};
    use std::sync::Arc;

    fn pod() -> Pod {
        Pod {
            key: PodKey { uid: "u".into(), netns_cookie: 1 },
            name: ObjectName::new("shop", "web-0"),
            workload: Arc::new(Workload::named("shop", "web", "StatefulSet")),
            netns: std::fs::File::open("/dev/null").unwrap().into(),
        }
    }

    /// Whether a call to `shop/cart:50051`, method `shop.Cart/Add`, that ended so, is taken.
    fn takes(filter: &TapFilter, source: Option<&Pod>, grpc_status: Option<u8>, flag: Flag) -> bool {
        let mut request = FieldList::new();
        request.push(b":path", b"/shop.Cart/Add");
        filter.takes(&CallEnd {
            source,
            service_port: &ServicePort { service: ObjectName::new("shop", "cart"), port: 50_051 },
            original: None,
            endpoint: None,
            method: "other",
            request: &request,
            stats: CallStats {
                status: Status { is_grpc: true, http: 200, grpc: grpc_status, flag },
                ..CallStats::default()
            },
        })
    }

    #[test]
    fn a_filter_takes_what_is_all_that_it_says() {
        let pod = pod();
        let all = TapFilter::default();
        let namespace = |name: &str| TapFilter { namespace: Some(name.into()), ..all.clone() };
        let of_pod = |name: &str| TapFilter { pod: Some(name.parse().unwrap()), ..all.clone() };
        let service = |name: &str| TapFilter { service: Some(name.parse().unwrap()), ..all.clone() };
        let method = |name: &str| TapFilter { method: Some(name.parse().unwrap()), ..all.clone() };
        for (filter, expected) in [
            (all.clone(), true),
            (namespace("shop"), true),
            (namespace("shops"), false),
            (of_pod("shop/web-0"), true),
            (of_pod("shop/web-1"), false),
            (service("shop/cart"), true),
            (service("shop/cart:1"), false),
            (method("shop.Cart/Add"), true),
            (method("/shop.Cart/Add"), true),
            (method("shop.Cart/Ad"), false),
            (method("shop.Cart/*"), true),
            (method("*"), true),
            (method("shop.Carts/*"), false),
            (TapFilter { namespace: Some("shop".into()), ..method("x.Y/Z") }, false),
        ] {
            assert_eq!(takes(&filter, Some(&pod), Some(0), Flag::None), expected, "{filter:?}");
        }
        assert!(!takes(&namespace("shop"), None, Some(0), Flag::None), "nobody's pod is of no namespace");
    }

    #[test]
    fn statuses_are_names_or_numbers_or_any_error() {
        for (text, grpc_status, flag, expected) in [
            ("error", Some(0), Flag::None, false),
            ("error", Some(0), Flag::ClientGone, true),
            ("ERROR", Some(9), Flag::None, true),
            ("0", Some(0), Flag::None, true),
            ("ok", Some(0), Flag::None, true),
            ("14", Some(14), Flag::Refused, true),
            ("not-found", Some(5), Flag::None, true),
            ("NOT_FOUND", Some(4), Flag::None, false),
            ("cancelled", None, Flag::ClientCancelled, true),
            ("200", Some(5), Flag::None, true),
        ] {
            let filter = TapFilter { status: Some(text.parse().unwrap()), ..TapFilter::default() };
            assert_eq!(takes(&filter, None, grpc_status, flag), expected, "{text}");
        }
        for wrong in ["", "17", "99", "600", "-1", "not found", "errors"] {
            assert!(wrong.parse::<StatusFilter>().unwrap_err().contains("expected error"), "{wrong}");
        }
        for wrong in ["", "/", "a*b", "**"] {
            assert!(wrong.parse::<MethodFilter>().unwrap_err().contains("shop.Cart/Add"), "{wrong}");
        }
    }
}
