//! Clients that send slowly, read slowly or not at all, or hold more connections than they need.

use std::time::Duration;

use cortex_tests::world::TestWorld;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::{PATIENCE, healthy, until_closed};

async fn connect(world: &TestWorld) -> TcpStream {
    TcpStream::connect(world.world.cortex.address).await.expect("a connection")
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_its_connection() {
    let world = TestWorld::start_with(|config| {
        (config.server.header_timeout_s, config.server.idle_timeout_s) = (1, 3_600);
    })
    .await;
    for sent in ["", "G", "GET /healthz HTTP/1.1\r\nhost: x\r\nx-", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = connect(&world).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let found = until_closed(&mut stream).await;
        assert!(!String::from_utf8_lossy(&found).contains("200 OK"), "{sent:?}");
    }
    let mut stream = connect(&world).await;
    assert!(healthy(&mut stream).await);
    stream.write_all(b"GET /healthz HT").await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"", "the second head is no other than the first");
}

#[tokio::test]
async fn a_head_that_trickles_gets_no_more_time() {
    let world = TestWorld::start_with(|config| config.server.header_timeout_s = 1).await;
    let stream = connect(&world).await;
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        writing.write_all(b"GET /healthz HTTP/1.1\r\n").await.ok();
        while writing.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut found = String::new();
    let read = tokio::io::AsyncReadExt::read_to_string(&mut reading, &mut found);
    let _ = timeout(PATIENCE, read).await.expect("it is closed in time");
    assert!(!found.contains("200 OK"), "{found}");
    timeout(PATIENCE, trickle).await.expect("nobody listens any more").unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_not_longer() {
    let world = TestWorld::start_with(|config| {
        (config.server.header_timeout_s, config.server.idle_timeout_s) = (1, 3);
    })
    .await;
    let mut stream = connect(&world).await;
    assert!(healthy(&mut stream).await);
    // Longer than a head may take, and shorter than a connection may be idle.
    sleep(Duration::from_millis(1_500)).await;
    assert!(healthy(&mut stream).await, "an idle connection is no slow head");
    let begun = Instant::now();
    assert_eq!(until_closed(&mut stream).await, b"");
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_read_ends_its_connection() {
    let world = TestWorld::start_with(|config| config.server.send_timeout_s = 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(world.world.cortex.address).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    // It asks for more than all buffers on the way hold, and takes nothing of it.
    let hung_up = async { while stream.write_all(&request.repeat(16)).await.is_ok() {} };
    timeout(PATIENCE, hung_up).await.expect("its connection ends");
    assert!(healthy(&mut connect(&world).await).await, "others are served");
}

#[tokio::test]
async fn one_address_holds_so_many_connections_and_a_proxy_any_number() {
    let limited = |proxied: bool| {
        TestWorld::start_with(move |config| {
            config.server.max_connections_per_peer = 3;
            if !proxied {
                config.server.trusted_proxies.clear();
            }
        })
    };
    let world = limited(false).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = connect(&world).await;
        assert!(healthy(&mut stream).await);
        held.push(stream);
    }
    assert_eq!(until_closed(&mut connect(&world).await).await, b"");
    held.pop();
    super::until("a free seat", || async {
        let mut stream = connect(&world).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.is_ok()
            && until_closed(&mut stream).await.starts_with(b"HTTP/1.1 200")
    })
    .await;
    let proxied = limited(true).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut stream = connect(&proxied).await;
        assert!(healthy(&mut stream).await);
        held.push(stream);
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let world = TestWorld::start_with(|config| config.server.max_connections = 2).await;
    let (mut one, mut two) = (connect(&world).await, connect(&world).await);
    assert!(healthy(&mut one).await && healthy(&mut two).await);
    let mut three = connect(&world).await;
    let waiting = tokio::spawn(async move { healthy(&mut three).await });
    assert!(healthy(&mut two).await);
    assert!(!waiting.is_finished(), "there is no place for it yet");
    drop(one);
    assert!(timeout(PATIENCE, waiting).await.expect("its turn").unwrap());
}
