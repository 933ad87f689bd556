//! Colour: only where somebody looks at a terminal that bears it.

use crate::telemetry::bears_colours;

/// What a text is, to whoever looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Paint {
    /// As it should be.
    Good,
    /// On its way, or worth a look.
    Odd,
    /// Something is wrong.
    Bad,
    /// Less important than the rest.
    Faint,
    /// What matters most.
    Bold,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Palette {
    Plain,
    Colours,
}

impl Palette {
    /// What standard output can bear.
    pub(in crate::cli) fn of_stdout() -> Self {
        match bears_colours(&std::io::stdout()) {
            true => Self::Colours,
            false => Self::Plain,
        }
    }

    /// The text in its colour.
    pub(in crate::cli) fn paint(self, text: &str, paint: Paint) -> String {
        let code = match (self, paint) {
            (Self::Plain, _) => return text.to_owned(),
            (Self::Colours, Paint::Good) => "32",
            (Self::Colours, Paint::Odd) => "33",
            (Self::Colours, Paint::Bad) => "31",
            (Self::Colours, Paint::Faint) => "2",
            (Self::Colours, Paint::Bold) => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
