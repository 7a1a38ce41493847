//! One request to a registry: with a token if it wants one, and again after trouble that passes.

use std::sync::PoisonError;
use std::thread;

use config::registry::challenge_parameter;
use serde::Deserialize;
use ureq::http::{Response, header};
use ureq::typestate::{WithBody, WithoutBody};
use ureq::{Agent, Body, RequestBuilder};

use super::{ATTEMPTS, Client, FIRST_PAUSE};
use crate::error::{Context, Error, Result};
use crate::host::fetch::Fetcher;

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize, Default)]
struct Refusals {
    #[serde(default)]
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

fn authorized<B>(request: RequestBuilder<B>, value: Option<&str>) -> RequestBuilder<B> {
    match value {
        Some(value) => request.header(header::AUTHORIZATION, value),
        None => request,
    }
}

impl Client {
    /// A request without a body.
    pub(super) fn call(
        &self,
        what: &str,
        make: impl Fn(&Agent) -> RequestBuilder<WithoutBody>,
    ) -> Result<Response<Body>> {
        self.patiently(what, |authorization| authorized(make(&self.agent), authorization).call())
    }

    /// A request with one.
    pub(super) fn send(
        &self,
        what: &str,
        bytes: &[u8],
        make: impl Fn(&Agent) -> RequestBuilder<WithBody>,
    ) -> Result<Response<Body>> {
        self.patiently(what, |authorization| {
            authorized(make(&self.agent), authorization).send(bytes)
        })
    }

    fn patiently(
        &self,
        what: &str,
        request: impl Fn(Option<&str>) -> std::result::Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>> {
        let (mut failed, mut asked) = (0, false);
        loop {
            let known = self.known();
            match request(known.as_deref()) {
                Ok(response) if response.status().as_u16() == 401 && !asked => {
                    asked = true;
                    let value = self.answer_to(&response)?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(value);
                    continue;
                }
                Ok(response)
                    if failed + 1 >= ATTEMPTS
                        || !matches!(response.status().as_u16(), 408 | 429 | 500..) =>
                {
                    return Ok(response);
                }
                Err(error) if failed + 1 >= ATTEMPTS => {
                    let text = format!("cannot {what} {}", self.shown);
                    return Err(Error::caused(text, error)
                        .hint("check the address and the network; without TLS it is oci+http://"));
                }
                Ok(_) | Err(_) => {}
            }
            failed += 1;
            thread::sleep(FIRST_PAUSE * 2_u32.pow(failed - 1));
        }
    }

    fn known(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a registry wants to be shown: a token of whom it names, or the password itself.
    fn answer_to(&self, response: &Response<Body>) -> Result<String> {
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let no_password = || {
            Error::new(format!("{} wants a name and a password", self.shown))
                .hint("`docker login` once: they are read from ~/.docker/config.json")
        };
        if !challenge.starts_with("Bearer ") {
            return self.basic.clone().ok_or_else(no_password);
        }
        let realm = challenge_parameter(challenge, "realm")
            .ok_or_else(|| Error::new(format!("{} does not say who gives tokens", self.shown)))?;
        let mut request = self.agent.get(realm).query("scope", &self.scope);
        if let Some(service) = challenge_parameter(challenge, "service") {
            request = request.query("service", service);
        }
        let request = authorized(request, self.basic.as_deref());
        let failed = || format!("cannot get a token for {} from {realm}", self.shown);
        let mut answer = request.call().context(failed)?;
        if answer.status().as_u16() == 401 {
            return Err(no_password());
        }
        let token: Token =
            serde_json::from_reader(answer.body_mut().as_reader()).context(failed)?;
        let token = token.token.or(token.access_token);
        let token = token.ok_or_else(|| Error::new(format!("{}: there is none", failed())))?;
        Ok(format!("Bearer {token}"))
    }

    /// Downloads as they are elsewhere, of a blob that is there, with a token that is good now.
    pub(super) fn fetcher(&self, blob: &str) -> Result<Fetcher> {
        let mut response = self.call("ask", |agent| agent.head(blob))?;
        match response.status().as_u16() {
            // Some stand before a store that knows no HEAD.
            200 | 405 => Ok(Fetcher::new().with_authorization(self.known())),
            status => Err(self.refused("read", blob, status, &mut response)),
        }
    }

    pub(super) fn refused(
        &self,
        what: &str,
        name: &str,
        status: u16,
        response: &mut Response<Body>,
    ) -> Error {
        let says: Refusals =
            serde_json::from_reader(response.body_mut().as_reader()).unwrap_or_default();
        let says: Vec<String> = says.errors.into_iter().map(|error| error.message).collect();
        let says = if says.is_empty() { String::new() } else { format!(": {}", says.join("; ")) };
        let error = Error::new(format!("cannot {what} {name} of {}: {status}{says}", self.shown));
        match status {
            401 | 403 => error.hint("`docker login` with an account that may do that"),
            404 => error.hint("does the repository exist, and may this account see it?"),
            _ => error,
        }
    }
}
