//! A browser's part of a sign-in, by hand: cookies, redirects, and every way to meddle with them.

use std::collections::BTreeMap;

use cortex_core::Clock;
use cortex_tests::world::{Answer, TestWorld, answer};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};

/// Somebody with a browser that keeps cookies and follows nothing by itself.
pub(super) struct Visit {
    http: Client,
    /// The cookies, by name.
    pub(super) cookies: BTreeMap<String, String>,
    base: String,
}

/// What the identity provider is asked, and what it answers.
pub(super) struct Callback {
    /// The address that the browser comes back to.
    pub(super) url: Url,
}

/// Changes one parameter of an address; none takes it out.
pub(super) fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let kept =
        url.query_pairs().filter(|(key, _)| key != name).map(|(k, v)| (k.into_owned(), v.into_owned()));
    let changed = kept.chain(value.map(|value| (name.to_owned(), value.to_owned())));
    let pairs: Vec<_> = changed.collect();
    let mut url = url.clone();
    url.query_pairs_mut().clear().extend_pairs(pairs);
    url
}

impl Visit {
    pub(super) fn new<C: Clock + Clone>(world: &TestWorld<C>) -> Self {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { http, cookies: BTreeMap::new(), base: world.url("") }
    }

    /// One request with the cookies, and with headers beside it.
    pub(super) async fn send(
        &mut self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        form: Option<&[(&str, &str)]>,
    ) -> Answer {
        let url = if url.starts_with("http") { url.to_owned() } else { format!("{}{url}", self.base) };
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.http.request(method, url).header("cookie", cookies.join("; "));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(form) = form {
            request = request.form(form);
        }
        let answer = answer(request).await;
        for set in answer.headers.get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    pub(super) async fn get(&mut self, url: &str) -> Answer {
        self.send(Method::GET, url, &[], None).await
    }

    /// Sends a form as a page of the console does.
    pub(super) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let base = self.base.clone();
        self.send(Method::POST, path, &[("origin", &base), ("sec-fetch-site", "same-origin")], Some(form))
            .await
    }

    /// Begins a sign-in: where the browser is sent to.
    pub(super) async fn begin(&mut self) -> Url {
        location(&self.get("/console/sign-in").await)
    }

    /// Picks a person of the development issuer there.
    pub(super) async fn pick(&mut self, authorize: &Url, person: &str) -> Callback {
        let picked = with(authorize, "as", Some(person));
        Callback { url: location(&self.get(picked.as_str()).await) }
    }

    /// Signs in as a person of the development issuer.
    pub(super) async fn sign_in(&mut self, person: &str) -> Answer {
        let authorize = self.begin().await;
        let callback = self.pick(&authorize, person).await;
        self.get(callback.url.as_str()).await
    }

    /// What the forms of a page carry.
    pub(super) async fn token(&mut self, page: &str) -> String {
        let answer = self.get(page).await;
        field(answer.body.as_str().unwrap(), "token")
    }
}

/// The value of a hidden field of a page.
pub(super) fn field(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect("the field is there");
    rest.split('"').next().unwrap().to_owned()
}

pub(super) fn location(answer: &Answer) -> Url {
    assert!(answer.status.is_redirection(), "{answer:?}");
    Url::parse(answer.headers["location"].to_str().unwrap()).unwrap()
}
