//! `cortex health`: what an image without a shell asks whether its server is ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use cortex_server::Config;
use serde::Deserialize;

use crate::error::{Error, Exit};

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the server is. Without it, what the configuration says that it listens on.
    #[arg(long, env = "CORTEX_HEALTH_URL", value_name = "URL")]
    url: Option<String>,
}

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    problems: Vec<String>,
}

pub(crate) async fn run(args: Args, load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    let url = match args.url {
        Some(url) => url,
        None => own_url(&load()?)?,
    };
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let response = http.get(format!("{}/readyz", url.trim_end_matches('/'))).send().await?;
    let readiness: Readiness = response.json().await?;
    if !readiness.ready {
        return Err(Error::Of(Exit::Unavailable, format!("not ready: {}", readiness.problems.join("; "))));
    }
    println!("ready");
    Ok(())
}

fn own_url(config: &Config) -> Result<String, Error> {
    if config.server.tls.cert_file.is_some() {
        let said = "the server speaks TLS: name it as its certificate does, with --url or CORTEX_HEALTH_URL";
        return Err(Error::Of(Exit::Usage, said.to_owned()));
    }
    Ok(format!("http://{}", here(config.server.listen)))
}

/// Where a server on this machine is reached that listens everywhere.
fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(here(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
