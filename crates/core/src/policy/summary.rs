//! A policy in plain words: who can get what under it, for people who do not write policies.

use super::Policy;
use super::document::{RequiredFor, RequiredRuns};
use super::glob::Glob;
use super::time::show;

/// One part of a policy in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Which part: `who`, `what`, `where`, `when` or `approval`.
    pub part: &'static str,
    /// What it says, in one sentence.
    pub text: String,
}

impl Policy {
    /// The whole policy in words, in the order of the document.
    pub fn in_words(&self) -> Vec<Sentence> {
        let mut words = vec![Sentence { part: "who", text: self.who_in_words() }];
        for target in &self.document.what {
            words.push(Sentence {
                part: "what",
                text: format!("On {}: {}.", target.provider, target.resource),
            });
        }
        words.push(Sentence { part: "where", text: self.where_in_words() });
        words.push(Sentence { part: "when", text: self.when_in_words() });
        words.push(Sentence { part: "approval", text: self.approval_in_words() });
        words
    }

    fn who_in_words(&self) -> String {
        let who = &self.document.who;
        let tasks = if who.tasks.is_empty() {
            "Every task".to_owned()
        } else {
            format!("The {} {}", plural(who.tasks.len(), "task"), any_of(&who.tasks))
        };
        let dags = format!("of the {} {}", plural(who.dags.len(), "DAG"), any_of(&who.dags));
        let mut parts = vec![format!("{tasks} {dags} on the Airflow {:?}", who.airflow.as_str())];
        for (what, globs) in [("run type", &who.run_types), ("team", &who.teams), ("bundle", &who.bundles)] {
            if !globs.is_empty() {
                parts.push(format!("of the {} {}", plural(globs.len(), what), any_of(globs)));
            }
        }
        if !who.tags.is_empty() {
            parts.push(format!("tagged {}", who.tags.join(" or ")));
        }
        let proofs: Vec<_> = who.attestation.iter().map(|proof| proof.as_str()).collect();
        format!("{}; proven by {}.", parts.join(", "), proofs.join(" or "))
    }

    fn where_in_words(&self) -> String {
        match &self.document.r#where {
            None => "From any network.".to_owned(),
            Some(r#where) => {
                let networks: Vec<_> = r#where.networks.iter().map(ToString::to_string).collect();
                format!("From {}.", networks.join(" or "))
            }
        }
    }

    fn when_in_words(&self) -> String {
        let when = &self.document.when;
        let always = when.hours.is_none() && when.days.is_empty();
        let open =
            if always { "At any time".to_owned() } else { format!("Open {when}, {} time", when.timezone) };
        format!("{open}; a credential lives {} at the most.", show(self.max_ttl()))
    }

    fn approval_in_words(&self) -> String {
        let Some(approval) = self.approval() else {
            return "No approval by people is needed.".to_owned();
        };
        let who = match &approval.required_for {
            RequiredFor::Always => "Every run".to_owned(),
            RequiredFor::Runs(RequiredRuns { run_types, dags, tasks }) => {
                let parts = [("run type", run_types), ("DAG", dags), ("task", tasks)];
                let named: Vec<_> = parts
                    .into_iter()
                    .filter(|(_, globs)| !globs.is_empty())
                    .map(|(what, globs)| format!("{} {}", plural(globs.len(), what), any_of(globs)))
                    .collect();
                format!("A run of {}", named.join(" and "))
            }
        };
        let people = match approval.quorum() {
            1 => "one person".to_owned(),
            many => format!("{many} different people"),
        };
        format!("{who} needs {people} to approve: {}.", approval.approvers())
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

fn any_of(globs: &[Glob]) -> String {
    globs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use crate::policy::tests::{compile, minimal};

    #[test]
    fn a_policy_reads_as_sentences() {
        let text = include_str!("../../../../config/policies/finance-data-publish.yaml");
        let words: Vec<_> = compile(text).in_words().into_iter().map(|said| said.text).collect();
        assert_eq!(
            words,
            [
                "The task publish_* of the DAGs finance_publish or finance_mart_* on the Airflow \"prod\", of the run \
                 types scheduled or backfill or manual; proven by issuer.",
                "On aws: aws:arn:aws:iam::123456789012:role/finance-publish.",
                "On bigquery: bigquery:acme-finance.",
                "On snowflake: snowflake:FINANCE_PUBLISH.",
                "From 10.0.0.0/8.",
                "Open 01:00-05:00 on mon, tue, wed, thu, fri, Europe/Paris time; a credential lives 30m at the most.",
                "A run of run type manual needs one person to approve: a member of finance-admins.",
            ]
        );
    }

    #[test]
    fn what_is_left_out_is_said_too() {
        let words: Vec<_> = compile(&minimal("")).in_words().into_iter().map(|said| said.text).collect();
        assert_eq!(words[0], "Every task of the DAG d on the Airflow \"prod\"; proven by issuer.");
        assert_eq!(words[2], "From any network.");
        assert_eq!(words[4], "No approval by people is needed.");
    }
}
