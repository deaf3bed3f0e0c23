//! Sessions that a login opened: they outlive the token that opened them, as Snowflake's do.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::sql::Actor;

/// How long a session token lives, in seconds.
pub(super) const VALID_S: i64 = 3_600;

/// How long a session can be renewed, in seconds.
pub(super) const MASTER_VALID_S: i64 = 14_400;

/// The most sessions that are remembered after the ended ones were forgotten.
const MAX_SESSIONS: usize = 10_000;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) actor: Actor,
    token: String,
    master_token: String,
    expires_at: Timestamp,
    ends_at: Timestamp,
}

/// What a login or a renewal gives to the client.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: u64,
    pub(super) token: String,
    pub(super) master_token: String,
    pub(super) ends_at: Timestamp,
}

/// Why a session token is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionFault {
    Gone,
    Expired,
    MasterExpired,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    last_id: u64,
    open: HashMap<u64, Session>,
}

impl Sessions {
    /// Opens a session; none where there are too many.
    pub(super) fn open(&mut self, actor: Actor, now: Timestamp) -> Option<Opened> {
        if self.open.len() >= MAX_SESSIONS {
            self.open.retain(|_, session| session.ends_at > now);
        }
        if self.open.len() >= MAX_SESSIONS {
            return None;
        }
        self.last_id += 1;
        let session = Session {
            id: self.last_id,
            actor,
            token: secret("session"),
            master_token: secret("master"),
            expires_at: after(now, VALID_S),
            ends_at: after(now, MASTER_VALID_S),
        };
        let opened = session.shown();
        self.open.insert(session.id, session);
        Some(opened)
    }

    /// The session of a session token.
    pub(super) fn current(
        &mut self,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<&mut Session, SessionFault> {
        let session = self.open.values_mut().find(|session| Some(session.token.as_str()) == token);
        let session = session.ok_or(SessionFault::Gone)?;
        if session.expires_at <= now { Err(SessionFault::Expired) } else { Ok(session) }
    }

    /// A new session token for a master token.
    pub(super) fn renew(&mut self, master: Option<&str>, now: Timestamp) -> Result<Opened, SessionFault> {
        let session = self.open.values_mut().find(|session| Some(session.master_token.as_str()) == master);
        let session = session.ok_or(SessionFault::Gone)?;
        if session.ends_at <= now {
            return Err(SessionFault::MasterExpired);
        }
        session.token = secret("session");
        session.expires_at = after(now, VALID_S).min(session.ends_at);
        Ok(session.shown())
    }

    pub(super) fn close(&mut self, token: Option<&str>) -> Result<(), SessionFault> {
        let of_token = |session: &&Session| Some(session.token.as_str()) == token;
        let id = self.open.values().find(of_token).map(|session| session.id).ok_or(SessionFault::Gone)?;
        self.open.remove(&id);
        Ok(())
    }
}

impl Session {
    fn shown(&self) -> Opened {
        Opened {
            id: self.id,
            token: self.token.clone(),
            master_token: self.master_token.clone(),
            ends_at: self.ends_at,
        }
    }
}

fn after(now: Timestamp, seconds: i64) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

fn secret(kind: &str) -> String {
    format!("sandbox-{kind}-{}", hex::encode(rand::random::<[u8; 32]>()))
}

/// The session parameters that connectors read.
pub(super) fn parameters() -> Value {
    json!([
        {"name": "AUTOCOMMIT", "value": true},
        {"name": "TIMEZONE", "value": "UTC"},
        {"name": "CLIENT_SESSION_KEEP_ALIVE", "value": false},
        {"name": "CLIENT_TELEMETRY_ENABLED", "value": false},
        {"name": "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT", "value": "json"},
        {"name": "QUERY_RESULT_FORMAT", "value": "JSON"},
        {"name": "CLIENT_PREFETCH_THREADS", "value": 1},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_until_its_master_token_ends() {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let mut sessions = Sessions::default();
        let opened = sessions.open(Actor::default(), start).unwrap();
        let late = after(start, VALID_S);
        assert!(sessions.current(Some(&opened.token), start).is_ok());
        assert_eq!(sessions.current(Some(&opened.token), late).err(), Some(SessionFault::Expired));
        assert_eq!(sessions.current(Some(&opened.master_token), start).err(), Some(SessionFault::Gone));
        assert_eq!(sessions.current(None, start).err(), Some(SessionFault::Gone));
        let renewed = sessions.renew(Some(&opened.master_token), late).unwrap();
        assert!(sessions.current(Some(&renewed.token), late).is_ok());
        assert_eq!(sessions.current(Some(&opened.token), late).err(), Some(SessionFault::Gone));
        let end = after(start, MASTER_VALID_S);
        assert_eq!(sessions.renew(Some(&opened.master_token), end).err(), Some(SessionFault::MasterExpired));
        sessions.close(Some(&renewed.token)).unwrap();
        assert_eq!(sessions.current(Some(&renewed.token), late).err(), Some(SessionFault::Gone));
    }
}
