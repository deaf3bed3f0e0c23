//! The identity provider: authorization code with PKCE, or a device code, and refreshing.

use std::time::Duration;

use jiff::Timestamp;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
    CoreDeviceAuthorizationResponse, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
    CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthenticationFlow, AuthorizationCode, ClientId, CsrfToken,
    DeviceAuthorizationUrl, ErrorResponse, HttpRequest, HttpResponse, IssuerUrl, Nonce, NonceVerifier,
    OAuth2TokenResponse as _, PkceCodeChallenge, ProviderMetadata, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, TokenResponse as _, http,
};
use serde::{Deserialize, Serialize};

use super::SignIn;
use super::callback::{Callback, Expected};
use crate::api;
use crate::error::{Error, Exit};

/// The largest document that an identity provider may send, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The scope for tokens that outlive the person's presence (OpenID Connect Core, section 11).
const OFFLINE: &str = "offline_access";

/// What discovery says beyond OpenID Connect's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct More {
    /// RFC 8628.
    device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
    /// RFC 9207.
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// What a sign-in or a refresh gives.
pub(crate) struct Tokens {
    /// Who the person is, verified.
    pub(super) id_token: String,
    /// What fetches the next one.
    pub(super) refresh_token: Option<String>,
    /// When the ID token ends.
    pub(super) expires_at: Timestamp,
}

/// A code that the person enters at the provider, on any device.
pub(crate) struct DeviceCode(CoreDeviceAuthorizationResponse);

impl DeviceCode {
    /// Where to enter it.
    pub(crate) fn uri(&self) -> &str {
        self.0.verification_uri().as_str()
    }

    /// The code.
    pub(crate) fn code(&self) -> &str {
        self.0.user_code().secret()
    }
}

/// No answer, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String);

async fn send(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
    let failed = |error: reqwest::Error| NoAnswer(api::causes(&error.without_url()));
    let request = reqwest::Request::try_from(request).map_err(failed)?;
    let response = http.execute(request).await.map_err(failed)?;
    let mut answer = http::Response::builder().status(response.status());
    for (name, value) in response.headers() {
        answer = answer.header(name, value);
    }
    let body = api::body_within(response, MAX_BYTES).await.map_err(|error| NoAnswer(error.to_string()))?;
    answer.body(body).map_err(|error| NoAnswer(error.to_string()))
}

/// A provider whose discovery document was read.
pub(crate) struct Provider {
    metadata: Metadata,
    client_id: ClientId,
    scopes: Vec<String>,
    http: reqwest::Client,
}

impl Provider {
    /// Reads the provider's discovery document and keys.
    pub(crate) async fn discover(sign_in: &SignIn) -> Result<Self, Error> {
        let wrong = |what: String| {
            let text =
                format!("the identity provider {}: {what}; `cortex doctor oidc` says more", sign_in.issuer);
            Error::Of(Exit::Unavailable, text)
        };
        // The same rule as for the server: what we send there has to arrive there.
        sign_in.issuer.parse::<api::ServerUrl>().map_err(wrong)?;
        let issuer = IssuerUrl::new(sign_in.issuer.clone()).map_err(|error| wrong(error.to_string()))?;
        let http = api::http()?;
        let call = |request| send(http.clone(), request);
        let metadata =
            Metadata::discover_async(issuer, &call).await.map_err(|error| wrong(api::causes(&error)))?;
        let client_id = ClientId::new(sign_in.client_id.clone());
        Ok(Self { metadata, client_id, scopes: sign_in.scopes.clone(), http })
    }

    /// Signs in through a browser. `show` is given the address to open.
    pub(crate) async fn by_browser(
        &self,
        callback: Callback,
        show: impl FnOnce(&str),
    ) -> Result<Tokens, Error> {
        let redirect =
            RedirectUrl::new(callback.uri().to_owned()).map_err(|error| Error::Said(error.to_string()))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = self.client().set_redirect_uri(redirect);
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (url, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scopes(self.scopes())
            .set_pkce_challenge(challenge)
            .url();
        show(url.as_str());
        let code = callback
            .code(Expected {
                state: state.secret().clone(),
                issuer: self.metadata.issuer().to_string(),
                says_issuer: self.more().authorization_response_iss_parameter_supported,
            })
            .await?;
        let request = client
            .exchange_code(AuthorizationCode::new(code.to_string()))
            .map_err(|_| no_token_endpoint())?;
        let call = |request| send(self.http.clone(), request);
        let answer = request.set_pkce_verifier(verifier).request_async(&call).await.map_err(refused)?;
        self.tokens(&answer, &nonce)
    }

    /// Asks for a device code; an error where the provider has no such thing.
    pub(crate) async fn device_code(&self) -> Result<DeviceCode, Error> {
        let Some(endpoint) = self.more().device_authorization_endpoint.clone() else {
            let text = "the identity provider has no device flow: sign in with a browser on this machine, or \
                        with --no-browser through a forwarded --port";
            return Err(Error::Said(text.to_owned()));
        };
        let client = self.client().set_device_authorization_url(endpoint);
        let call = |request| send(self.http.clone(), request);
        let request = client.exchange_device_code().add_scopes(self.scopes());
        Ok(DeviceCode(request.request_async(&call).await.map_err(refused)?))
    }

    /// Waits until the person has entered the code.
    pub(crate) async fn by_device(&self, code: &DeviceCode) -> Result<Tokens, Error> {
        let client = self.client();
        let request = client.exchange_device_access_token(&code.0).map_err(|_| no_token_endpoint())?;
        let request = request.set_max_backoff_interval(Duration::from_secs(20));
        let call = |request| send(self.http.clone(), request);
        let answer = request.request_async(&call, tokio::time::sleep, None).await.map_err(refused)?;
        self.tokens(&answer, NoNonce)
    }

    /// Fetches new tokens without the person.
    pub(super) async fn refresh(&self, token: &str) -> Result<Tokens, Error> {
        let client = self.client();
        let token = RefreshToken::new(token.to_owned());
        let request = client.exchange_refresh_token(&token).map_err(|_| no_token_endpoint())?;
        let call = |request| send(self.http.clone(), request);
        let answer = request.request_async(&call).await.map_err(refused)?;
        self.tokens(&answer, NoNonce)
    }

    /// The tokens of an answer, the ID token verified.
    fn tokens(&self, answer: &CoreTokenResponse, nonce: impl NonceVerifier) -> Result<Tokens, Error> {
        let client = self.client();
        let no_id_token = || {
            let text = "the identity provider sent no ID token; `cortex doctor oidc` says what it lacks";
            Error::Said(text.to_owned())
        };
        let id_token = answer.id_token().ok_or_else(no_id_token)?;
        let claims = id_token.claims(&client.id_token_verifier(), nonce).map_err(|error| {
            Error::Of(Exit::Denied, format!("the ID token is not what it should be: {}", api::causes(&error)))
        })?;
        let expires_at = Timestamp::from_second(claims.expiration().timestamp())
            .map_err(|error| Error::Said(error.to_string()))?;
        Ok(Tokens {
            id_token: id_token.to_string(),
            refresh_token: answer.refresh_token().map(|token| token.secret().clone()),
            expires_at,
        })
    }

    fn client(&self) -> Client {
        CoreClient::from_provider_metadata(self.metadata.clone(), self.client_id.clone(), None)
    }

    /// `openid` is asked for by the crate itself; `offline_access`, where there is one, for a refresh token.
    fn scopes(&self) -> impl Iterator<Item = Scope> {
        let offered =
            self.metadata.scopes_supported().into_iter().flatten().any(|scope| scope.as_str() == OFFLINE);
        let more = (offered && !self.scopes.iter().any(|scope| scope == OFFLINE)).then(|| OFFLINE.to_owned());
        self.scopes.iter().filter(|scope| *scope != "openid").cloned().chain(more).map(Scope::new)
    }

    fn more(&self) -> &More {
        self.metadata.additional_metadata()
    }
}

type Client = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

/// A refresh and a device code carry no nonce of ours; one that is there says nothing.
struct NoNonce;

impl NonceVerifier for NoNonce {
    fn verify(self, _: Option<&Nonce>) -> Result<(), String> {
        Ok(())
    }
}

fn no_token_endpoint() -> Error {
    Error::Said("the identity provider has no token endpoint; `cortex doctor oidc` says more".to_owned())
}

fn refused<T: ErrorResponse>(error: RequestTokenError<NoAnswer, T>) -> Error {
    match error {
        RequestTokenError::ServerResponse(said) => {
            Error::Of(Exit::Denied, format!("the identity provider says {said}"))
        }
        RequestTokenError::Request(error) => {
            Error::Of(Exit::Unavailable, format!("the identity provider cannot be reached: {error}"))
        }
        // The text of what could not be parsed may hold a token.
        RequestTokenError::Parse(error, _) => {
            Error::Said(format!("the identity provider's answer cannot be read: at {}", error.path()))
        }
        RequestTokenError::Other(text) => Error::Said(format!("the identity provider: {text}")),
    }
}
