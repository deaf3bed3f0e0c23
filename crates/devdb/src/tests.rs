use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

async fn setting(db: &DevDb, name: &str) -> String {
    let mut connection = db.connect().await.unwrap();
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await.unwrap()
}

async fn gone(path: &Path) {
    let mut tick = tokio::time::interval(POLL);
    let wait = async {
        while path.exists() {
            tick.tick().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{} is still there", path.display()));
}

#[tokio::test]
async fn it_is_private_and_goes_when_dropped() {
    let db = DevDb::start(Options::default()).await.unwrap();
    let dir = db.dir.path().to_owned();

    assert_eq!(setting(&db, "listen_addresses").await, "", "no port");
    assert_eq!(setting(&db, "max_connections").await, "200");
    assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700, "no other account reaches the socket");
    assert_ne!(data_dir(&dir).metadata().unwrap().uid(), 0, "the server is never root");
    assert!(db.bin_dir().join("initdb").is_file());

    let url = db.url("postgres");
    drop(db);
    assert!(!dir.exists());
    assert!(PgConnection::connect_with(&url.parse().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_only_when_asked_to() {
    for durable in [true, false] {
        let db = DevDb::start(Options { durable }).await.unwrap();
        let expected = if durable { "on" } else { "off" };
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            assert_eq!(setting(&db, name).await, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn two_run_side_by_side() {
    let (one, two) = tokio::join!(DevDb::start(Options::default()), DevDb::start(Options::default()));
    let (one, two) = (one.unwrap(), two.unwrap());
    one.create_database("only_here").await.unwrap();
    two.create_database("only_here").await.unwrap();
    drop(one);
    assert_eq!(setting(&two, "fsync").await, "off", "the end of one does not end the other");
}

#[tokio::test]
async fn a_database_is_copied_from_a_template() {
    let db = DevDb::start(Options::default()).await.unwrap();
    db.create_database("migrated").await.unwrap();
    let mut connection = PgConnection::connect_with(&db.url("migrated").parse().unwrap()).await.unwrap();
    connection.execute("CREATE TABLE t AS SELECT 42 AS n").await.unwrap();

    let busy = db.create_database_from_template("copy", "migrated").await.unwrap_err();
    assert!(busy.to_string().contains("being accessed by other users"), "{busy}");
    connection.close().await.unwrap();
    db.create_database_from_template("copy", "migrated").await.unwrap();

    let mut connection = PgConnection::connect_with(&db.url("copy").parse().unwrap()).await.unwrap();
    let n: i32 = sqlx::query_scalar("SELECT n FROM t").fetch_one(&mut connection).await.unwrap();
    assert_eq!(n, 42);
}

#[test]
fn a_name_that_would_need_quotes_is_refused() {
    for name in ["", "1st", "Mixed", "a b", "a\"; DROP DATABASE postgres; --", &"a".repeat(64)] {
        assert!(matches!(database_name(name), Err(DevDbError::DatabaseName(_))), "{name:?}");
    }
    assert_eq!(database_name("run_17").unwrap(), "run_17");
}

#[test]
fn a_folder_with_odd_characters_survives_the_url() {
    assert_eq!(percent_encoded("/tmp/a b&c%/é"), "/tmp/a%20b%26c%25/%C3%A9");
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    let bin = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap();
    let initdb = installation::locate().unwrap().join("initdb");
    std::os::unix::fs::symlink(initdb, bin.path().join("initdb")).unwrap();
    let server = bin.path().join("postgres");
    std::fs::write(&server, "#!/bin/sh\necho 'FATAL: no luck today' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();

    let error = DevDb::start_from(bin.path().to_owned(), Options::default()).await.err().unwrap();
    assert!(matches!(&error, DevDbError::ServerEnded { log } if log.contains("no luck today")), "{error}");
}

#[test]
fn a_machine_without_postgres_is_told_the_one_command() {
    let error = DevDbError::NotInstalled { command: "brew install postgresql@17" }.to_string();
    assert!(error.contains("install one with: brew install postgresql@17"), "{error}");
}

/// Not a test: the process that the next test kills.
#[tokio::test]
#[ignore = "is started, and killed, by `nothing_is_left_after_kill_9`"]
async fn hold_a_server_until_killed() {
    let db = DevDb::start(Options::default()).await.unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nholding {} {}", db.dir.path().display(), db.url("postgres")).unwrap();
    out.flush().unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn nothing_is_left_after_kill_9() {
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::hold_a_server_until_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("holding ")).unwrap();
    let [_, dir, url] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let mut connection = PgConnection::connect_with(&url.parse().unwrap()).await.unwrap();

    holder.kill().unwrap();
    holder.wait().unwrap();

    gone(Path::new(dir)).await;
    let query = timeout(DEADLINE, connection.execute("SELECT 1")).await.unwrap();
    assert!(query.is_err(), "the server still runs");
}
