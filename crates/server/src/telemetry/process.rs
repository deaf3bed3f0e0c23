//! What the process takes of its machine, where `/proc` says so.

use jiff::Timestamp;

/// Says which version this is, and since when it runs.
pub(crate) fn started(now: Timestamp) {
    metrics::gauge!("cortex_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!("process_start_time_seconds").set(now.as_duration().as_secs_f64());
}

/// Sets what can be read.
pub(super) fn measure() {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is what this reads with.
        let open = u32::try_from(open.count()).unwrap_or(u32::MAX).saturating_sub(1);
        metrics::gauge!("process_open_fds").set(f64::from(open));
    }
    if let Some(limit) = max_open() {
        metrics::gauge!("process_max_fds").set(limit);
    }
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kib) * 1_024.0)
}

fn max_open() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
