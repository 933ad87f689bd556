//! In which order endpoints are offered a call: one order for the calls, and for what is explained of them.

/// Among whom an endpoint is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The near ones.
    Near,
    /// Near ones and farther ones.
    All,
}

/// The session's endpoint, where it has one that may serve; else one nearby, for a call that stays [near](super::spill) if that goes; else any.
/// `among` finds one, or what is known of that, in a reach, or none.
#[inline]
pub fn first<T>(home: Option<T>, stays_near: bool, mut among: impl FnMut(Reach) -> Option<T>) -> Option<T> {
    home.or_else(|| if stays_near { among(Reach::Near) } else { None }).or_else(|| among(Reach::All))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_to_its_sessions_endpoint_then_near_then_anywhere() {
        let near = |reach| (reach == Reach::Near).then_some("near");
        let any = |reach| Some(if reach == Reach::Near { "near" } else { "any" });
        let far = |reach| (reach == Reach::All).then_some("far");
        assert_eq!(first(Some("home"), true, any), Some("home"));
        assert_eq!(first(None, true, any), Some("near"));
        assert_eq!(first(None, true, far), Some("far"));
        assert_eq!(first(None, false, any), Some("any"));
        assert_eq!(first(None, false, near), None, "a call that does not stay near is asked of all at once");
        assert_eq!(first(None::<&str>, true, |_| None), None);
    }
}
