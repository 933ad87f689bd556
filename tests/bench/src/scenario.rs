//! The shapes of load. The next file is `wire.rs`.

/// A shape of load.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Client connections.
    pub(crate) connections: usize,
    pub(crate) arrivals: Arrivals,
    /// Bytes of a request's message.
    pub(crate) request: usize,
    /// Bytes of each message of an answer.
    pub(crate) message: usize,
    /// Messages of an answer.
    pub(crate) messages: usize,
    /// Whether each call carries a long `authorization`.
    pub(crate) token: bool,
}

/// When the next call begins.
#[derive(Debug)]
pub(crate) enum Arrivals {
    /// As soon as one ends: so many are under way on each connection.
    Closed { streams: usize },
    /// At random moments, so many a second on average, whatever the calls before do.
    Open { calls_per_second: f64 },
}

const UNARY: Scenario = Scenario {
    name: "8x16",
    connections: 8,
    arrivals: Arrivals::Closed { streams: 16 },
    request: 1024,
    message: 1024,
    messages: 1,
    token: false,
};

/// All of them, in the order of the report.
pub(crate) const ALL: &[Scenario] = &[
    UNARY,
    Scenario { name: "8x16-token", token: true, ..UNARY },
    Scenario { name: "1x100", connections: 1, arrivals: Arrivals::Closed { streams: 100 }, ..UNARY },
    Scenario { name: "64x1", connections: 64, arrivals: Arrivals::Closed { streams: 1 }, ..UNARY },
    Scenario { name: "64KiB", message: 64 << 10, ..UNARY },
    Scenario { name: "stream-100", messages: 100, arrivals: Arrivals::Closed { streams: 4 }, ..UNARY },
    Scenario { name: "2000/s", arrivals: Arrivals::Open { calls_per_second: 2000.0 }, ..UNARY },
];

/// The scenario of that name.
pub(crate) fn named(name: &str) -> Result<&'static Scenario, String> {
    let names = || ALL.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("no such scenario; there are {}", names()))
}
