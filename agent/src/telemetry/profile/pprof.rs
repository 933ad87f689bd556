//! pprof's format: the messages of `profile.proto`, whose numbers never change
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>), as far as they are used.

use super::stacks::{Kind, StackProfile};
use super::symbols::Symbols;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use rustc_hash::FxHashMap;
use std::io::{self, Write as _};
use std::time::UNIX_EPOCH;

/// `perftools.profiles.Profile`.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    /// What all that is text stands in, by position; the first is empty.
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

/// `perftools.profiles.ValueType`.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

/// `perftools.profiles.Sample`.
#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

/// `perftools.profiles.Label`.
#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

/// `perftools.profiles.Mapping`.
#[derive(Clone, PartialEq, Message)]
struct Mapping {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    memory_start: u64,
    #[prost(uint64, tag = "3")]
    memory_limit: u64,
    #[prost(uint64, tag = "4")]
    file_offset: u64,
    #[prost(int64, tag = "5")]
    filename: i64,
    #[prost(int64, tag = "6")]
    build_id: i64,
    #[prost(bool, tag = "7")]
    has_functions: bool,
}

/// `perftools.profiles.Location`.
#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    mapping_id: u64,
    #[prost(uint64, tag = "3")]
    address: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

/// `perftools.profiles.Line`.
#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

/// `perftools.profiles.Function`. Without its name before it was demangled: one that is as the name has pprof take it for C++, and
/// leave out what is in angle brackets.
#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

/// A profile as pprof reads it.
///
/// # Errors
/// None that a compressor into memory has.
pub(super) fn write(profile: &StackProfile, symbols: &Symbols) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&Writer::default().message(profile, symbols).encode_to_vec())?;
    gzip.finish()
}

#[derive(Default)]
struct Writer {
    written: Profile,
    texts: FxHashMap<String, i64>,
    /// By name.
    functions: FxHashMap<i64, u64>,
    /// By address and function.
    locations: FxHashMap<(u64, u64), u64>,
}

impl Writer {
    fn message(mut self, profile: &StackProfile, symbols: &Symbols) -> Profile {
        self.text("");
        self.written.sample_type = profile.kinds.iter().map(|kind| self.value_type(kind)).collect();
        self.written.default_sample_type = self.text(profile.kinds[profile.shown].name);
        self.written.period_type = Some(self.value_type(&profile.period.0));
        self.written.period = profile.period.1;
        let since_epoch = profile.began.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.written.time_nanos = since_epoch.as_nanos() as i64;
        self.written.duration_nanos = profile.took.unwrap_or_default().as_nanos() as i64;
        self.written.comment = profile.notes.iter().map(|note| self.text(note)).collect();
        for (position, mapping) in symbols.mappings.iter().enumerate() {
            let mapping = Mapping {
                id: id(position),
                memory_start: mapping.start,
                memory_limit: mapping.end,
                file_offset: mapping.offset,
                filename: self.text(&mapping.path),
                build_id: self.text(&mapping.build_id),
                // Else pprof would ask the file that has this name where it runs.
                has_functions: true,
            };
            self.written.mapping.push(mapping);
        }
        for stack in &profile.stacks {
            let functions = StackProfile::functions(stack, symbols);
            let location_id =
                functions.map(|(address, name)| self.location(address, name, symbols)).collect();
            let label = stack
                .thread
                .as_deref()
                .map(|thread| Label { key: self.text("thread"), str: self.text(thread) });
            let sample =
                Sample { location_id, value: stack.values.clone(), label: label.into_iter().collect() };
            self.written.sample.push(sample);
        }
        self.written
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let position = self.written.string_table.len() as i64;
        self.written.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), position);
        position
    }

    fn value_type(&mut self, kind: &Kind) -> ValueType {
        ValueType { kind: self.text(kind.name), unit: self.text(kind.unit) }
    }

    fn function(&mut self, name: &str) -> u64 {
        let name = self.text(name);
        let functions = &mut self.written.function;
        *self.functions.entry(name).or_insert_with(|| {
            let id = id(functions.len());
            functions.push(Function { id, name });
            id
        })
    }

    fn location(&mut self, address: u64, name: &str, symbols: &Symbols) -> u64 {
        let function_id = self.function(name);
        let locations = &mut self.written.location;
        *self.locations.entry((address, function_id)).or_insert_with(|| {
            let id = id(locations.len());
            let mapping_id = symbols.mapping_of(address).map_or(0, self::id);
            locations.push(Location { id, mapping_id, address, line: vec![Line { function_id }] });
            id
        })
    }
}

/// What stands for the element at a position: 0 is none.
fn id(position: usize) -> u64 {
    position as u64 + 1
}

/// What a profile says, for tests: its kinds, and of each sample the functions, the innermost first, and the values.
#[cfg(test)]
type Told = (Vec<String>, Vec<(Vec<String>, Vec<i64>)>);

#[cfg(test)]
fn read(bytes: &[u8]) -> Told {
    let mut message = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut message).unwrap();
    let profile = Profile::decode(&*message).unwrap();
    let text = |at: i64| profile.string_table[at as usize].clone();
    let name = |location: &u64| {
        let function = profile.location[*location as usize - 1].line[0].function_id;
        text(profile.function[function as usize - 1].name)
    };
    let sample = |sample: &Sample| (sample.location_id.iter().map(name).collect(), sample.value.clone());
    (
        profile.sample_type.iter().map(|kind| text(kind.kind)).collect(),
        profile.sample.iter().map(sample).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::stacks::{Stack, StackFormat};
    use super::*;
    use std::time::{Duration, SystemTime};

    #[inline(never)]
    fn innermost() -> u64 {
        std::hint::black_box(innermost as fn() -> u64 as usize as u64)
    }

    #[test]
    fn what_was_counted_is_read_again_and_folded_alike() {
        let profile = || StackProfile {
            kinds: vec![Kind::new("samples", "count"), Kind::new("cpu", "nanoseconds")],
            shown: 0,
            period: (Kind::new("cpu", "nanoseconds"), 10),
            began: SystemTime::now(),
            took: Some(Duration::from_secs(1)),
            stacks: vec![
                Stack {
                    thread: Some("a;b".into()),
                    frames: [innermost() + 1, 17].into(),
                    values: vec![2, 20],
                },
                Stack { thread: None, frames: Box::default(), values: vec![1, 10] },
                Stack { thread: None, frames: [18].into(), values: vec![0, 0] },
            ],
            notes: vec![],
            without: |_| false,
        };
        let name = "evenkeel::telemetry::profile::pprof::tests::innermost".to_owned();
        let (kinds, samples) = read(&profile().write(StackFormat::Pprof).unwrap());
        assert_eq!(kinds, ["samples", "cpu"]);
        assert_eq!(
            samples,
            [
                (vec![name.clone(), "[unknown]".into()], vec![2, 20]),
                (vec!["[other stacks]".into()], vec![1, 10])
            ]
        );
        let folded = String::from_utf8(profile().write(StackFormat::Folded).unwrap()).unwrap();
        assert_eq!(folded, format!("[other stacks] 1\na:b;[unknown];{name} 2\n"));
        let without = StackProfile { without: |name| name.contains("innermost"), ..profile() };
        let folded = String::from_utf8(without.write(StackFormat::Folded).unwrap()).unwrap();
        assert_eq!(folded, "[other stacks] 1\na:b;[unknown] 2\n");
    }
}
