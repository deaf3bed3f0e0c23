//! Which server a command talks to, and as whom.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Api, ServerUrl};
use crate::error::{Error, Exit};
use crate::login;

/// The largest token that a file may hold, in bytes.
const TOKEN_MAX: u64 = 64 << 10;

/// What every command has that calls the API.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Connection {
    /// The server. Default: the one that `cortex login` signed in to last.
    #[arg(long, env = "CORTEX_URL", value_name = "URL")]
    server: Option<ServerUrl>,
    /// A file with a person's token, read anew each time. Default: `CORTEX_TOKEN`, else what `cortex login` keeps.
    #[arg(long, env = "CORTEX_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connection {
    /// A connection that another command was told of in its own words.
    pub(crate) fn to(server: ServerUrl, token_file: Option<PathBuf>) -> Self {
        Self { server: Some(server), token_file }
    }

    /// The server, with the token of whoever sits here.
    pub(crate) async fn open(&self) -> Result<Api, Error> {
        let server = named_or_last(self.server.as_ref())?;
        let bearer = match (&self.token_file, std::env::var("CORTEX_TOKEN")) {
            (Some(file), _) => token_in(file)?,
            (None, Ok(token)) if !token.is_empty() => Zeroizing::new(token),
            (None, _) => login::bearer(&server).await?,
        };
        Api::bearing(server, bearer)
    }
}

/// The server that was named, else the one that `cortex login` signed in to last.
pub(crate) fn named_or_last(named: Option<&ServerUrl>) -> Result<ServerUrl, Error> {
    match named {
        Some(server) => Ok(server.clone()),
        None => login::last_server()?.ok_or_else(|| {
            let text = "no server: give --server or CORTEX_URL, or sign in with `cortex login --server URL`";
            Error::Of(Exit::Usage, text.to_owned())
        }),
    }
}

/// The token that a file holds, without the space around it.
pub(crate) fn token_in(file: &Path) -> Result<Zeroizing<String>, Error> {
    let wrong = |what: String| Error::Said(format!("{}: {what}", file.display()));
    let mut text = Zeroizing::new(String::new());
    let opened = std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?;
    opened.take(TOKEN_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > TOKEN_MAX {
        return Err(wrong(format!("more than {TOKEN_MAX} bytes are no token")));
    }
    match text.trim() {
        "" => Err(wrong("there is no token in it".to_owned())),
        token => Ok(Zeroizing::new(token.to_owned())),
    }
}
