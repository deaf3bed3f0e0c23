//! The identity provider, as a client of it sees it: discovery, the address to send people to, and the code's
//! exchange. The crate `openidconnect` knows the protocol; requests are bounded here.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient,
    CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce,
    PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, RequestTokenError, Scope,
    TokenResponse as _, TokenUrl, http,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{SignInConfig, SignInError};

/// How long one request to the provider may take.
const DEADLINE: Duration = Duration::from_secs(8);
/// The largest answer, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How long the provider's metadata is believed before it is asked for again, in seconds.
const METADATA_AGE_S: i64 = 600;

/// Whether answers name their issuer (RFC 9207, section 3).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct IssParameter {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for IssParameter {}

type Metadata = ProviderMetadata<
    IssParameter,
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

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

pub(super) struct Provider {
    iss: String,
    client_id: String,
    secret_file: Option<PathBuf>,
    redirect: String,
    scopes: Vec<String>,
    http: reqwest::Client,
    /// What was fetched last, and when; held while it is fetched, so that it is fetched once.
    metadata: Mutex<Option<(Timestamp, Arc<Metadata>)>>,
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unavailable(why: impl ToString) -> SignInError {
    SignInError::Unavailable(why.to_string())
}

impl Provider {
    pub(super) fn new(
        iss: &str,
        client_id: &str,
        redirect: String,
        config: &SignInConfig,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .referer(false)
            .build()?;
        Ok(Self {
            iss: iss.to_owned(),
            client_id: client_id.to_owned(),
            secret_file: config.client_secret_file.clone(),
            redirect,
            scopes: config.scopes.clone(),
            http,
            metadata: Mutex::new(None),
        })
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Where the browser goes.
    pub(super) async fn authorize(
        &self,
        state: &str,
        nonce: &str,
        verifier: &str,
        again: bool,
        now: Timestamp,
    ) -> Result<String, SignInError> {
        let client = self.client(&*self.metadata(now).await?)?;
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.to_owned()));
        let (state, nonce) = (state.to_owned(), nonce.to_owned());
        let mut request = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                || CsrfToken::new(state),
                || Nonce::new(nonce),
            )
            .set_pkce_challenge(challenge);
        // The crate adds `openid` itself.
        for scope in self.scopes.iter().filter(|scope| *scope != "openid") {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        if again {
            request = request.add_prompt(CoreAuthPrompt::Login).set_max_age(Duration::ZERO);
        }
        Ok(request.url().0.to_string())
    }

    /// Refuses an answer of another provider (RFC 9207, section 2.4).
    pub(super) async fn check_iss(&self, iss: Option<&str>, now: Timestamp) -> Result<(), SignInError> {
        let metadata = self.metadata(now).await?;
        let promised = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss == self.iss => Ok(()),
            None if !promised => Ok(()),
            _ => Err(SignInError::Stale("iss")),
        }
    }

    /// Gives the code for the ID token.
    pub(super) async fn redeem(
        &self,
        code: String,
        verifier: &str,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, SignInError> {
        let mut client = self.client(&*self.metadata(now).await?)?;
        if let Some(file) = &self.secret_file {
            client = client.set_client_secret(ClientSecret::new(read_secret(file).await?));
        }
        let request = client.exchange_code(AuthorizationCode::new(code)).map_err(unavailable)?;
        let answer = request
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()))
            .request_async(&self.requests())
            .await
            .map_err(|error| match error {
                // What the provider writes beside the code may hold anything, so only the code is kept.
                RequestTokenError::ServerResponse(refusal) => {
                    SignInError::Provider(refusal.error().as_ref().chars().take(60).collect())
                }
                RequestTokenError::Request(error) => unavailable(error),
                _ => SignInError::Provider("its answer cannot be read".to_owned()),
            })?;
        let token = answer.id_token().map(|token| Zeroizing::new(token.to_string()));
        token.ok_or_else(|| SignInError::Provider("it sent no ID token".to_owned()))
    }

    fn client(&self, metadata: &Metadata) -> Result<Client, SignInError> {
        let redirect = RedirectUrl::new(self.redirect.clone()).map_err(unavailable)?;
        let methods = metadata.token_endpoint_auth_methods_supported();
        let basic = methods.is_none_or(|methods| methods.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let client_id = ClientId::new(self.client_id.clone());
        Ok(CoreClient::from_provider_metadata(metadata.clone(), client_id, None)
            .set_redirect_uri(redirect)
            .set_auth_type(if basic { AuthType::BasicAuth } else { AuthType::RequestBody }))
    }

    async fn metadata(&self, now: Timestamp) -> Result<Arc<Metadata>, SignInError> {
        let mut kept = self.metadata.lock().await;
        if let Some((at, metadata)) = &*kept
            && now.duration_since(*at) < SignedDuration::from_secs(METADATA_AGE_S)
        {
            return Ok(Arc::clone(metadata));
        }
        let issuer = IssuerUrl::new(self.iss.clone()).map_err(unavailable)?;
        let fetched = Metadata::discover_async(issuer, &self.requests()).await;
        let metadata = fetched.map_err(|error| match error {
            openidconnect::DiscoveryError::Request(error) => unavailable(error),
            openidconnect::DiscoveryError::Parse(error) => {
                unavailable(format!("its discovery document or its key set cannot be read: {error}"))
            }
            openidconnect::DiscoveryError::Validation(why)
            | openidconnect::DiscoveryError::Response(_, _, why) => unavailable(why),
            _ => unavailable("its discovery document cannot be read"),
        })?;
        let endpoints =
            [Some(metadata.authorization_endpoint().url()), metadata.token_endpoint().map(TokenUrl::url)];
        if !endpoints.into_iter().flatten().all(is_safe) {
            return Err(unavailable("its endpoints are not https"));
        }
        let metadata = Arc::new(metadata);
        *kept = Some((now, Arc::clone(&metadata)));
        Ok(metadata)
    }

    /// How the protocol's requests are made.
    fn requests(&self) -> impl Fn(HttpRequest) -> BoxFuture + Send + Sync + use<> {
        let http = self.http.clone();
        move |request| Box::pin(send(http.clone(), request))
    }
}

type BoxFuture = Pin<Box<dyn Future<Output = Result<HttpResponse, SendError>> + Send + Sync>>;

/// One request, with a deadline and a bound, without redirects.
async fn send(http: reqwest::Client, request: HttpRequest) -> Result<HttpResponse, SendError> {
    let mut response = http.execute(reqwest::Request::try_from(request)?).await?;
    let mut answer = http::Response::builder().status(response.status());
    for (name, value) in response.headers() {
        answer = answer.header(name, value);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(SendError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    answer.body(body).map_err(|_| SendError::TooLarge)
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{}", .0.to_string())]
    Http(reqwest::Error),
    #[error("its answer has more than {ANSWER_MAX} bytes")]
    TooLarge,
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

fn is_safe(url: &openidconnect::url::Url) -> bool {
    let loopback = matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// The client secret, read each time: whoever rotates it writes another one there.
async fn read_secret(path: &std::path::Path) -> Result<String, SignInError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map(|text| text.trim().to_owned()).unwrap_or_default();
    if text.is_empty() || text.len() > 4_096 {
        tracing::error!(path = %path.display(), "sign_in.client_secret_file holds no secret that can be read");
        return Err(unavailable("the client secret cannot be read"));
    }
    Ok(text)
}
