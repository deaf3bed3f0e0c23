//! Few and many: whether latency depends on the number of policies or on the length of the record.

use sqlx::{Connection as _, PgConnection};

use crate::ground::{Ground, policy_name};
use crate::load::Measured;
use crate::report::{Goal, Report};
use crate::server::Server;
use crate::{GROWTH_CONNECTIONS, Scale, asks, tell};

/// How many policies are few.
const FEW: usize = 10;

/// One side of a comparison.
struct Side {
    server: Server,
    policies: usize,
    measured: Measured,
}

impl Side {
    async fn start(ground: &Ground, name: &str, policies: usize) -> Self {
        Self { server: ground.serve(name, policies, false).await, policies, measured: Measured::default() }
    }

    /// Asks of each policy in turn, from the `first` on.
    fn asks(&self, ground: &Ground, first: usize, count: usize) -> Vec<Vec<u8>> {
        // A stride that shares no factor with the number of policies: neighbours in time are no neighbours by name.
        let policy = |n: usize| policy_name((first + n) * 7_919 % self.policies);
        asks::exchanges(&ground.sandbox, &ground.single_use_iss(), "api", count, policy)
    }
}

pub(crate) async fn measure(ground: &Ground, scale: Scale, report: &mut Report) {
    let few = Side::start(ground, "few", FEW).await;
    let policies = Side::start(ground, "many_policies", scale.policies).await;
    let rows = Side::start(ground, "many_rows", FEW).await;
    let (before, _) = policies.server.resident_mb();
    for side in [&few, &rows] {
        side.server.load(GROWTH_CONNECTIONS, side.asks(ground, 0, FEW * 5)).await;
    }
    tell("growth: the first ask of each policy");
    let first = policies.server.load(GROWTH_CONNECTIONS, policies.asks(ground, 0, scale.policies)).await;
    tell(&format!("growth: {} rows on record", scale.rows));
    fill(&ground.database_url("many_rows"), scale.rows).await;
    let mut sides = [few, policies, rows];
    for round in 0..scale.rounds * 2 {
        tell(&format!("growth: turn {} of {}", round + 1, scale.rounds * 2));
        for side in &mut sides {
            let requests = side.asks(ground, round * scale.growth_asks, scale.growth_asks);
            side.measured.add(side.server.load(GROWTH_CONNECTIONS, requests).await);
        }
    }
    let [few, policies, rows] = sides;
    report.measured("fresh mint, 10 policies, empty record", GROWTH_CONNECTIONS, &few.measured);
    report.measured(
        &format!("fresh mint, {} policies", scale.policies),
        GROWTH_CONNECTIONS,
        &policies.measured,
    );
    report.measured("first ask of a policy, which compiles it", GROWTH_CONNECTIONS, &first);
    report.measured(
        &format!("fresh mint, {} rows on record", scale.rows),
        GROWTH_CONNECTIONS,
        &rows.measured,
    );
    let (after, peak) = policies.server.resident_mb();
    report.memory(&format!("server with {} policies, before the first ask", scale.policies), before);
    report.memory("the same after an ask of each", after);
    let ratio = |many: &Side| many.measured.percentile(50) / few.measured.percentile(50);
    report.goal(Goal::at_most("p50 with many policies, of that with few", ratio(&policies), 1.1));
    report.goal(Goal::at_most("p50 with a long record, of that with an empty one", ratio(&rows), 1.1));
    report.goal(Goal::below("resident memory with many policies, at its highest, MB", peak, 150.0));
}

/// Copies the last mint of this record `rows` times, as of the months before: ids, times, runs, DAGs and policies
/// differ as they would.
async fn fill(database_url: &str, rows: i64) {
    let mut owner = PgConnection::connect(database_url).await.expect("a connection");
    sqlx::query(
        "WITH one AS (SELECT * FROM record WHERE kind = 'issuance.issued' ORDER BY id DESC LIMIT 1),
              copy AS (
                  SELECT i, one.*, one.at - (($1 - i + 1) * interval '2 seconds') AS past,
                         md5(i::text) AS noise, md5('issuance' || i) AS other
                  FROM one, generate_series(1, $1) AS i),
              stamped AS (
                  SELECT *, lpad(to_hex((extract(epoch FROM past) * 1000)::int8), 12, '0') AS ms FROM copy)
         INSERT INTO record (id, at, kind, issuance_id, principal, issuer, dag_id, run_id, task_id, policy,
                             policy_digest, provider, outcome, expires_at, leaf)
         SELECT (ms || '7' || substr(noise, 1, 3) || '8' || substr(noise, 4, 15))::uuid, past, kind,
                (ms || '7' || substr(other, 1, 3) || '8' || substr(other, 4, 15))::uuid, principal || i, issuer,
                'dag_' || i % 2000, 'scheduled__' || i / 20, task_id, 'policy-' || i % 200,
                policy_digest, provider, outcome, expires_at, leaf
         FROM stamped",
    )
    .bind(rows)
    .execute(&mut owner)
    .await
    .expect("rows");
    for statement in ["VACUUM (ANALYZE) record", "CHECKPOINT"] {
        sqlx::query(statement).execute(&mut owner).await.expect(statement);
    }
    owner.close().await.expect("to close");
}
