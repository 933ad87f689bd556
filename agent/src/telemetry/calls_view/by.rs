//! What calls can be told apart by.

use std::str::FromStr;

macro_rules! dimensions {
    ($($variant:ident = $name:literal,)*) => {
        /// What calls can be told apart by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Dimension { $(#[doc = concat!("By `", $name, "`.")] $variant,)* }

        impl Dimension {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name, as [`By`] takes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

dimensions! {
    Pod = "pod",
    Workload = "workload",
    Service = "service",
    Method = "method",
    Endpoint = "endpoint",
    Status = "status",
}

/// What rows are told apart by: what is not among it is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By(u8);

impl By {
    /// By everything.
    pub const ALL: Self = Self((1 << Dimension::ALL.len()) - 1);

    /// Whether rows are told apart by it.
    pub fn has(self, dimension: Dimension) -> bool {
        self.0 & 1 << dimension as u8 != 0
    }

    pub(super) fn names(self) -> Vec<&'static str> {
        Dimension::ALL.iter().filter(|one| self.has(**one)).map(|one| one.name()).collect()
    }

    /// The value, where rows are told apart by the dimension.
    pub(super) fn only<T>(self, dimension: Dimension, value: impl FnOnce() -> T) -> Option<T> {
        self.has(dimension).then(value)
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut by = 0;
        for name in text.split(',') {
            let known = Dimension::ALL.iter().find(|dimension| dimension.name() == name);
            let known = known.ok_or_else(|| {
                format!("expected some of {}, with commas between them", Self::ALL.names().join(", "))
            })?;
            by |= 1 << *known as u8;
        }
        Ok(Self(by))
    }
}
