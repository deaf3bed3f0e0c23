//! What a process that holds secrets takes from itself.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use cortex_tests::served::Served;
use nix::unistd::geteuid;
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");

/// A line of a file of the process in `/proc`, by how it begins.
fn line(process: u32, file: &str, begins: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}")).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(begins));
    line.expect("such a line").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_leaves_no_core_cannot_be_looked_into_and_keeps_its_files_to_itself() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    served.start().await;
    let process = served.process_id();
    assert_eq!(line(process, "limits", "Max core file size"), "0 0 bytes");
    assert_eq!(line(process, "status", "Umask:"), "0077");
    // What is there to look into belongs to root's group once the process is not dumpable; before, to its own.
    let environment = std::fs::metadata(format!("/proc/{process}/environ")).unwrap();
    let own = std::fs::metadata(format!("/proc/{process}")).unwrap();
    assert_eq!((environment.uid(), environment.gid()), (0, 0));
    assert_eq!((own.uid(), own.gid()), (geteuid().as_raw(), own.gid()));
    let warned = served.log().contains("running as root");
    assert_eq!(warned, geteuid().is_root());
}

#[tokio::test]
async fn the_health_of_a_server_is_asked_by_the_program_itself() {
    let mut served = Served::new(PROGRAM, |_| {}).await;
    assert!(!served.try_run(&["health"]).await.0, "nobody serves yet");
    served.start().await;
    assert_eq!(served.try_run(&["health"]).await, (true, "ready\n".to_owned()));
    served.until("a checkpoint", "SELECT COALESCE(max(published), 0) > 0 FROM log_shard").await;
    sqlx::query("UPDATE log_shard SET size = 0, published = 0").execute(&served.pool).await.unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    let said = loop {
        let (ready, said) = served.try_run(&["health"]).await;
        if !ready {
            break said;
        }
        assert!(Instant::now() < until, "a log that was cut is no fault");
    };
    assert!(said.contains("not ready: the log is at fault"), "{said}");
    served.kill().await;
    assert!(!served.try_run(&["health"]).await.0);
}
