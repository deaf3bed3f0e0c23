//! Signing in: the tokens of the person who sits here, got from their own identity provider, kept by the operating
//! system, and refreshed until the provider says no.

mod callback;
mod kept;
mod provider;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::api::ServerUrl;
use crate::error::{Error, Exit};

pub(crate) use callback::Callback;
pub(crate) use kept::{Place, forget, last_server};
pub(crate) use provider::{Provider, Tokens};

/// A token that ends sooner than this is refreshed before it is shown: the request has to arrive with it.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Who signs people in to a server: its `GET /v1/sign-in`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignIn {
    /// The identity provider.
    pub(crate) issuer: String,
    /// What this program is called there.
    pub(crate) client_id: String,
    /// What to ask for.
    pub(crate) scopes: Vec<String>,
}

/// A sign-in that is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Login {
    /// The server that it is for.
    pub(crate) server: ServerUrl,
    /// Who signed the person in.
    pub(crate) sign_in: SignIn,
    /// What the server is shown.
    id_token: String,
    /// What fetches the next one, where the provider gives one.
    refresh_token: Option<String>,
    /// When the ID token ends.
    pub(crate) expires_at: Timestamp,
}

impl Login {
    /// A new sign-in.
    pub(crate) fn new(server: ServerUrl, sign_in: SignIn, tokens: Tokens) -> Self {
        let Tokens { id_token, refresh_token, expires_at } = tokens;
        Self { server, sign_in, id_token, refresh_token, expires_at }
    }

    /// Whether it can go on without the person.
    pub(crate) fn refreshes(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// Keeps it, in the keyring where there is one and `keyring` allows it, and says where.
    pub(crate) fn keep(&self, keyring: bool) -> Result<Place, Error> {
        kept::keep(self, keyring)
    }

    fn is_fresh(&self) -> bool {
        self.expires_at.duration_since(SystemClock.now()) > MARGIN
    }

    fn into_bearer(self) -> Zeroizing<String> {
        Zeroizing::new(self.id_token)
    }
}

/// The ID token for `server`, refreshed where it is about to end.
pub(crate) async fn bearer(server: &ServerUrl) -> Result<Zeroizing<String>, Error> {
    let Some((login, _)) = kept::find(server)? else {
        return Err(Error::Of(
            Exit::Denied,
            format!("not signed in to {server}; run `cortex login --server {server}`"),
        ));
    };
    if login.is_fresh() {
        return Ok(login.into_bearer());
    }
    refresh(server).await
}

/// One process refreshes, and the others wait and find its work: providers take a refresh token once.
async fn refresh(server: &ServerUrl) -> Result<Zeroizing<String>, Error> {
    let _lock = kept::lock(server)?;
    let over = |why: &str| {
        Error::Of(
            Exit::Denied,
            format!("your sign-in to {server} is over{why}; run `cortex login --server {server}`"),
        )
    };
    let (login, place) = kept::find(server)?.ok_or_else(|| over(""))?;
    if login.is_fresh() {
        return Ok(login.into_bearer());
    }
    let Some(token) = &login.refresh_token else { return Err(over("")) };
    let provider = Provider::discover(&login.sign_in).await?;
    let mut tokens = provider.refresh(token).await.map_err(|error| match error.exit() {
        Exit::Denied => over(&format!(" ({error})")),
        _ => error,
    })?;
    // A provider that does not rotate refresh tokens gives no new one.
    tokens.refresh_token = tokens.refresh_token.or(login.refresh_token);
    let login = Login::new(login.server, login.sign_in, tokens);
    login.keep(place == Place::Keyring)?;
    Ok(login.into_bearer())
}
