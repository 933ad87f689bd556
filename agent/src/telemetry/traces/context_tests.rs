use super::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const TRACE_TEXT: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const OWN: &str = "53995c3f42cd8ad8";

fn own() -> NonZeroU64 {
    NonZeroU64::new(0x5399_5c3f_42cd_8ad8).expect("it is none")
}

fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

fn texts(list: &FieldList) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|field| (text(field.name), text(field.value))).collect()
}

fn said(fields: &[(&str, &str)]) -> Option<Said> {
    match read(&list(fields)) {
        Found::Context(context) => Some(context.said),
        Found::Nothing | Found::Denial | Found::Wish(_) => None,
    }
}

/// The fields after the agent's span was put in.
fn handed_on(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut request = list(fields);
    let Found::Context(context) = read(&request) else { panic!("no context: {fields:?}") };
    context.hand_on(own(), &mut request);
    texts(&request)
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_traceparent_is_valid_exactly_as_w3c_says() {
    let (trace, parent) = (TRACE_TEXT, PARENT);
    let valid = |decision| {
        Some(Said { trace_id: TRACE, parent_id: parse_span_id(PARENT.as_bytes()).unwrap(), decision })
    };
    for (text, expected) in [
        (format!("00-{trace}-{parent}-01"), valid(Decision::Accept)),
        (format!("00-{trace}-{parent}-00"), valid(Decision::Deny)),
        // Flags that are not known decide nothing.
        (format!("00-{trace}-{parent}-ff"), valid(Decision::Accept)),
        (format!("00-{trace}-{parent}-fe"), valid(Decision::Deny)),
        (format!("00-{trace}-{parent}-03"), valid(Decision::Accept)),
        // Later versions, and what they may have behind.
        (format!("01-{trace}-{parent}-01"), valid(Decision::Accept)),
        (format!("cc-{trace}-{parent}-01-what-comes"), valid(Decision::Accept)),
        (format!("cc-{trace}-{parent}-01-"), valid(Decision::Accept)),
        (format!("cc-{trace}-{parent}-01.what-comes"), None),
        (format!("cc-{trace}-{parent}-010"), None),
        (format!("00-{trace}-{parent}-01-what-comes"), None),
        (format!("00-{trace}-{parent}-01-"), None),
        (format!("ff-{trace}-{parent}-01"), None),
        (format!("FE-{trace}-{parent}-01"), None),
        (format!("0-{trace}-{parent}-01"), None),
        (format!(".0-{trace}-{parent}-01"), None),
        // Ids of zeroes, of other lengths, and of other digits.
        (format!("00-{}-{parent}-01", "0".repeat(32)), None),
        (format!("00-{trace}-{}-01", "0".repeat(16)), None),
        (format!("00-{}-{parent}-01", trace.to_uppercase()), None),
        (format!("00-{trace}-{}-01", parent.to_uppercase()), None),
        (format!("00-{}g-{parent}-01", &trace[1..]), None),
        (format!("00-{}-{parent}-01", &trace[1..]), None),
        (format!("00-{trace}0-{}-01", &parent[1..]), None),
        (format!("00-{trace}-{}+-01", &parent[1..]), None),
        (format!("00-{trace}-{parent}-1"), None),
        (format!("00-{trace}-{parent}-0x"), None),
        (format!("00-{trace}-{parent}-0A"), None),
        (format!("00-{trace}-{parent}"), None),
        (format!("00_{trace}-{parent}-01"), None),
        (format!("00-{trace}_{parent}-01"), None),
        (format!("00-{trace}-{parent}_01"), None),
        (String::new(), None),
        ("-".repeat(55), None),
        ("0".repeat(55), None),
    ] {
        assert_eq!(said(&[("traceparent", &text)]), expected, "{text}");
    }
}

#[test]
fn several_traceparents_are_as_none() {
    let text = format!("00-{TRACE_TEXT}-{PARENT}-01");
    let fields = [("traceparent", &*text), ("x", "y"), ("traceparent", &*text)];
    assert_eq!(read(&list(&fields)), Found::Nothing);
}

#[test]
fn the_own_span_takes_its_parents_place_and_nothing_else_moves() {
    let before = format!("00-{TRACE_TEXT}-{PARENT}-01");
    let after = format!("00-{TRACE_TEXT}-{OWN}-01");
    let fields = |traceparent| {
        [
            (":path", "/a"),
            ("tracestate", "a=1,b=2"),
            ("traceparent", traceparent),
            ("tracestate", "c=3"),
            ("z", ""),
        ]
    };
    assert_eq!(handed_on(&fields(&before)), owned(&fields(&after)));
}

#[test]
fn what_later_versions_add_is_not_sent_on_and_flags_that_are_known_are() {
    for (before, flags) in
        [("cc-{}-01-what-comes", "01"), ("00-{}-03", "03"), ("00-{}-ff", "03"), ("cc-{}-fd", "01")]
    {
        let before = before.replace("{}", &format!("{TRACE_TEXT}-{PARENT}"));
        let expected = format!("00-{TRACE_TEXT}-{OWN}-{flags}");
        assert_eq!(handed_on(&[("traceparent", &before)]), owned(&[("traceparent", &expected)]), "{before}");
    }
}

#[test]
fn a_b3_is_valid_as_openzipkin_says() {
    let (long, short) = (TRACE_TEXT, &TRACE_TEXT[16..]);
    let of = |trace_id, decision| {
        Some(Said { trace_id, parent_id: parse_span_id(PARENT.as_bytes()).unwrap(), decision })
    };
    let low = TRACE as u64;
    for (text, expected) in [
        (format!("{long}-{PARENT}-1"), of(TRACE, Decision::Accept)),
        (format!("{short}-{PARENT}-1"), of(low.into(), Decision::Accept)),
        (format!("{long}-{PARENT}-0"), of(TRACE, Decision::Deny)),
        (format!("{long}-{PARENT}-d"), of(TRACE, Decision::Debug)),
        (format!("{long}-{PARENT}"), of(TRACE, Decision::Defer)),
        (format!("{long}-{PARENT}-1-{OWN}"), of(TRACE, Decision::Accept)),
        (format!("{long}-{PARENT}-1-{OWN}-"), None),
        (format!("{long}-{PARENT}-1-{}", &OWN[1..]), None),
        (format!("{long}-{PARENT}-2"), None),
        (format!("{long}-{PARENT}-"), None),
        (format!("{long}-{PARENT}-true"), None),
        (format!("{}-{PARENT}-1", &long[1..]), None),
        (format!("{}-{PARENT}-1", "0".repeat(32)), None),
        (format!("{long}-{}-1", "0".repeat(16)), None),
        (format!("{}-{PARENT}-1", long.to_uppercase()), None),
        (long.to_owned(), None),
        (String::new(), None),
        ("-".to_owned(), None),
    ] {
        assert_eq!(said(&[("b3", &text)]), expected, "{text}");
    }
}

#[test]
fn a_b3_goes_on_with_its_trace_id_as_it_came_and_the_parent_named() {
    for trace in [TRACE_TEXT, &TRACE_TEXT[16..]] {
        for (before, decision) in [("1", "1"), ("d", "d"), (&*format!("1-{OWN}"), "1")] {
            let before = format!("{trace}-{PARENT}-{before}");
            let after = format!("{trace}-{OWN}-{decision}-{PARENT}");
            assert_eq!(
                handed_on(&[("a", "1"), ("b3", &before), ("c", "2")]),
                owned(&[("a", "1"), ("b3", &after), ("c", "2")])
            );
        }
    }
}

#[test]
fn the_fields_of_b3_are_read_and_go_on_at_their_places() {
    let short = &TRACE_TEXT[16..];
    let ids = [("x-b3-traceid", short), ("x-b3-spanid", PARENT)];
    for (more, expected) in [
        (&[("x-b3-sampled", "1")][..], Decision::Accept),
        (&[("x-b3-sampled", "true")], Decision::Accept),
        (&[("x-b3-sampled", "0")], Decision::Deny),
        (&[("x-b3-sampled", "false")], Decision::Deny),
        (&[("x-b3-flags", "1")], Decision::Debug),
        (&[("x-b3-flags", "1"), ("x-b3-sampled", "0")], Decision::Debug),
        (&[("x-b3-flags", "0")], Decision::Defer),
        (&[("x-b3-sampled", "yes")], Decision::Defer),
        (&[("x-b3-sampled", "1"), ("x-b3-sampled", "1")], Decision::Defer),
        (&[], Decision::Defer),
    ] {
        let found = said(&[&ids, more].concat());
        assert_eq!(
            found.map(|said| (said.trace_id, said.decision)),
            Some((u128::from(TRACE as u64), expected)),
            "{more:?}"
        );
    }
    let fields = |span: &'static str, parent: &'static str| {
        [
            ("x-b3-sampled", "1"),
            ("x-b3-parentspanid", parent),
            ("x-b3-spanid", span),
            ("k", "v"),
            ("x-b3-traceid", TRACE_TEXT),
        ]
    };
    assert_eq!(handed_on(&fields(PARENT, "1111111111111111")), owned(&fields(OWN, PARENT)));
    // A root span has no parent.
    let root = [("x-b3-traceid", TRACE_TEXT), ("x-b3-spanid", PARENT), ("x-b3-sampled", "1")];
    let child = [
        ("x-b3-traceid", TRACE_TEXT),
        ("x-b3-spanid", OWN),
        ("x-b3-sampled", "1"),
        ("x-b3-parentspanid", PARENT),
    ];
    assert_eq!(handed_on(&root), owned(&child));
    for bad in [
        &[("x-b3-traceid", short)][..],
        &[("x-b3-spanid", PARENT)],
        &[("x-b3-traceid", "1"), ("x-b3-spanid", PARENT)],
        &[("x-b3-traceid", short), ("x-b3-spanid", "0000000000000000")],
        &[("x-b3-traceid", short), ("x-b3-traceid", short), ("x-b3-spanid", PARENT)],
    ] {
        assert_eq!(said(bad), None, "{bad:?}");
    }
}

#[test]
fn formats_side_by_side_go_on_together_where_they_tell_of_one_trace() {
    let traceparent = |span: &str| format!("00-{TRACE_TEXT}-{span}-01");
    let (before, after) = (traceparent(PARENT), traceparent(OWN));
    let (b3_before, b3_after) =
        (format!("{TRACE_TEXT}-{PARENT}-1"), format!("{TRACE_TEXT}-{OWN}-1-{PARENT}"));
    assert_eq!(
        handed_on(&[("b3", &b3_before), ("traceparent", &before)]),
        owned(&[("b3", &b3_after), ("traceparent", &after)])
    );
    // The lower half of the same id.
    let (low_before, low_after) = (b3_before[16..].to_owned(), b3_after[16..].to_owned());
    assert_eq!(
        handed_on(&[("b3", &low_before), ("traceparent", &before)]),
        owned(&[("b3", &low_after), ("traceparent", &after)])
    );
    for other in [
        format!("{}1-{PARENT}-1", &TRACE_TEXT[1..]),
        format!("{TRACE_TEXT}-{PARENT}-0"),
        "nonsense".into(),
        "0".into(),
    ] {
        assert_eq!(
            handed_on(&[("b3", &other), ("traceparent", &before)]),
            owned(&[("b3", &other), ("traceparent", &after)]),
            "{other}"
        );
    }
    // What W3C's field says goes.
    let denied = format!("00-{TRACE_TEXT}-{PARENT}-00");
    let found = said(&[("b3", &b3_before), ("traceparent", &denied)]);
    assert_eq!(found.map(|said| said.decision), Some(Decision::Deny));
}

#[test]
fn a_word_for_or_against_a_trace_is_heard_without_one() {
    let wish = |is_debug, b3, b3_fields| Found::Wish(Wish { is_debug, b3, b3_fields });
    for (fields, expected) in [
        (&[("b3", "0")][..], Found::Denial),
        (&[("x-b3-sampled", "0")], Found::Denial),
        (&[("b3", "1")], wish(false, true, false)),
        (&[("b3", "d")], wish(true, true, false)),
        (&[("b3", "2")], Found::Nothing),
        (&[("x-b3-sampled", "1")], wish(false, false, true)),
        (&[("x-b3-flags", "1")], wish(true, false, true)),
        (&[("x-b3-flags", "1"), ("x-b3-sampled", "0")], wish(true, false, true)),
        // The one field goes before the several.
        (&[("b3", "1"), ("x-b3-flags", "1")], wish(false, true, true)),
        (&[("b3", "1"), ("x-b3-sampled", "0")], wish(false, true, false)),
        (&[("b3", "0"), ("x-b3-sampled", "1")], Found::Denial),
        (&[("b3", "nonsense"), ("x-b3-sampled", "1")], wish(false, false, true)),
        (&[("b3", "1"), ("b3", "1")], Found::Nothing),
        (&[("tracestate", "a=1")], Found::Nothing),
        (&[], Found::Nothing),
    ] {
        assert_eq!(read(&list(fields)), expected, "{fields:?}");
    }
}

#[test]
fn a_trace_that_is_started_takes_the_place_of_what_was_none() {
    let mut request =
        list(&[("traceparent", "00-nonsense"), ("a", "b"), ("tracestate", "x=1"), ("traceparent", "")]);
    start(TRACE, own(), &mut request);
    let expected = format!("00-{TRACE_TEXT}-{OWN}-01");
    assert_eq!(texts(&request), owned(&[("a", "b"), ("traceparent", &expected)]));
    let Found::Context(context) = read(&request) else { panic!("it is none") };
    assert_eq!((context.said.trace_id, context.said.parent_id), (TRACE, own()));
}

#[test]
fn a_trace_that_is_wished_for_starts_in_the_formats_of_the_wish_and_is_taken_back_from_them() {
    for (fields, started) in [
        (&[("b3", "1"), ("a", "b")][..], &[("b3", &*format!("{TRACE_TEXT}-{OWN}-1")), ("a", "b")][..]),
        (&[("b3", "d")], &[("b3", &format!("{TRACE_TEXT}-{OWN}-d"))]),
        (
            &[("x-b3-sampled", "1"), ("a", "b")],
            &[("x-b3-sampled", "1"), ("a", "b"), ("x-b3-traceid", TRACE_TEXT), ("x-b3-spanid", OWN)],
        ),
        (
            &[("x-b3-flags", "1"), ("b3", "d")],
            &[
                ("x-b3-flags", "1"),
                ("b3", &format!("{TRACE_TEXT}-{OWN}-d")),
                ("x-b3-traceid", TRACE_TEXT),
                ("x-b3-spanid", OWN),
            ],
        ),
    ] {
        let mut request = list(fields);
        let Found::Wish(wish) = read(&request) else { panic!("no wish: {fields:?}") };
        wish.start(TRACE, own(), &mut request);
        assert_eq!(texts(&request), owned(started));
        let Found::Context(context) = read(&request) else { panic!("no context: {started:?}") };
        assert_eq!((context.said.trace_id, context.said.parent_id), (TRACE, own()));
        take_back(None, &mut request);
        assert_eq!(texts(&request), owned(fields));
    }
    // What cannot be read gives way, and a root has no parent.
    let mut request = list(&[
        ("x-b3-sampled", "1"),
        ("x-b3-traceid", "1"),
        ("x-b3-parentspanid", PARENT),
        ("x-b3-traceid", "2"),
        ("traceparent", "00-nonsense"),
        ("tracestate", "x=1"),
    ]);
    let Found::Wish(wish) = read(&request) else { panic!("no wish") };
    wish.start(TRACE, own(), &mut request);
    let expected = [("x-b3-sampled", "1"), ("x-b3-traceid", TRACE_TEXT), ("x-b3-spanid", OWN)];
    assert_eq!(texts(&request), owned(&expected));
}

#[test]
fn a_span_that_is_taken_back_leaves_what_came() {
    let traceparent = format!("00-{TRACE_TEXT}-{PARENT}-01");
    let b3 = format!("{TRACE_TEXT}-{PARENT}-1");
    let all = [
        ("traceparent", &*traceparent),
        ("a", "b"),
        ("b3", &b3),
        ("x-b3-traceid", TRACE_TEXT),
        ("x-b3-spanid", PARENT),
        ("x-b3-sampled", "1"),
    ];
    for fields in [&all[..], &all[..2], &all[2..3], &all[3..]] {
        let mut request = list(fields);
        let Found::Context(context) = read(&request) else { panic!("no context: {fields:?}") };
        context.hand_on(own(), &mut request);
        assert_ne!(texts(&request), owned(fields));
        take_back(Some(context.said.parent_id), &mut request);
        assert_eq!(texts(&request), owned(fields));
    }
    let mut request = list(&[("a", "b")]);
    start(TRACE, own(), &mut request);
    take_back(None, &mut request);
    assert_eq!(texts(&request), owned(&[("a", "b")]));
}

#[test]
fn whatever_the_fields_hold_nothing_panics_and_what_is_handed_on_is_valid() {
    let mut random = crate::balance::Random::new(7);
    let seeds = [
        format!("00-{TRACE_TEXT}-{PARENT}-01"),
        format!("{TRACE_TEXT}-{PARENT}-1-{OWN}"),
        format!("{}-{PARENT}-d", &TRACE_TEXT[16..]),
        TRACE_TEXT.to_owned(),
        PARENT.to_owned(),
        "1".to_owned(),
    ];
    let names = [
        "traceparent",
        "b3",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-sampled",
        "x-b3-flags",
        "x-b3-parentspanid",
    ];
    let mut contexts = 0;
    for _ in 0..200_000 {
        let mut request = FieldList::new();
        for _ in 0..1 + random.below(4) {
            let mut value = seeds[random.below(seeds.len())].clone().into_bytes();
            for _ in 0..random.below(3) {
                let at = random.below(value.len() + 1);
                match random.below(3) {
                    0 => value.truncate(at),
                    1 => value.insert(at, b"-0afF\xff"[random.below(6)]),
                    _ => value.extend_from_slice(b"-1"),
                }
            }
            request.push(names[random.below(names.len())].as_bytes(), &value);
        }
        if let Found::Wish(wish) = read(&request) {
            wish.start(TRACE, own(), &mut request);
            let Found::Context(started) = read(&request) else { panic!("{:?}", texts(&request)) };
            assert_eq!((started.said.trace_id, started.said.parent_id), (TRACE, own()));
        } else if let Found::Context(context) = read(&request)
            && context.said.decision.is_sampled()
        {
            contexts += 1;
            let before = request.len();
            context.hand_on(own(), &mut request);
            let Found::Context(after) = read(&request) else { panic!("{:?}", texts(&request)) };
            assert_eq!((after.said.trace_id, after.said.parent_id), (context.said.trace_id, own()));
            assert_eq!((after.b3, after.b3_fields), (context.b3, context.b3_fields));
            assert!(request.len() <= before + 1);
        }
    }
    assert!(contexts > 5_000, "{contexts}");
}
