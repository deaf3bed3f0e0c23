//! What a database's administrator may do, and how it is noticed.

use cortex_tests::world::TestWorld;
use sqlx::PgConnection;

use super::{administrator, finding, issue, round};
use crate::asking::known;

struct Deed {
    what: &'static str,
    /// What is done to the leaf at this place.
    sql: &'static [&'static str],
    /// What the verification says.
    noticed: &'static str,
}

/// The record that stands at this index.
const AT: &str =
    "(SELECT r.id FROM log_batch b JOIN record r ON r.chain = b.chain AND r.batch = b.batch WHERE b.first = ";

const DEEDS: &[Deed] = &[
    Deed {
        what: "a leaf is edited",
        sql: &["UPDATE record SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), '\"v\":1', '\"v\":2'), 'UTF8') WHERE id = @5"],
        noticed: "5",
    },
    Deed {
        what: "a column is edited",
        sql: &["UPDATE record SET dag_id = 'another' WHERE id = @6"],
        noticed: "the column dag_id is not what the leaf says",
    },
    Deed { what: "a row is removed", sql: &["DELETE FROM record WHERE id = @7"], noticed: "7" },
    Deed {
        what: "two rows are swapped",
        sql: &["WITH a AS (SELECT chain, batch, place, seal FROM record WHERE id = @5), b AS (SELECT chain, batch, place, seal FROM record WHERE id = @6)
                UPDATE record r SET chain = s.chain, batch = s.batch + 1000000, place = s.place, seal = s.seal
                FROM (SELECT @5 AS id, b.* FROM b UNION ALL SELECT @6, a.* FROM a) s WHERE r.id = s.id",
               "UPDATE record SET batch = batch - 1000000 WHERE batch > 1000000"],
        noticed: "5",
    },
    Deed {
        what: "a tile is edited",
        sql: &["UPDATE log_tile SET hashes = set_byte(hashes, 8 * 32, get_byte(hashes, 8 * 32) # 1) WHERE level = 0"],
        noticed: "8",
    },
    Deed {
        what: "a row is added to what a chain wrote",
        sql: &["INSERT INTO record (id, at, kind, reason, leaf, chain, batch, place, seal)
                SELECT gen_random_uuid(), at, 'denials', 'x', convert_to('{}', 'UTF8'), chain, batch, place + 100, seal
                FROM record WHERE id = @9"],
        noticed: "somebody else has",
    },
    Deed {
        what: "a row is added beside what chains wrote",
        sql: &["INSERT INTO record (id, at, kind, reason, leaf)
                VALUES ('ffffffff-0000-7000-8000-000000000000', now(), 'denials', 'x', convert_to('{}', 'UTF8'))"],
        noticed: "somebody else has",
    },
    Deed {
        what: "another one is made of who did something",
        sql: &["UPDATE personal SET value = 'operator:other' WHERE value = 'operator:dev'"],
        noticed: "is to another value",
    },
    Deed {
        what: "who did something is hidden",
        sql: &["DELETE FROM personal WHERE value = 'operator:dev'"],
        noticed: "nobody knows who",
    },
    Deed {
        what: "what auditors ask by is edited",
        sql: &["UPDATE record_fact SET target = 'another' WHERE target IS NOT NULL"],
        noticed: "record_fact",
    },
    Deed {
        what: "a rule is added to what auditors ask by",
        sql: &["INSERT INTO record_rule (rule, id) VALUES ('finance#when', @6)"],
        noticed: "record_rule",
    },
    Deed {
        what: "what auditors ask by is of no record",
        sql: &["INSERT INTO record_fact (id, break_glass) VALUES ('ffffffff-0000-7000-8000-000000000000', true)"],
        noticed: "record_fact",
    },
    Deed {
        what: "the checkpoint is replaced",
        sql: &["UPDATE log_shard SET checkpoint = replace(checkpoint, 'localhost', 'otherhost')"],
        noticed: "checkpoint",
    },
    Deed {
        what: "the tail is cut",
        sql: &["DELETE FROM record r USING log_batch b WHERE r.chain = b.chain AND r.batch = b.batch AND b.first >= 10",
               "DELETE FROM log_batch WHERE first >= 10"],
        noticed: "10",
    },
];

async fn commit(administrator: &mut PgConnection, deed: &Deed) {
    for sql in deed.sql {
        let mut sql = (*sql).to_owned();
        for place in 5..=9 {
            sql = sql.replace(&format!("@{place}"), &format!("{AT}{place})"));
        }
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *administrator).await;
        assert!(
            done.unwrap_or_else(|error| panic!("{}: {error}", deed.what)).rows_affected() > 0,
            "{}",
            deed.what
        );
    }
}

#[tokio::test]
async fn whatever_an_administrator_changes_is_named_by_its_index() {
    for deed in DEEDS {
        let world = TestWorld::start().await;
        // One by one, so that each is a batch, and a leaf, of its own.
        for n in 0..16 {
            issue(&world, &format!("r{n}")).await;
        }
        round(&world).await;
        known(&world).await;
        assert_eq!(finding(&world).await, None, "{}", deed.what);
        let mut administrator = administrator(&world).await;
        commit(&mut administrator, deed).await;
        let found = finding(&world).await.unwrap_or_else(|| panic!("{}: nobody noticed", deed.what));
        assert!(found.contains(deed.noticed), "{}: {found}", deed.what);
    }
}
