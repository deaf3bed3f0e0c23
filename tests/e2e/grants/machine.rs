//! Whatever people, policies and time do in whatever order: nothing is released without an approval that holds, and
//! the grants are what a naive model of them says.

use std::collections::BTreeSet;

use cortex_sandbox::RunClaims;
use cortex_server::supervisor;
use cortex_tests::world::TestWorld;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};

use super::{apply, by_hand, close_books, say, show};

/// How long a request waits, and how long an approval holds, in seconds.
const REQUEST_S: i64 = 600;
const APPROVED_S: i64 = 900;
const USES: u32 = 2;
const QUORUM: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Ask { run: usize, task: usize },
    Say { grant: prop::sample::Index, person: usize, approve: bool },
    Withdraw { grant: prop::sample::Index },
    Wait(u16),
    Apply { version: usize },
    Sweep,
}

/// The first started every run; the last is no approver of this policy.
const PEOPLE: [(&str, &str); 5] = [
    ("alice", "finance-admins"),
    ("bob", "finance-admins"),
    ("carol", "finance-admins"),
    ("dora", "finance-admins"),
    ("frank", "privacy-officers"),
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let grant = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => (0..2_usize, 0..2_usize).prop_map(|(run, task)| Step::Ask { run, task }),
        8 => (grant(), 0..PEOPLE.len(), prop::bool::weighted(0.85))
            .prop_map(|(grant, person, approve)| Step::Say { grant, person, approve }),
        1 => grant().prop_map(|grant| Step::Withdraw { grant }),
        2 => (1..700_u16).prop_map(Step::Wait),
        1 => (0..2_usize).prop_map(|version| Step::Apply { version }),
        1 => Just(Step::Sweep),
    ];
    prop::collection::vec(step, 5..30)
}

/// A grant as simply as it can be told.
#[derive(Debug)]
struct Model {
    id: String,
    version: usize,
    run: usize,
    status: &'static str,
    ends: Timestamp,
    approvals: BTreeSet<usize>,
    uses: u32,
}

impl Model {
    fn status(&self, now: Timestamp) -> &'static str {
        let live = self.status == "requested" || self.status == "approved";
        if live && self.ends <= now { "expired" } else { self.status }
    }

    fn say(&mut self, person: usize, approve: bool, now: Timestamp) -> u16 {
        match self.status(now) {
            // Roles come first: frank has one, and is named by another policy.
            "voided" => return 412,
            "requested" => {}
            _ => return 409,
        }
        if person == 0 || person == PEOPLE.len() - 1 {
            return 403;
        }
        if self.approvals.contains(&person) {
            return 409;
        }
        if !approve {
            self.status = "denied";
            return 200;
        }
        self.approvals.insert(person);
        if self.approvals.len() >= QUORUM {
            self.status = "approved";
            self.ends = later(now, APPROVED_S);
        }
        200
    }
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn version(n: usize) -> String {
    close_books(&format!("  quorum: {QUORUM}\n  uses: {USES}\n  valid_for: run\n"))
        .replace("max_ttl: 30m", &format!("max_ttl: {}m", 30 - n))
}

struct Story<'w> {
    world: &'w TestWorld,
    name: String,
    grants: Vec<Model>,
    version: usize,
    tries: u32,
    released: usize,
}

impl Story<'_> {
    async fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { run, task } => self.ask(*run, *task).await,
            Step::Say { grant, person, approve } if !self.grants.is_empty() => {
                let index = grant.index(self.grants.len());
                self.say(index, *person, *approve).await;
            }
            Step::Withdraw { grant } if !self.grants.is_empty() => {
                let index = grant.index(self.grants.len());
                self.withdraw(index).await;
            }
            Step::Say { .. } | Step::Withdraw { .. } => {}
            Step::Wait(seconds) => self.world.clock.advance(SignedDuration::from_secs((*seconds).into())),
            Step::Apply { version } => self.apply(*version).await,
            Step::Sweep => supervisor::sweep(&self.world.world.cortex.broker).await.unwrap(),
        }
        for grant in &self.grants {
            let shown = show(self.world, &grant.id).await;
            assert_eq!(shown["status"], grant.status(self.world.now()), "{step:?}: {grant:?}: {shown}");
        }
    }

    async fn ask(&mut self, run: usize, task: usize) {
        // A new try each time, so that no credential is handed out again.
        self.tries += 1;
        let claims = RunClaims {
            task_id: format!("t{task}"),
            try_number: self.tries,
            ..by_hand(&format!("{}-{run}", self.name))
        };
        let answer = self.world.ask_for(&claims, "close-books").await;
        let now = self.world.now();
        let version = self.version;
        let newest = self.grants.iter_mut().rev().find(|one| one.run == run && one.version == version);
        match newest.map(|grant| (grant.status(now), grant)) {
            Some(("approved", grant)) => {
                assert_eq!(answer.status, 200, "{grant:?}: {answer:?}");
                grant.uses += 1;
                if grant.uses == USES {
                    grant.status = "spent";
                }
                self.released += 1;
            }
            Some(("denied", grant)) => {
                assert_eq!(answer.body["error"], "access_denied", "{grant:?}: {answer:?}");
            }
            Some(("requested", grant)) => {
                assert_eq!(answer.body["grant_id"], json!(grant.id), "{grant:?}: {answer:?}");
            }
            other => {
                assert_eq!(answer.body["error"], "authorization_pending", "{other:?}: {answer:?}");
                let id = answer.body["grant_id"].as_str().unwrap().to_owned();
                assert!(self.grants.iter().all(|grant| grant.id != id), "{id} is not new");
                self.grants.push(Model {
                    id,
                    version,
                    run,
                    status: "requested",
                    ends: later(now, REQUEST_S),
                    approvals: BTreeSet::new(),
                    uses: 0,
                });
            }
        }
    }

    async fn say(&mut self, index: usize, person: usize, approve: bool) {
        let (sub, group) = PEOPLE[person];
        let token = self.world.person(sub, &[group]);
        let grant = &mut self.grants[index];
        let verb = if approve { "approve" } else { "deny" };
        let answer = say(self.world, &grant.id, verb, &token, "").await;
        let expected = grant.say(person, approve, self.world.now());
        assert_eq!(answer.status.as_u16(), expected, "{sub} {verb} {grant:?}: {answer:?}");
    }

    async fn withdraw(&mut self, index: usize) {
        let erin = self.world.person("erin", &["cortex-admins"]);
        let grant = &mut self.grants[index];
        let path = format!("/v1/grants/{}/withdraw", grant.id);
        let answer = self.world.as_person(Method::POST, &path, &erin, Some(json!({}))).await;
        let live = ["requested", "approved"].contains(&grant.status(self.world.now()));
        assert_eq!(answer.status.as_u16(), if live { 200 } else { 409 }, "{grant:?}: {answer:?}");
        if live {
            grant.status = "withdrawn";
        }
    }

    async fn apply(&mut self, to: usize) {
        apply(self.world, &version(to)).await;
        self.version = to;
        let now = self.world.now();
        for grant in self.grants.iter_mut().filter(|grant| grant.version != to) {
            if ["requested", "approved"].contains(&grant.status(now)) {
                grant.status = "voided";
            }
        }
    }
}

async fn tell(world: &TestWorld, name: &str, steps: &[Step]) {
    apply(world, &version(0)).await;
    // Within one tick of the test's clock, ids are in no order.
    let issuances = |leaves: &[Value]| leaves.iter().map(|leaf| leaf["issuance_id"].to_string()).collect();
    let before: BTreeSet<String> = issuances(&world.record(&["issuance.issued"]).await);
    let mut story =
        Story { world, name: name.to_owned(), grants: Vec::new(), version: 0, tries: 0, released: 0 };
    for step in steps {
        story.step(step).await;
    }
    let issued = world.record(&["issuance.issued"]).await;
    assert_eq!(issued.len() - before.len(), story.released);
    for leaf in issued.iter().filter(|leaf| !before.contains(&leaf["issuance_id"].to_string())) {
        let grant = story.grants.iter().find(|grant| leaf["grant"]["id"] == json!(grant.id)).unwrap();
        assert_eq!(leaf["grant"]["approvers"].as_array().unwrap().len(), QUORUM, "{leaf}");
        assert!(grant.approvals.len() >= QUORUM && grant.uses <= USES, "{grant:?}: {leaf}");
    }
}

#[test]
fn no_interleaving_releases_anything_without_an_approval_that_holds() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(TestWorld::start_with(|config| {
        config.grants.request_ttl_s = REQUEST_S;
        config.grants.approved_ttl_s = APPROVED_S;
    }));
    let config = Config { cases: 24, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let cases = std::cell::Cell::new(0);
    let told = runner.run(&steps(), |steps| {
        cases.set(cases.get() + 1);
        runtime.block_on(tell(&world, &format!("case{}", cases.get()), &steps));
        Ok(())
    });
    told.unwrap_or_else(|error| panic!("{error}"));
}
