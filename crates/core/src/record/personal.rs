//! Where a record names a person: what is written to the log as a commitment, and opened again for its readers.
//!
//! Personal are: whom a principal string or a [`Person`] names (people, and operators at a command line), their e-mail
//! address and user name, the addresses that they come from, what they wrote, and the user who started a run. Runs and
//! services are not people, and what a run says is not what a person wrote.

use cortex_log::personal::is_commitment;

use super::{
    Archived, Change, Denial, Dropped, Entry, GrantEnd, GrantUse, KeyChange, Opening, PersonChange, What,
};
use crate::freeze::Scope;
use crate::principal::{Person, Principal, escape, person_subject, unescape};
use crate::revocation::Selector;

/// What readers are told where a value was erased. Of a principal, its commitment follows, so that it can still be told
/// from others and asked for.
pub const ERASED: &str = "erased";

/// What kind of value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersonalKind {
    /// A principal: a person, or an operator at a command line.
    Person,
    /// Who started a run, as its Airflow calls them.
    User,
    /// An e-mail address.
    Email,
    /// The name that somebody signs in with.
    Username,
    /// A network address.
    Address,
    /// What somebody wrote.
    Text,
}

impl PersonalKind {
    /// The kind's name, as stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::User => "user",
            Self::Email => "email",
            Self::Username => "username",
            Self::Address => "address",
            Self::Text => "text",
        }
    }
}

/// A value that is committed to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Personal {
    /// What it is.
    pub kind: PersonalKind,
    /// Whose it is, as principal: it is erased with them. Empty of a principal and of a user name in an Airflow.
    pub owner: String,
    /// The value.
    pub value: String,
}

/// A place in a record that has a personal value, or the commitment to one.
#[derive(Debug)]
pub enum Place<'a> {
    /// A principal as one string; other than a person's, it stays as it is.
    Principal(&'a mut String),
    /// The `sub` of a person.
    Subject {
        /// The person as one string, where it is not committed to yet.
        principal: String,
        /// The `sub`.
        subject: &'a mut String,
    },
    /// Anything else.
    Value {
        /// What it is.
        kind: PersonalKind,
        /// Whose it is.
        owner: String,
        /// The value.
        value: &'a mut String,
    },
}

impl Place<'_> {
    /// The value that is to be committed to; none where it is already, or where nobody is named.
    pub fn personal(&self) -> Option<Personal> {
        if self.commitment().is_some() {
            return None;
        }
        let person = |principal: &str| Personal {
            kind: PersonalKind::Person,
            owner: String::new(),
            value: principal.to_owned(),
        };
        match self {
            Self::Principal(text) => named(text).map(|_| person(text)),
            Self::Subject { principal, .. } => Some(person(principal)),
            Self::Value { kind, owner, value } => {
                Some(Personal { kind: *kind, owner: owner.clone(), value: (*value).clone() })
            }
        }
    }

    /// The commitment that is here.
    pub fn commitment(&self) -> Option<&str> {
        match self {
            Self::Principal(text) => committed(named(text)?.1),
            Self::Subject { subject: text, .. } | Self::Value { value: text, .. } => committed(text),
        }
    }

    /// Puts the commitment here, in the place of the value or of what readers are told of it.
    pub fn commit(&mut self, commitment: &str) {
        match self {
            Self::Principal(text) => {
                if let Some((whose, _)) = named(text) {
                    **text = format!("{whose}{commitment}");
                }
            }
            Self::Subject { subject: text, .. } | Self::Value { value: text, .. } => {
                commitment.clone_into(text);
            }
        }
    }

    /// Puts the value here, in the place of its commitment; without one, that it was erased.
    pub fn open(&mut self, value: Option<&str>) {
        let Some(commitment) = self.commitment().map(str::to_owned) else { return };
        match (self, value) {
            (Self::Principal(text) | Self::Value { value: text, .. }, Some(value)) => value.clone_into(text),
            (Self::Principal(text), None) => {
                if let Some((whose, _)) = named(text) {
                    **text = format!("{whose}{ERASED}{commitment}");
                }
            }
            (Self::Subject { subject, .. }, Some(value)) => **subject = subject_of(value),
            (Self::Subject { subject, .. }, None) => **subject = format!("{ERASED}{commitment}"),
            (Self::Value { value: text, .. }, None) => ERASED.clone_into(text),
        }
    }
}

/// A principal that names a human: what it says of whom they belong to, and who they are. None of others.
fn named(principal: &str) -> Option<(String, &str)> {
    if let Some(user) = principal.strip_prefix("operator:") {
        return Some(("operator:".to_owned(), user));
    }
    let rest = principal.strip_prefix("person:").or_else(|| principal.strip_prefix("person-sha256:"))?;
    let (issuer, who) = rest.split_once(':')?;
    Some((format!("person:{issuer}:"), who))
}

/// The commitment in a text that is one, or that says of one that it was erased.
fn committed(text: &str) -> Option<&str> {
    let text = text.strip_prefix(ERASED).unwrap_or(text);
    is_commitment(text).then_some(text)
}

/// The `sub` in a person's principal; the whole of it where it is too long to be in there.
fn subject_of(principal: &str) -> String {
    let who = principal.strip_prefix("person:").and_then(|rest| rest.split_once(':'));
    who.and_then(|(_, who)| unescape(who)).unwrap_or_else(|| principal.to_owned())
}

/// The places of somebody who is named as one string, and of what they wrote.
fn said<'a>(by: &'a mut String, text: Option<&'a mut String>) -> Vec<Place<'a>> {
    let mut places = Vec::new();
    if let Some(text) = text
        && named(by).is_some()
    {
        places.push(Place::Value { kind: PersonalKind::Text, owner: by.clone(), value: text });
    }
    places.push(Place::Principal(by));
    places
}

/// The places of a person, and of what is theirs.
pub fn of_person<'a>(
    person: &'a mut Person,
    theirs: impl IntoIterator<Item = (PersonalKind, &'a mut String)>,
) -> Vec<Place<'a>> {
    let principal = person_subject(&person.issuer, &person.subject);
    let Person { subject, email, username, .. } = person;
    let names = [(PersonalKind::Email, email.as_mut()), (PersonalKind::Username, username.as_mut())];
    let names = names.into_iter().filter_map(|(kind, value)| Some((kind, value?)));
    let value = |(kind, value)| Place::Value { kind, owner: principal.clone(), value };
    let mut places: Vec<_> = names.chain(theirs).map(value).collect();
    places.push(Place::Subject { principal, subject });
    places
}

/// The places of whoever asks, and of what a person among them wrote or came from.
fn of_principal<'a>(
    principal: &'a mut Principal,
    theirs: impl IntoIterator<Item = (PersonalKind, &'a mut String)>,
) -> Vec<Place<'a>> {
    match principal {
        Principal::Person(person) => of_person(person, theirs),
        Principal::Run(run) => run.triggering_user.as_mut().map(user).into_iter().collect(),
        Principal::Service(_) => Vec::new(),
    }
}

/// The place of who started a run, as its Airflow calls them.
pub fn user(name: &mut String) -> Place<'_> {
    Place::Value { kind: PersonalKind::User, owner: String::new(), value: name }
}

fn texts<'a>(
    texts: impl IntoIterator<Item = Option<&'a mut String>>,
) -> impl Iterator<Item = (PersonalKind, &'a mut String)> {
    texts.into_iter().flatten().map(|text| (PersonalKind::Text, text))
}

fn of_scope(scope: &mut Scope) -> Vec<Place<'_>> {
    match scope {
        Scope::Principal { principal } => vec![Place::Principal(principal.text_mut())],
        _ => Vec::new(),
    }
}

fn of_opening(opening: &mut Opening) -> Vec<Place<'_>> {
    let Opening { principal, subject, grant, reason, ticket, .. } = opening;
    let mut places = of_principal(principal, texts([reason.as_mut(), ticket.as_mut()]));
    if named(subject).is_some() {
        places.push(Place::Principal(subject));
    }
    if let Some(GrantUse { approvers, .. }) = grant {
        places.extend(approvers.iter_mut().map(Place::Principal));
    }
    places
}

fn of_denial(denial: &mut Denial) -> Vec<Place<'_>> {
    let Denial { principal, subject, source, .. } = denial;
    let theirs = named(subject).is_some().then_some(subject.clone());
    let mut places = principal.as_mut().map(|who| of_principal(who, [])).unwrap_or_default();
    if let (Some(owner), Some(source)) = (theirs, source) {
        places.push(Place::Value { kind: PersonalKind::Address, owner, value: source.text_mut() });
    }
    places.push(Place::Principal(subject));
    places
}

fn of_end(end: &mut GrantEnd) -> Vec<Place<'_>> {
    let GrantEnd { by, because, .. } = end;
    by.as_mut().map(|by| said(by, because.as_mut())).unwrap_or_default()
}

fn of_change(change: &mut PersonChange) -> Vec<Place<'_>> {
    let PersonChange { issuer, subject, by } = change;
    vec![Place::Subject { principal: person_subject(issuer, subject), subject }, Place::Principal(by)]
}

fn of_request<'a>(
    principal: &'a mut Principal,
    request: &'a mut serde_json::Value,
    reason: Option<&'a mut String>,
    ticket: Option<&'a mut String>,
) -> Vec<Place<'a>> {
    let mut places = of_principal(principal, texts([reason, ticket]));
    if let Some(serde_json::Value::String(name)) = request.get_mut("triggering_user") {
        places.push(user(name));
    }
    places
}

fn of_sign_in(what: &mut What) -> Vec<Place<'_>> {
    match what {
        What::SessionStarted { by, source, .. } => {
            let source = source.as_mut().map(|source| (PersonalKind::Address, source.text_mut()));
            of_principal(by, source)
        }
        What::SessionEnded { person, by, .. } => {
            let mut places = vec![Place::Principal(person)];
            places.extend(by.as_mut().map(Place::Principal));
            places
        }
        What::SessionRefused { person, source, .. } => {
            let owner = person.clone();
            let mut places = vec![Place::Principal(person)];
            places.extend(source.as_mut().map(|source| Place::Value {
                kind: PersonalKind::Address,
                owner,
                value: source.text_mut(),
            }));
            places
        }
        _ => Vec::new(),
    }
}

impl What {
    /// Every place that names a person, or has something of theirs.
    pub fn personal(&mut self) -> Vec<Place<'_>> {
        match self {
            Self::Intent(opening) | Self::Issued { opening, .. } => of_opening(opening),
            Self::Denial(denial) => of_denial(denial),
            Self::PolicyApplied(Change { by, .. })
            | Self::PolicyRetired(Change { by, .. })
            | Self::GuardrailsApplied(Change { by, .. })
            | Self::KeyCreated(KeyChange { by, .. })
            | Self::KeyRotated(KeyChange { by, .. })
            | Self::KeyRetired(KeyChange { by, .. }) => vec![Place::Principal(by)],
            Self::GrantRequested { principal, request, reason, ticket, .. }
            | Self::PreapprovalMade { principal, request, reason, ticket, .. } => {
                of_request(principal, request, reason.as_mut(), ticket.as_mut())
            }
            Self::GrantDecided { by, comment, .. } => of_principal(by, texts([comment.as_mut()])),
            Self::GrantWithdrawn(end)
            | Self::GrantExpired(end)
            | Self::GrantVoided(end)
            | Self::PreapprovalEnded(end) => of_end(end),
            Self::FreezeSet { by, reason, scope, .. } | Self::HoldSet { by, reason, scope, .. } => {
                said(by, Some(reason)).into_iter().chain(of_scope(scope)).collect()
            }
            Self::FreezeLifted { by, scope, .. } | Self::HoldLifted { by, scope, .. } => {
                said(by, None).into_iter().chain(of_scope(scope)).collect()
            }
            Self::RevocationRequested { by, reason, selector, .. } => {
                let scope = match selector {
                    Selector::Within { scope, .. } => of_scope(scope),
                    Selector::Issuance { .. } => Vec::new(),
                };
                said(by, Some(reason)).into_iter().chain(scope).collect()
            }
            Self::SessionStarted { .. } | Self::SessionEnded { .. } | Self::SessionRefused { .. } => {
                of_sign_in(self)
            }
            Self::PersonDisabled(change) | Self::PersonEnabled(change) => of_change(change),
            Self::Archived(Archived { by, .. }) | Self::Dropped(Dropped { by, .. }) => {
                vec![Place::Principal(by)]
            }
            Self::PersonErased(erasure) => said(&mut erasure.by, Some(&mut erasure.reason)),
            Self::Outcome { .. }
            | Self::Denials { .. }
            | Self::NotificationDead { .. }
            | Self::RevocationFailing { .. }
            | Self::RevocationSettled(_)
            | Self::ChainOpened(_)
            | Self::ShardOpened(_) => Vec::new(),
        }
    }
}

impl Entry {
    /// Whether anything in it is still to be committed to.
    pub fn is_personal(&mut self) -> bool {
        self.what.personal().iter().any(|place| place.personal().is_some())
    }
}

/// How the record may call a principal: as it is, and by its commitment. For whoever looks for one.
pub fn by_commitment(principal: &str, commitment: &str) -> Option<String> {
    named(principal).map(|(whose, _)| format!("{whose}{commitment}"))
}

/// A principal as the record has it, where readers were told that it was erased.
pub fn on_record(principal: &str) -> String {
    let mut text = principal.to_owned();
    let mut place = Place::Principal(&mut text);
    if let Some(commitment) = place.commitment().map(str::to_owned) {
        place.commit(&commitment);
    }
    text
}

/// Whether a value that somebody is known by has the form of a commitment: nobody may be called so.
pub fn is_mistakable(name: &str) -> bool {
    committed(name).is_some() || committed(&escape(name)).is_some()
}

#[cfg(test)]
mod tests;
