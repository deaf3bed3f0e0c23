//! Whatever is unclear in a document is refused when it is written, with the line and what to write instead.

use super::*;

pub(super) fn problems(source: &str) -> Vec<Problem> {
    Policy::compile(source, &Tiny).expect_err(source)
}

/// That `source` has exactly one fault: at `line`, with these words in the message and in the remedy.
#[track_caller]
pub(super) fn refuses(source: &str, line: usize, message: &str, remedy: &str) {
    let problems = problems(source);
    let [problem] = problems.as_slice() else { panic!("{problems:#?}\n{source}") };
    assert_eq!(problem.line, line, "{problem}\n{source}");
    assert!(problem.message.contains(message), "{problem}\nwants {message:?}");
    assert!(problem.remedy.contains(remedy), "{problem}\nwants {remedy:?}");
}

#[test]
fn the_smallest_document_compiles() {
    let policy = compile(&minimal(""));
    assert_eq!(policy.name().as_str(), "p");
    assert_eq!(policy.max_ttl(), SignedDuration::from_mins(15));
    assert!(policy.approval().is_none());
}

#[test]
fn what_is_missing_is_named() {
    for (source, message) in [
        ("who:\n  airflow: prod\n  dags: [d]\nwhat:\n  aws: {role: r}\n", "has no `name`"),
        ("name: p\nwhat:\n  aws: {role: r}\n", "has no `who`"),
        ("name: p\nwho:\n  airflow: prod\n  dags: [d]\n", "has no `what`"),
    ] {
        refuses(source, 1, message, "add `");
    }
    refuses(
        "name: p\nwho:\n  airflow: prod\nwhat:\n  aws: {role: r}\n",
        2,
        "`who` has no `dags`",
        "add `dags:`",
    );
    refuses(
        "name: p\nwho:\n  dags: [d]\nwhat:\n  aws: {role: r}\n",
        2,
        "`who` has no `airflow`",
        "add `airflow:`",
    );
    refuses(&minimal("approval:\n  required_for: always\n"), 7, "has no `approvers`", "add `approvers:`");
    refuses(
        &minimal("approval:\n  approvers: {groups: [g]}\n"),
        7,
        "has no `required_for`",
        "add `required_for:`",
    );
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    refuses(&minimal("aproval: {}\n"), 7, "no key `aproval`", "did you mean `approval`?");
    refuses(
        &minimal("").replace("dags: [d]", "dags: [d]\n  task: [t]"),
        5,
        "`who` has no key `task`",
        "`tasks`",
    );
    refuses(
        &minimal("when:\n  hour: '01:00-02:00'\n  max_ttl: 5m\n"),
        8,
        "`when` has no key `hour`",
        "`hours`",
    );
    refuses(&minimal("zzz: 1\n"), 7, "no key `zzz`", "write one of name, description, who");
}

#[test]
fn a_target_that_no_provider_has_is_refused() {
    refuses(
        &minimal("").replace("aws:", "awss:"),
        6,
        "no provider is called \"awss\"",
        "did you mean `aws`?",
    );
    refuses(&minimal("").replace("aws:", "AWS:"), 6, "no provider is called \"AWS\"", "write one of aws");
}

#[test]
fn empty_matchers_are_refused() {
    for (key, line) in
        [("dags", 4), ("tasks", 5), ("run_types", 5), ("teams", 5), ("tags", 5), ("attestation", 5)]
    {
        let source = if key == "dags" {
            minimal("").replace("dags: [d]", "dags: []")
        } else {
            minimal("").replace("dags: [d]", &format!("dags: [d]\n  {key}: []"))
        };
        refuses(&source, line, &format!("`{key}` is an empty list"), "fill it in");
    }
    refuses(&minimal("where: {}\n"), 7, "`where` is empty", "leave it out");
    refuses(&minimal("where:\n"), 7, "`where` is empty", "leave it out");
    refuses(&minimal("where: {networks: []}\n"), 7, "`networks` is an empty list", "");
    refuses(&minimal("when:\n"), 7, "`when` is empty", "leave it out");
    refuses(&minimal("").replace("dags: [d]", "dags: ['']"), 4, "matches nothing", "write a name");
    refuses("name: p\nwho:\nwhat:\n  aws: {role: r}\n", 2, "`who` is empty", "");
    refuses("name: p\nwho:\n  airflow: prod\n  dags: [d]\nwhat: {}\n", 5, "`what` is empty", "");
    refuses(
        &minimal("approval:\n  required_for: {}\n  approvers: {groups: [g]}\n"),
        8,
        "`required_for` is empty",
        "leave it out",
    );
    refuses(&minimal("approval:\n  required_for: always\n  approvers: {}\n"), 9, "`approvers` is empty", "");
}

#[test]
fn unanchored_and_ambiguous_patterns_are_refused() {
    for (pattern, message, remedy) in [
        ("*", "begins with `*`", "begin with the part"),
        ("*_publish", "begins with `*`", "begin with the part"),
        ("a**", "has `**`", "a single `*`"),
        ("a*b*c*d*e*f", "too many `*`", "at most 4"),
        ("a?", "'?'", "not regular"),
        ("prod|stage", "'|'", "exact names"),
        ("^prod", "'^'", "exact names"),
        ("prod$", "'$'", "exact names"),
        ("pro(d)", "'('", "exact names"),
        ("prod[0-9]", "'['", "exact names"),
        ("prod\\.x", "'\\\\'", "exact names"),
        ("a b", "white space", "remove it"),
        ("a\t", "white space", "remove it"),
        ("a/b", "'/'", "use A-Z"),
        ("..", "dots alone", "write the identifier"),
        ("finance_publish\u{200b}", "not ASCII", "in ASCII"),
        ("fin\u{0430}nce", "not ASCII", "in ASCII"),
    ] {
        let quoted = serde_json::to_string(pattern).unwrap();
        let source = minimal("").replace("dags: [d]", &format!("dags:\n    - d\n    - {quoted}"));
        let found = problems(&source);
        assert_eq!(found.len(), 1, "{pattern}: {found:#?}");
        assert_eq!(found[0].line, 6, "{pattern}: {}", found[0]);
        assert!(found[0].message.contains(message), "{pattern}: {}", found[0]);
        assert!(
            format!("{} {}", found[0].message, found[0].remedy).contains(remedy),
            "{pattern}: {}",
            found[0]
        );
    }
}

#[test]
fn a_lone_star_is_refused_everywhere() {
    for key in ["tasks", "run_types", "teams", "bundles"] {
        let source = minimal("").replace("dags: [d]", &format!("dags: [d]\n  {key}: ['*']"));
        refuses(&source, 5, "matches everything", "leave the key out");
    }
    let tags = minimal("").replace("dags: [d]", "dags: [d]\n  tags: ['team-*']");
    refuses(&tags, 5, "matched exactly", "write each tag");
}

#[test]
fn run_types_that_airflow_does_not_have_are_refused() {
    let who = minimal("").replace("dags: [d]", "dags: [d]\n  run_types: [sheduled]");
    refuses(&who, 5, "no run type of Airflow", "did you mean `scheduled`?");
    // A misspelling here would let manual runs through without an approval.
    let approval = minimal("approval:\n  required_for: {run_types: [manaul]}\n  approvers: {groups: [g]}\n");
    refuses(&approval, 8, "no run type of Airflow", "did you mean `manual`?");
    compile(&minimal("").replace("dags: [d]", "dags: [d]\n  run_types: ['asset_*']"));
}

#[test]
fn names_that_look_alike_are_refused() {
    for name in ["Admin", "ROOT ", "a--b", "-a", "a-", "p\u{0430}y", "a_b", "a.b", ""] {
        let quoted = serde_json::to_string(name).unwrap();
        refuses(
            &minimal("").replace("name: p", &format!("name: {quoted}")),
            1,
            "not a policy name",
            "a-z, 0-9",
        );
    }
    refuses(&minimal("").replace("airflow: prod", "airflow: Prod"), 3, "not an issuer name", "a-z, 0-9");
    let long = "a".repeat(65);
    refuses(&minimal("").replace("name: p", &format!("name: {long}")), 1, "not a policy name", "1 to 64");
}

#[test]
fn duplicates_are_refused() {
    refuses(
        &minimal("").replace("[d]", "[d, e, d]"),
        4,
        "\"d\" is twice in `dags`, first in line 4",
        "one of them",
    );
    refuses(&minimal("name: q\n"), 7, "`name` is written twice, first in line 1", "keep one");
    refuses(
        &minimal("").replace("{role: r}", "{role: r, role: s}"),
        6,
        "`role` is written twice",
        "keep one",
    );
    let twice = minimal("where:\n  networks:\n    - 10.0.0.0/8\n    - 10.0.0.0/8\n");
    refuses(&twice, 10, "is twice in `networks`, first in line 9", "");
    let twice = minimal("").replace("dags: [d]", "dags: [d]\n  attestation: [issuer, issuer]");
    refuses(&twice, 5, "is twice in `attestation`", "");
}

#[test]
fn times_are_refused() {
    let when = |text: &str| minimal(&format!("when:\n  {text}\n"));
    for hours in
        ["01:00", "1:00-2:00", "01:00-24:00", "01:60-02:00", "01:00 - 02:00", "25:00-26:00", "+1:00-02:00"]
    {
        refuses(&when(&format!("hours: '{hours}'")), 8, "is not hours of a day", "HH:MM-HH:MM");
    }
    refuses(&when("hours: '05:00-05:00'"), 8, "same minute", "leave `hours` out");
    refuses(&when("hours: '01:00-05:00'\n  timezone: Mars/Base"), 9, "is no time zone", "Europe/Paris");
    refuses(&when("hours: '01:00-05:00'\n  timezone: europe/paris"), 9, "is not how", "write Europe/Paris");
    refuses(&when("timezone: Europe/Paris"), 8, "says nothing", "add `hours`");
    refuses(&when("days: [monday]"), 8, "is no day", "write mon");
    refuses(&when("days: [Mon]"), 8, "is no day", "write mon");
    refuses(&when("days: []"), 8, "is an empty list", "");
    for ttl in ["59s", "13h", "0m", "12h1", "721m"] {
        let found = problems(&when(&format!("max_ttl: {ttl}")));
        assert_eq!((found.len(), found[0].line), (1, 8), "{ttl}");
    }
    refuses(&when("max_ttl: 59s"), 8, "out of bounds", "from 60s to 12h");
    refuses(&when("max_ttl: 43201s"), 8, "out of bounds", "from 60s to 12h");
    refuses(&when("max_ttl: 30"), 8, "a number, and it has to be text", "in quotes");
    refuses(&when("max_ttl: '30'"), 8, "not a lifetime", "30m");
    refuses(&when("max_ttl: '-5m'"), 8, "not a lifetime", "30m");
    refuses(&when("max_ttl: '999999h'"), 8, "not a lifetime", "30m");
    for ttl in ["60s", "12h", "720m", "43200s"] {
        compile(&when(&format!("max_ttl: {ttl}")));
    }
}

#[test]
fn networks_are_refused() {
    let networks = |net: &str| minimal(&format!("where:\n  networks: ['{net}']\n"));
    refuses(&networks("10.0.0.1"), 8, "is no network", "write 10.0.0.1/32");
    refuses(&networks("10.0.0.1/8"), 8, "bits set behind", "write 10.0.0.0/8");
    refuses(&networks("0.0.0.0/0"), 8, "every address", "leave `where` out");
    refuses(&networks("::/0"), 8, "every address", "leave `where` out");
    refuses(&networks("::ffff:10.0.0.0/104"), 8, "never matches", "the IPv4 network");
    refuses(&networks("10.0.0.0/33"), 8, "is no network", "10.0.0.0/8");
    refuses(&networks("example.com"), 8, "is no network", "10.0.0.0/8");
    refuses(&networks("010.0.0.0/8"), 8, "is not how", "write 10.0.0.0/8");
    refuses(&networks("fd00:0:0::/32"), 8, "is not how", "write fd00::/32");
}

#[test]
fn approvals_that_nobody_can_give_are_refused() {
    let approval = |text: &str| minimal(&format!("approval:\n  required_for: always\n{text}"));
    refuses(&approval("  approvers: {groups: []}\n"), 9, "`groups` is an empty list", "");
    refuses(
        &approval("  approvers: {people: [staff/a]}\n  quorum: 2\n"),
        10,
        "`quorum` wants 2 approvers and 1 are named",
        "name more people",
    );
    for quorum in ["0", "6", "-1", "1.5", "two", "'1'"] {
        refuses(
            &approval(&format!("  approvers: {{groups: [g]}}\n  quorum: {quorum}\n")),
            10,
            "`quorum`",
            "1 to 5",
        );
    }
    refuses(
        &approval("  approvers: {people: [alice@acme.example]}\n"),
        9,
        "names nobody for certain",
        "staff/",
    );
    refuses(&approval("  approvers: {people: [Staff/alice]}\n"), 9, "not an issuer name", "");
    refuses(&approval("  approvers: {groups: ['*']}\n"), 9, "matched exactly", "write each group");
    refuses(
        &approval("  approvers: {groups: [g]}\n  valid_for: ever\n"),
        10,
        "`valid_for`",
        "write task, run or",
    );
    refuses(
        &minimal("approval:\n  required_for: never\n  approvers: {groups: [g]}\n"),
        8,
        "names no runs",
        "always",
    );
    refuses(
        &minimal("approval:\n  required_for: {dag: [d]}\n  approvers: {groups: [g]}\n"),
        8,
        "no key `dag`",
        "did you mean `dags`?",
    );
    compile(&approval("  approvers: {groups: [g], people: [staff/a]}\n  quorum: 5\n"));
}

#[test]
fn approvals_without_measure_are_refused() {
    let approval = |text: &str| minimal(&format!("approval:\n  required_for: always\n{text}"));
    for (fault, line, message, remedy) in [
        ("  valid_for: {window: 30s}\n", 10, "out of bounds", "60s to 168h"),
        ("  valid_for: {window: 169h}\n", 10, "out of bounds", "60s to 168h"),
        ("  valid_for: {window: 4h, hours: 4h}\n", 10, "no key `hours`", "window"),
        ("  uses: 0\n", 10, "`uses` is not a number of exchanges", "1 to 1000"),
        ("  uses: many\n", 10, "`uses` is not a number of exchanges", "1 to 1000"),
        ("  require: [ticket, tickets]\n", 10, "cannot be required", "did you mean `ticket`?"),
    ] {
        let text = approval(&format!("  approvers: {{groups: [g]}}\n{fault}"));
        refuses(&text, line, message, remedy);
    }
    refuses(&approval("  approvers: {groups: [g], mfa: please}\n"), 9, "`mfa` is", "true or false");
    refuses(&approval("  approvers: {mfa: true}\n"), 9, "names nobody", "add `groups` or `people`");
    refuses(
        &minimal("break_glass:\n  approvers: {people: [staff/a]}\n"),
        8,
        "it takes 2 people",
        "name more",
    );
    refuses(&minimal("break_glass: {}\n"), 7, "`break_glass` is empty", "");
}
