//! Faults that are found when a document is written, with the place and what to write instead.

use std::fmt;

use serde::{Deserialize, Serialize};

/// More faults than this are not reported: the author fixes these first.
pub(super) const MAX_PROBLEMS: usize = 100;

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// The place of the byte `offset` in `text`.
    pub(super) fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
        Self { line: before.matches('\n').count() + 1, column }
    }
}

/// One fault in a document, found when it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead, in one sentence.
    pub remedy: String,
}

impl Problem {
    pub(super) fn new(at: Position, fault: Fault) -> Self {
        Self { line: at.line, column: at.column, message: fault.message, remedy: fault.remedy }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.line, self.column, self.message, self.remedy)
    }
}

/// A fault whose place the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

/// Collects faults, so that an author sees all of them at once.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, at: Position, message: impl Into<String>, remedy: impl Into<String>) {
        self.fault(at, Fault::new(message, remedy));
    }

    pub(super) fn fault(&mut self, at: Position, fault: Fault) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(Problem::new(at, fault));
        }
    }

    /// `value`, or its fault on record.
    pub(super) fn keep<T>(&mut self, at: Position, value: Result<T, Fault>) -> Option<T> {
        value.map_err(|fault| self.fault(at, fault)).ok()
    }

    /// `value` if nothing was found, else everything that was, in the order of the text.
    pub(super) fn or<T>(mut self, value: Option<T>) -> Result<T, Vec<Problem>> {
        self.0.sort_by_key(|problem| (problem.line, problem.column));
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}
