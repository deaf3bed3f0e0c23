//! The binary, as an auditor runs it: on a folder, over HTTP, on receipts and proofs, and on what somebody changed.

#![expect(clippy::unwrap_used, reason = "a helper that fails has failed its test")]

#[path = "../../log/tests/made/mod.rs"]
mod made;

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cortex_log::personal::Opening;
use cortex_log::proof::{Plan, ProofFile};
use cortex_log::receipt::Receipt;
use cortex_log::tree::Frontier;
use cortex_log::witness::{self, Cosigner};
use cortex_log::{note::Signer, tile};
use made::{BASE, Log};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A published log of two shards; the first has three levels of tiles' worth of paths, the second a few leaves.
fn published() -> (Log, TempDir) {
    let mut log = Log::of_two(100);
    log.open_shard("2027", 0, None);
    log.write(1, 5);
    publish(log)
}

fn publish(log: Log) -> (Log, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    log.publish(folder.path());
    (log, folder)
}

fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cortex-verify")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Verifies a log, and reads the answer.
fn verify(log: &Log, place: &str, more: &[&str]) -> (i32, Value) {
    let key = log.signer.verifier().to_string();
    let (code, text) = run(&[&["log", place, "--json", "--key", &key], more].concat());
    (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_published_log_is_whole() {
    let (log, folder) = published();
    let (code, answer) = verify(&log, text(folder.path()), &[]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(
        (&answer["result"], &answer["leaves"], &answer["chains"]),
        (&json!("whole"), &json!(608), &json!(2))
    );
    assert_eq!(answer["shards"][1]["origin"], format!("{BASE}/2027"));
    let key = log.signer.verifier().to_string();
    let (code, said) = run(&["log", text(folder.path()), "--key", &key]);
    assert_eq!((code, said.lines().next()), (0, Some("WHOLE: 608 records, written by 2 chains.")));
}

#[test]
fn names_that_come_along_are_those_that_were_committed_to() {
    let (log, folder) = published();
    let openings = [[1; 32], [2; 32]].map(|salt| Opening::new(&salt, "person:staff:bob".to_owned()));
    let write = |openings: &[Opening]| {
        let lines: Vec<String> = openings.iter().map(|one| json!(one).to_string()).collect();
        fs::write(folder.path().join("personal.jsonl"), lines.join("\n")).unwrap();
        verify(&log, text(folder.path()), &[])
    };
    let (code, answer) = write(&openings);
    assert_eq!((code, &answer["openings"]), (0, &json!(2)), "{answer}");
    let (code, answer) = write(&openings[1..]);
    assert_eq!((code, &answer["openings"]), (0, &json!(1)), "who was erased is no fault: {answer}");
    let altered = Opening { value: "person:staff:ann".to_owned(), ..openings[0].clone() };
    let (code, answer) = write(&[openings[1].clone(), altered]);
    assert_eq!((code, &answer["origin"]), (1, &json!("personal.jsonl")), "{answer}");
    assert!(answer["what"].as_str().unwrap().starts_with("line 2: "), "{answer}");
    fs::write(folder.path().join("personal.jsonl"), "bob\n").unwrap();
    let (code, answer) = verify(&log, text(folder.path()), &[]);
    assert_eq!(code, 2, "{answer}");
}

#[test]
fn one_shard_is_verified_by_itself() {
    let (log, folder) = published();
    fs::remove_dir_all(folder.path().join("2026")).unwrap();
    let (code, answer) = verify(&log, text(folder.path()), &["--from", "2027"]);
    assert_eq!((code, &answer["leaves"]), (0, &json!(6)), "{answer}");
    assert!(answer["follows"].as_str().unwrap().starts_with(&format!("{BASE}/2026 of size 602")), "{answer}");
}

#[test]
fn an_older_checkpoint_of_a_shard_that_is_left_out_is_not_ignored() {
    let (log, folder) = published();
    let older = folder.path().join("2026/checkpoint");
    let (code, answer) = verify(&log, text(folder.path()), &["--from", "2027", "--older", text(&older)]);
    assert_eq!(code, 2, "{answer}");
    assert!(answer["error"].as_str().unwrap().ends_with("which --from leaves out"), "{answer}");
}

#[test]
fn the_first_bad_index_is_named() {
    let (mut log, folder) = published();
    let root = folder.path();
    let checkpoint = fs::read(root.join("2026/checkpoint")).unwrap();
    let tiles: Vec<_> = (0..3).map(|index| tile_file(root, index)).collect();
    let signed: Vec<_> = tiles.iter().map(|path| fs::read(path).unwrap()).collect();
    // Somebody swaps two rows and publishes the entries, but cannot sign.
    log.shards[0].leaves.swap(301, 302);
    log.publish(root);
    fs::write(root.join("2026/checkpoint"), checkpoint).unwrap();
    for (path, bytes) in tiles.iter().zip(signed) {
        fs::write(path, bytes).unwrap();
    }
    let (code, answer) = verify(&log, text(root), &[]);
    assert_eq!((code, &answer["index"], &answer["until"]), (1, &json!(301), &json!(302)), "{answer}");
    let key = log.signer.verifier().to_string();
    let (_, said) = run(&["log", text(root), "--key", &key]);
    assert!(said.starts_with(&format!("FAULT in {BASE}/2026, first bad index 301\n")), "{said}");
}

fn tile_file(root: &Path, index: u64) -> PathBuf {
    let width = tile::width(602, 0, index).unwrap();
    root.join("2026").join(tile::tile_path(0, index, width))
}

#[test]
fn old_leaves_are_read_from_an_archive() {
    let (log, folder) = published();
    let archive = tempfile::tempdir().unwrap();
    let moved = ["2026/tile/entries/000", "2026/tile/entries/001"];
    fs::create_dir_all(archive.path().join("2026/tile/entries")).unwrap();
    for path in moved {
        fs::rename(folder.path().join(path), archive.path().join(path)).unwrap();
    }
    let (code, answer) = verify(&log, text(folder.path()), &[]);
    assert_eq!((code, &answer["index"]), (1, &json!(0)), "{answer}");
    let (code, answer) = verify(&log, text(folder.path()), &["--archive", text(archive.path())]);
    assert_eq!((code, &answer["leaves"]), (0, &json!(608)), "{answer}");
    // An archive that somebody has changed proves nothing.
    let path = archive.path().join(moved[1]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
    let (code, answer) = verify(&log, text(folder.path()), &["--archive", text(archive.path())]);
    assert_eq!((code, &answer["index"]), (1, &json!(256)), "{answer}");
}

#[test]
fn missing_and_damaged_files_are_faults_with_their_place() {
    type Change = fn(&Path);
    let cases: [(&str, Change, u64); 5] = [
        ("a bundle is gone", |root| fs::remove_file(root.join("2026/tile/entries/001")).unwrap(), 256),
        (
            "the last bundle is gone",
            |root| fs::remove_file(root.join("2026/tile/entries/002.p/90")).unwrap(),
            512,
        ),
        ("a bundle is cut", |root| fs::write(root.join("2026/tile/entries/001"), b"\0\x05ab").unwrap(), 256),
        ("a tile is gone", |root| fs::remove_file(root.join("2026/tile/0/000")).unwrap(), 0),
        ("an upper tile is wrong", |root| fs::write(root.join("2026/tile/1/000.p/2"), [7; 64]).unwrap(), 0),
    ];
    for (name, change, index) in cases {
        let (log, folder) = published();
        change(folder.path());
        let (code, answer) = verify(&log, text(folder.path()), &[]);
        assert_eq!((code, &answer["index"]), (1, &json!(index)), "{name}: {answer}");
    }
}

#[test]
fn an_older_checkpoint_that_was_kept_tells_that_a_backup_was_restored() {
    let (mut log, folder) = publish(Log::of_two(2));
    let kept = folder.path().join("kept");
    fs::copy(folder.path().join("2026/checkpoint"), &kept).unwrap();
    assert_eq!(verify(&log, text(folder.path()), &["--older", text(&kept)]).0, 0);
    log.shards[0].leaves.truncate(8);
    let (log, restored) = publish(log);
    assert_eq!(verify(&log, text(restored.path()), &[]).0, 0);
    let (code, answer) = verify(&log, text(restored.path()), &["--older", text(&kept)]);
    assert_eq!((code, &answer["index"], &answer["until"]), (1, &json!(8), &json!(14)), "{answer}");
}

#[test]
fn a_witness_must_have_cosigned_the_newest_checkpoint() {
    let (log, folder) = published();
    let signer = Signer::from_seed("witness.example/w1", &[5; 32]).unwrap();
    let witness = Cosigner::of(&signer.verifier()).unwrap().to_string();
    let (code, answer) = verify(&log, text(folder.path()), &["--witness", &witness]);
    assert_eq!(code, 1);
    assert_eq!(answer["what"], "no signature by the key witness.example/w1");
    let path = folder.path().join("2027/checkpoint");
    let note = fs::read_to_string(&path).unwrap();
    let line = witness::cosign(&signer, &note, 1_767_225_700).unwrap();
    fs::write(&path, note + &line).unwrap();
    let (code, answer) = verify(&log, text(folder.path()), &["--witness", &witness]);
    assert_eq!(code, 0, "{answer}");
    assert_eq!(
        answer["witnesses"],
        json!([{"witness": "witness.example/w1", "time": "2026-01-01T00:01:40Z"}])
    );
}

#[test]
fn another_key_is_a_fault_and_what_cannot_be_read_is_neither() {
    let (mut log, folder) = published();
    log.signer = Signer::from_seed(BASE, &[1; 32]).unwrap();
    let (code, answer) = verify(&log, text(folder.path()), &[]);
    assert_eq!((code, &answer["index"]), (1, &Value::Null), "{answer}");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(verify(&log, text(empty.path()), &[]).0, 2);
    let (code, said) = run(&["log", "nowhere", "--key", &log.signer.verifier().to_string()]);
    assert_eq!(code, 2, "{said}");
    let (code, said) = run(&["log", text(empty.path()), "--key", "nonsense"]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn a_receipt_leads_to_its_record_and_a_broken_promise_is_a_fault() {
    let (log, folder) = published();
    let leaf = &log.shards[0].leaves[400];
    let mut receipt = Receipt::new(BASE, leaf).unwrap();
    let ask = |receipt: &Receipt, place: &Path| {
        let path = folder.path().join("receipt.json");
        fs::write(&path, serde_json::to_vec(receipt).unwrap()).unwrap();
        let key = log.signer.verifier().to_string();
        let (code, text) = run(&["receipt", text(&path), "--log", text(place), "--key", &key, "--json"]);
        (code, serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text}")))
    };
    let (code, answer) = ask(&receipt, folder.path());
    assert_eq!((code, &answer["result"], &answer["index"]), (0, &json!("included"), &json!(400)), "{answer}");

    // The chain's last batch is never published, and the log signs on without it.
    let mut broken = Log::of_two(2);
    let lost = broken.shards[0].leaves.split_off(11);
    receipt = Receipt::new(BASE, &lost[1]).unwrap();
    let (early, place) = publish(broken);
    let (code, answer) = ask(&receipt, place.path());
    assert_eq!(code, 2, "its time has not come: {answer}");
    let mut broken = early;
    broken.shards[0].time_ms += 60_000;
    let (_, place) = publish(broken);
    let (code, answer) = ask(&receipt, place.path());
    assert_eq!(
        (code, &answer["meaning"]),
        (1, &json!("A record that was promised was removed.")),
        "{answer}"
    );

    receipt.seal = receipt.seal.replacen("/v1", "/v2", 1);
    assert_eq!(ask(&receipt, place.path()).0, 2);
}

#[test]
fn a_proof_needs_no_log() {
    let (log, folder) = published();
    let leaves = &log.shards[0].leaves;
    let tiles = Frontier::empty().append(&made::hashes(leaves));
    let find = |level, index, _| {
        let tile = tiles.iter().find(|tile| (tile.level, tile.index) == (level, index));
        tile.map(|tile| tile.hashes.clone()).ok_or("no such tile")
    };
    let hashes = Plan::inclusion(77, 602).unwrap().hashes(find).unwrap();
    let proof = ProofFile { index: 77, hashes, checkpoint: log.sign(&log.checkpoint(0)) };
    let (file, leaf) = (folder.path().join("p.tlog-proof"), folder.path().join("leaf"));
    fs::write(&file, proof.to_string()).unwrap();
    fs::write(&leaf, &leaves[77]).unwrap();
    let key = log.signer.verifier().to_string();
    let ask = || run(&["proof", text(&file), "--leaf", text(&leaf), "--key", &key]);
    let (code, said) = ask();
    assert_eq!((code, said.lines().next()), (0, Some("INCLUDED: leaf 77.")), "{said}");
    fs::write(&leaf, &leaves[78]).unwrap();
    assert_eq!(ask().0, 1);
    fs::write(&leaf, &leaves[77]).unwrap();
    fs::write(&file, proof.to_string().replacen("\n602\n", "\n603\n", 1)).unwrap();
    assert_eq!(ask().0, 1);
    fs::write(&file, "something else").unwrap();
    assert_eq!(ask().0, 2);
}

#[test]
fn a_live_log_is_verified_over_http() {
    let (log, folder) = published();
    let address = serve(folder.path().to_owned());
    let (code, answer) = verify(&log, &format!("http://{address}/"), &[]);
    assert_eq!((code, &answer["leaves"]), (0, &json!(608)), "{answer}");
    let (code, answer) = verify(&log, &format!("http://{address}/elsewhere"), &[]);
    assert_eq!(code, 2, "{answer}");
    // The bundle was finished since the checkpoint was read.
    let root = folder.path().join("2026/tile/entries");
    fs::rename(root.join("002.p/90"), root.join("002")).unwrap();
    assert_eq!(verify(&log, &format!("http://{address}"), &[]).0, 0);
    fs::write(folder.path().join("shards"), vec![b'1'; 100_000]).unwrap();
    let (code, answer) = verify(&log, &format!("http://{address}"), &[]);
    assert_eq!(code, 2);
    assert!(answer["error"].as_str().unwrap().contains("longer than 65536 bytes"), "{answer}");
}

#[test]
fn the_server_of_a_live_log_must_prove_its_name() {
    let (log, folder) = published();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let root = folder.path().to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            answer(StreamOwned::new(connection, stream.unwrap()), &root);
        }
    });
    let trusted = folder.path().join("ca.pem");
    fs::write(&trusted, cert.pem()).unwrap();
    let ask = |trusted: &Path| {
        let key = log.signer.verifier().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortex-verify"));
        command.args(["log", &place, "--key", &key]).env("SSL_CERT_FILE", trusted);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = ask(&trusted);
    assert_eq!(code, Some(0), "{said}");
    let stranger = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&trusted, stranger.cert.pem()).unwrap();
    let (code, said) = ask(&trusted);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("certificate"), "{said}");
}

/// Serves a folder until the test ends.
fn serve(folder: PathBuf) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &folder);
        }
    });
    address
}

/// Answers one request. What goes wrong on the way is the client's to notice.
fn answer(mut stream: impl Read + Write, folder: &Path) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.find(String::is_empty);
    drop(lines);
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) = match fs::read(folder.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // A client that has read enough hangs up.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).and_then(|()| stream.flush());
}
