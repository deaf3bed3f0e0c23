//! Every measurement: its name, kind, labels and what it says.

/// A measurement's kind, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, and begins at 0 with the process.
    Counter,
    /// What is so now.
    Gauge,
    /// How values are spread, by these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, the unit last.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels. None of them ever names a run, a person or a request.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// Seconds of a request or a call.
const CALL: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Seconds that people take: from ten of them to three days.
const PEOPLE: &[f64] =
    &[10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0];
/// Jobs of one commit.
const JOBS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(
    name: &'static str,
    buckets: &'static [f64],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), labels, help }
}

/// Every measurement there is.
pub const METRICS: &[Metric] = &[
    // Requests.
    histogram(
        "cortex_http_request_seconds",
        CALL,
        &["method", "route", "status"],
        "How long answers to requests took, from the headers to the first byte of the answer.",
    ),
    gauge("cortex_http_requests_in_flight", &[], "Requests that are being answered."),
    // The path.
    counter(
        "cortex_decisions_total",
        &["policy", "decision", "reason"],
        "Decisions on requests for credentials: permit, needs_grant or deny; the reason is a denial's code. What is \
         refused before a policy is found has the policy (none).",
    ),
    counter(
        "cortex_issuances_total",
        &["provider", "outcome"],
        "Mints that ended on record: issued, failed or indeterminate.",
    ),
    counter(
        "cortex_leases_again_total",
        &["provider"],
        "Credentials that were handed out again, out of memory.",
    ),
    counter("cortex_break_glass_requests_total", &[], "Requests to be let in although the policy is closed."),
    // Providers.
    histogram(
        "cortex_provider_call_seconds",
        CALL,
        &["provider", "outcome"],
        "How long mints took at the provider, retries included: minted, refused, unavailable, mismatch or \
         indeterminate.",
    ),
    gauge("cortex_provider_calls_in_flight", &["provider"], "Mints that are under way at the provider."),
    // Approvals.
    histogram(
        "cortex_grant_wait_seconds",
        PEOPLE,
        &["decision"],
        "How long requests for approval waited for people's word: approved or denied.",
    ),
    gauge("cortex_grants_waiting", &[], "Requests for approval that wait for people."),
    gauge(
        "cortex_grants_oldest_seconds",
        &[],
        "For how long the oldest request for approval has been waiting; 0 where none waits.",
    ),
    // The record.
    gauge("cortex_record_queue_jobs", &[], "Jobs that wait for the replica's one writer."),
    gauge("cortex_record_queue_limit_jobs", &[], "How many jobs may wait; further ones are refused at once."),
    histogram("cortex_record_batch_size", JOBS, &[], "Jobs that one commit of the record took."),
    histogram("cortex_record_commit_seconds", CALL, &[], "How long commits of the record took."),
    counter(
        "cortex_record_commit_failures_total",
        &[],
        "Commits of the record that failed or whose answer was lost.",
    ),
    gauge("cortex_intents_open", &[], "Mints that are on record as begun and not as ended, on all replicas."),
    // Revocations.
    gauge(
        "cortex_revocations_pending",
        &["provider"],
        "Revoked credentials whose cloud has not confirmed that it denies them.",
    ),
    gauge(
        "cortex_revocations_oldest_seconds",
        &["provider"],
        "How long ago the oldest of these was revoked; 0 where there is none.",
    ),
    counter(
        "cortex_revocation_writes_total",
        &["provider", "outcome"],
        "Documents that were changed at a cloud to deny what is revoked: confirmed or failed.",
    ),
    // The log.
    gauge("cortex_log_size", &[], "Leaves in the newest tree of the log."),
    gauge(
        "cortex_log_waiting_records",
        &[],
        "Records that are not in the tree yet; counted up to 10,000 of each writer.",
    ),
    gauge(
        "cortex_log_waiting_seconds",
        &[],
        "How long ago the oldest record was written that is not in the tree; 0 where there is none.",
    ),
    gauge("cortex_log_unpublished_leaves", &[], "Leaves of the tree that no checkpoint covers yet."),
    gauge(
        "cortex_log_checkpoint_timestamp_seconds",
        &[],
        "The time of the newest checkpoint that this replica published, in Unix time: the largest of all replicas \
         counts. It stands still while nothing is recorded.",
    ),
    counter(
        "cortex_log_rounds_total",
        &["outcome"],
        "Rounds of the log's sequencer: done, fault, anchor (it could not be read or written) or database.",
    ),
    gauge("cortex_log_fault", &[], "1 while the log is at fault and no credential leaves."),
    gauge(
        "cortex_log_anchor_away",
        &[],
        "1 while the log's anchor cannot be read or written and nothing new is signed.",
    ),
    gauge("cortex_log_witness_behind", &["witness"], "1 while a witness has not cosigned what it was shown."),
    // Keys.
    gauge("cortex_jwks_keys", &["issuer"], "Keys that can verify an issuer's tokens now."),
    gauge("cortex_jwks_age_seconds", &["issuer"], "How long ago an issuer's keys were fetched."),
    gauge("cortex_signing_keys", &[], "Signing keys that Cortex publishes."),
    gauge(
        "cortex_signing_key_timestamp_seconds",
        &["algorithm"],
        "Since when the key signs that Cortex signs with now, in Unix time.",
    ),
    // What is sent on.
    counter(
        "cortex_notifications_total",
        &["endpoint", "outcome"],
        "Tries to deliver a notification: delivered or failed.",
    ),
    counter(
        "cortex_notifications_dead_total",
        &["endpoint"],
        "Notifications that were given up; an admin can have them tried again.",
    ),
    gauge("cortex_notifications_waiting", &["endpoint"], "Notifications that are still to be delivered."),
    gauge(
        "cortex_notifications_oldest_seconds",
        &["endpoint"],
        "How long ago the oldest of these was written; 0 where there is none.",
    ),
    counter("cortex_stream_batches_total", &["stream", "outcome"], "Batches of a stream: arrived or failed."),
    counter("cortex_stream_records_total", &["stream"], "Records that have arrived."),
    gauge("cortex_stream_behind_records", &["stream"], "Records that a stream has still to send."),
    counter(
        "cortex_trace_spans_total",
        &["outcome"],
        "Spans of traces: exported, failed (the collector did not take them) or dropped (it takes them too slowly).",
    ),
    // What a replica holds.
    gauge("cortex_policies", &[], "Policies in force."),
    gauge("cortex_freezes", &[], "Freezes in force."),
    gauge("cortex_leases", &[], "Credentials that live in this replica's memory, about."),
    gauge("cortex_leases_bytes", &[], "What they take, in bytes, about."),
    gauge("cortex_leases_limit_bytes", &[], "What they may take, in bytes: `leases.max_bytes`."),
    // The database.
    gauge("cortex_database_up", &[], "1 while the database answers what is measured here every ten seconds."),
    gauge("cortex_database_connections", &["state"], "Connections to the database: used or idle."),
    gauge("cortex_database_connections_limit", &[], "How many there may be: `database.max_connections`."),
    gauge(
        "cortex_clock_ahead_seconds",
        &[],
        "How far this replica's clock is ahead of the database's; negative where it is behind.",
    ),
    // What is let in.
    gauge("cortex_admission_under_way", &[], "Exchanges that are under way."),
    gauge("cortex_admission_waiting", &[], "Exchanges that wait for their turn."),
    histogram("cortex_admission_wait_seconds", CALL, &[], "How long exchanges waited for their turn."),
    counter(
        "cortex_admission_shed_total",
        &["reason"],
        "Who was turned away: overload, limit_issuer, limit_dag, limit_run, limit_policy, limit_leases, provider_quota or provider_away.",
    ),
    counter(
        "cortex_provider_turned_away_total",
        &["provider", "reason"],
        "Mints and calls that found the door of their cloud account shut: provider_quota or provider_away.",
    ),
    gauge(
        "cortex_provider_breaker_state",
        &["provider", "account"],
        "A cloud account's circuit breaker: 0 closed, 1 half open, 2 open.",
    ),
    // Connections.
    gauge("cortex_connections", &[], "Connections that are open."),
    counter(
        "cortex_connections_refused_total",
        &["reason"],
        "Connections that were closed at once: peer (one address held too many) or accept.",
    ),
    counter(
        "cortex_connections_ended_total",
        &["reason"],
        "Connections that took too long: slow_head, slow_read, stalled, or merely idle.",
    ),
    counter(
        "cortex_tls_handshakes_failed_total",
        &["reason"],
        "TLS handshakes that failed: refused or slow.",
    ),
    counter("cortex_tls_reloads_total", &["outcome"], "New TLS files: taken or refused."),
    gauge("cortex_tls_files_refused", &[], "1 while the TLS files cannot be used and older ones are in use."),
    gauge(
        "cortex_tls_certificate_ends_timestamp_seconds",
        &[],
        "When the TLS certificate in use ends, in Unix time.",
    ),
    // The configuration.
    counter(
        "cortex_config_reloads_total",
        &["outcome"],
        "Configurations that were read again: taken or refused.",
    ),
    gauge(
        "cortex_config_refused",
        &[],
        "1 while the configuration that was read last cannot be taken over and an older one is in force.",
    ),
    // The process.
    gauge("cortex_build_info", &["version"], "1; the label says which version this is."),
    gauge("process_start_time_seconds", &[], "When the process started, in Unix time."),
    gauge("process_resident_memory_bytes", &[], "Memory that the process has in use, in bytes."),
    gauge("process_open_fds", &[], "File descriptors that are open."),
    gauge("process_max_fds", &[], "How many may be."),
];
