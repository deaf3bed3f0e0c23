//! HTTP/2: it is spoken, and its ways of making much work with few bytes end a connection.

use cortex_tests::world::TestWorld;
use reqwest::{Client, StatusCode, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::until_closed;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 11;
/// `GET /` of host x, over http, by the static table of RFC 7541.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The error codes of the GOAWAY frames in `bytes`.
fn went_away(mut bytes: &[u8]) -> Vec<u32> {
    let mut codes = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, after)) = rest.split_at_checked(length) else { break };
        if head[3] == GO_AWAY {
            codes.push(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
        bytes = after;
    }
    codes
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection() {
    let world = TestWorld::start().await;
    let mut stream = TcpStream::connect(world.world.cortex.address).await.unwrap();
    let mut attack = preface();
    for request in 0..2_000 {
        let id = request * 2 + 1;
        attack.extend(frame(HEADERS, END_STREAM | END_HEADERS, id, GET));
        attack.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
    }
    // It may be closed before all of it is sent.
    let _ = stream.write_all(&attack).await;
    let found = until_closed(&mut stream).await;
    let codes = went_away(&found);
    assert!(codes.is_empty() || codes.contains(&ENHANCE_YOUR_CALM), "{codes:?}");
    let plain = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let answer = plain.get(world.url("/healthz")).send().await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2), "others are served");
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let world = TestWorld::start().await;
    let mut stream = TcpStream::connect(world.world.cortex.address).await.unwrap();
    let mut attack = [preface(), frame(HEADERS, END_STREAM, 1, GET)].concat();
    let field = [&[0x00, 0x01, b'y', 0x7f, 0x81, 0x7d][..], &[b'z'; 16_000]].concat();
    for _ in 0..64 {
        attack.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let _ = stream.write_all(&attack).await;
    let found = until_closed(&mut stream).await;
    assert!(!went_away(&found).contains(&0), "it is closed for a fault");
    assert_eq!(world.http.get(world.url("/healthz")).send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_keeps_to_the_limit_of_requests_notices_nothing() {
    let world = TestWorld::start_with(|config| config.server.max_streams = 4).await;
    let client = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    // Only the server's settings say how many there may be.
    assert_eq!(client.get(world.url("/healthz")).send().await.unwrap().status(), StatusCode::OK);
    let asks = (0..64).map(|_| client.get(world.url("/healthz")).send());
    for answer in futures_util::future::join_all(asks).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn an_idle_connection_is_told_goodbye() {
    let world = TestWorld::start_with(|config| config.server.idle_timeout_s = 1).await;
    let mut stream = TcpStream::connect(world.world.cortex.address).await.unwrap();
    let ask = [preface(), frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)].concat();
    stream.write_all(&ask).await.unwrap();
    let found = until_closed(&mut stream).await;
    assert!(went_away(&found).contains(&0), "no error: {:?}", went_away(&found));
}
