//! When a policy is open: hours of the day in a time zone, weekdays, and the longest lifetime.

use std::fmt;

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::fields::shortened;
use super::problem::Fault;

/// The lifetime that a policy without `max_ttl` allows.
pub(super) const DEFAULT_MAX_TTL: SignedDuration = SignedDuration::from_mins(15);
const SHORTEST_TTL: SignedDuration = SignedDuration::from_secs(60);
/// The longest session that AWS allows for a role.
const LONGEST_TTL: SignedDuration = SignedDuration::from_hours(12);

/// A day of the week, as policies write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day(civil::Weekday);

/// Every day, from Monday.
const DAYS: [(&str, civil::Weekday); 7] = [
    ("mon", civil::Weekday::Monday),
    ("tue", civil::Weekday::Tuesday),
    ("wed", civil::Weekday::Wednesday),
    ("thu", civil::Weekday::Thursday),
    ("fri", civil::Weekday::Friday),
    ("sat", civil::Weekday::Saturday),
    ("sun", civil::Weekday::Sunday),
];

impl Day {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        DAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| Self(*day)).ok_or_else(|| {
            Fault::new(
                format!("{:?} is no day", shortened(text)),
                "write mon, tue, wed, thu, fri, sat or sun",
            )
        })
    }

    /// The word in policies and in Cedar.
    pub(super) fn as_str(self) -> &'static str {
        DAYS.iter().find(|(_, day)| *day == self.0).map_or("", |(name, _)| name)
    }
}

impl JsonSchema for Day {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Day".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": DAYS.map(|(name, _)| name) })
    }
}

/// Hours of a day: from `open`, included, to `close`, excluded, in minutes since midnight. With `close` before
/// `open` they go on into the next day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hours {
    pub(super) open: u16,
    pub(super) close: u16,
}

impl Hours {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |what: &str, remedy: &str| Fault::new(format!("{:?} {what}", shortened(text)), remedy);
        let form =
            || fault("is not hours of a day", "write HH:MM-HH:MM from 00:00 to 23:59, such as 01:00-05:00");
        let (open, close) = text.split_once('-').ok_or_else(form)?;
        let hours = Self { open: minutes(open).ok_or_else(form)?, close: minutes(close).ok_or_else(form)? };
        if hours.open == hours.close {
            return Err(fault(
                "begins and ends at the same minute, which could mean never or always",
                "leave `hours` out for the whole day",
            ));
        }
        Ok(hours)
    }

    /// Whether they go on into the next day.
    pub(super) fn wraps(self) -> bool {
        self.close < self.open
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, close } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", open / 60, open % 60, close / 60, close % 60)
    }
}

impl JsonSchema for Hours {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Hours".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$",
            "examples": ["01:00-05:00", "22:00-06:00"],
        })
    }
}

/// Minutes since midnight of exactly `HH:MM`.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str, limit: u16| {
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten().filter(|value: &u16| *value < limit)
    };
    Some(two(hour, 24)? * 60 + two(minute, 60)?)
}

/// A time zone of the IANA database, by its exact name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let remedy = "write a name of the IANA time zone database, such as Europe/Paris or UTC";
        let unknown = || Fault::new(format!("{:?} is no time zone", shortened(text)), remedy);
        let zone = TimeZone::get(text).map_err(|_| unknown())?;
        match zone.iana_name() {
            Some(name) if name == text => Ok(Self(zone)),
            Some(name) => Err(Fault::new(
                format!("{:?} is not how the time zone is spelled", shortened(text)),
                format!("write {name}"),
            )),
            None => Err(unknown()),
        }
    }

    /// What the clock on the wall says at `now`.
    pub(super) fn wall(&self, now: Timestamp) -> Wall {
        let local = self.0.to_datetime(now);
        let minute = i64::from(local.hour()) * 60 + i64::from(local.minute());
        let weekday = local.date().weekday();
        Wall { minute, weekday: Day(weekday), yesterday: Day(weekday.previous()) }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl JsonSchema for Zone {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timezone".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A name of the IANA time zone database.",
            "default": "UTC",
            "examples": ["Europe/Paris", "America/New_York"],
        })
    }
}

/// What the clock on the wall of a time zone says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wall {
    /// Minutes since midnight, 0 to 1439.
    pub(super) minute: i64,
    /// Today.
    pub(super) weekday: Day,
    /// The day before: hours that wrap midnight opened then.
    pub(super) yesterday: Day,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02} on {}", self.minute / 60, self.minute % 60, self.weekday.as_str())
    }
}

/// The longest lifetime that a policy allows, in whole seconds: 60 seconds to 12 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaxTtl(pub(super) SignedDuration);

impl MaxTtl {
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let ttl = duration(text)?;
        if ttl < SHORTEST_TTL || ttl > LONGEST_TTL {
            return Err(Fault::new(format!("{text:?} is out of bounds"), "write a lifetime from 60s to 12h"));
        }
        Ok(Self(ttl))
    }
}

impl JsonSchema for MaxTtl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Lifetime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number and a unit: s for seconds, m for minutes, h for hours. From 60s to 12h.",
            "pattern": "^[0-9]{1,5}[smh]$",
            "default": "15m",
            "examples": ["30m", "900s", "2h"],
        })
    }
}

/// A duration such as `30m`: up to five digits and one unit.
pub(super) fn duration(text: &str) -> Result<SignedDuration, Fault> {
    let fault = || {
        Fault::new(
            format!("{:?} is not a lifetime", shortened(text)),
            "write a number and a unit (s, m or h), such as 30m",
        )
    };
    let unit = text.chars().last().ok_or_else(fault)?;
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(fault());
    }
    let number: i64 = digits.parse().map_err(|_| fault())?;
    match unit {
        's' => Ok(SignedDuration::from_secs(number)),
        'm' => Ok(SignedDuration::from_secs(number * 60)),
        'h' => Ok(SignedDuration::from_secs(number * 3600)),
        _ => Err(fault()),
    }
}

/// A duration as a policy would write it: `30m`, `900s`.
pub(super) fn show(duration: SignedDuration) -> String {
    match duration.as_secs() {
        secs if secs != 0 && secs % 3600 == 0 => format!("{}h", secs / 3600),
        secs if secs != 0 && secs % 60 == 0 => format!("{}m", secs / 60),
        secs => format!("{secs}s"),
    }
}
