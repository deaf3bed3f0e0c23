//! How big and how quick, printed for people: `cargo test --release -p cortex-core size -- --ignored --nocapture`.

use std::time::Instant;

use super::*;

const POLICIES: u32 = 2000;

fn document(n: u32) -> String {
    format!(
        "name: finance-data-publish-{n}
description: Nightly publish of the finance mart
who:
  airflow: prod
  dags: [finance_publish_{n}, \"finance_mart_{n}_*\"]
  tasks: [\"publish_*\"]
  run_types: [scheduled, manual]
what:
  aws:
    role: arn:aws:iam::123456789012:role/finance-publish
    allow:
      - actions: [s3:PutObject]
        resources: [\"arn:aws:s3:::finance-mart/{{dag_id}}/{{run_id}}/*\"]
  bigquery: {{project: acme-finance, grant: finance-publish}}
  snowflake: {{account: acme-prod, user: FINANCE_SVC, role: FINANCE_PUBLISH}}
where:
  networks: [10.0.0.0/8]
when:
  hours: \"01:00-05:00\"
  timezone: Europe/Paris
  days: [mon, tue, wed, thu, fri]
  max_ttl: 30m
approval:
  required_for: {{run_types: [manual]}}
  approvers: {{groups: [finance-admins]}}
"
    )
}

/// Resident memory in KiB, as Linux counts it.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "prints measurements; asserts nothing about time"]
fn size_and_speed() {
    let first = compile(&document(0));
    let before = resident();
    let started = Instant::now();
    let policies: Vec<_> = (1..=POLICIES).map(|n| compile(&document(n))).collect();
    let compiled = started.elapsed();
    let bytes = (resident() - before) * 1024 / policies.len();
    println!("{bytes} bytes and {:?} to compile, per policy", compiled / POLICIES);

    // The rules alone, without the garbage that compiling leaves between them.
    let bare = resident();
    let rules: Vec<_> = policies.iter().map(|policy| rules::compile(&policy.document).unwrap()).collect();
    println!("{} bytes of it rules", (resident() - bare) * 1024 / rules.len());
    let started = Instant::now();
    for policy in &policies {
        std::hint::black_box(rules::compile(&policy.document).unwrap());
    }
    println!("{:?} to build them again", started.elapsed() / POLICIES);
    let _held = first.hold();
    let mut case = Case::of(run_with(|run| {
        run.dag_id = "finance_publish_0".parse().unwrap();
        run.task_id = "publish_mart".parse().unwrap();
    }))
    .from("10.1.2.3");
    for (name, run_type) in [("permit", "scheduled"), ("needs grant", "manual"), ("unnamed", "backfill")] {
        if let Principal::Run(run) = &mut case.principal {
            run.run_type = Some(run_type.parse().unwrap());
        }
        let mut times: Vec<_> = (0..20_000)
            .map(|_| {
                let started = Instant::now();
                std::hint::black_box(case.decide(&first));
                started.elapsed()
            })
            .collect();
        times.sort();
        println!("{name}: p50 {:?} p99 {:?}: {:?}", times[10_000], times[19_800], case.decide(&first));
    }
}
