//! Where this machine keeps its Postgres server.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::DevDbError;

/// The environment variable that says where the server's programs are, before any search.
pub(crate) const PG_BIN: &str = "CORTEX_PG_BIN";

/// Folders that hold one folder a version, and how the name of such a folder starts.
const VERSIONED: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", ""),                          // Debian, Ubuntu
    ("/usr", "pgsql-"),                                   // the project's own packages for Red Hat
    ("/usr/libexec", "postgresql"),                       // Alpine
    ("/opt/homebrew/opt", "postgresql@"),                 // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql@"),                    // Homebrew on Intel
    ("/Applications/Postgres.app/Contents/Versions", ""), // Postgres.app
];

/// Finds the folder with the programs: `CORTEX_PG_BIN`, then `PATH`, then the usual places, newest version first.
pub(crate) fn locate() -> Result<PathBuf, DevDbError> {
    if let Some(dir) = std::env::var_os(PG_BIN) {
        let dir = PathBuf::from(dir);
        return bin_dir(&dir).ok_or(DevDbError::NotABinDir { dir });
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versioned = VERSIONED.iter().flat_map(|(root, prefix)| newest_first(Path::new(root), prefix));
    std::env::split_paths(&path)
        .chain(versioned)
        .find_map(|dir| bin_dir(&dir))
        .ok_or_else(|| DevDbError::NotInstalled { command: install_command() })
}

/// `dir`, if the server's programs are there; where they are links, the folder that they lead to, because the
/// other programs (`pg_dump`, `psql`) are there too.
pub(crate) fn bin_dir(dir: &Path) -> Option<PathBuf> {
    let has_both = |dir: &Path| dir.join("postgres").is_file() && dir.join("initdb").is_file();
    if !has_both(dir) {
        return None;
    }
    let real = dir.join("postgres").canonicalize().ok()?;
    real.parent().filter(|real| has_both(real)).map(Path::to_path_buf).or_else(|| Some(dir.to_path_buf()))
}

fn newest_first(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| Some((version(&entry.file_name(), prefix)?, entry.path().join("bin"))))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, dir)| dir).collect()
}

/// `postgresql@17` is `[17]`, `9.6` is `[9, 6]`: numbers, so that 9.6 is older than 15.
fn version(name: &OsStr, prefix: &str) -> Option<Vec<u32>> {
    name.to_str()?.strip_prefix(prefix)?.split('.').map(|part| part.parse().ok()).collect()
}

fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        return "brew install postgresql@17";
    }
    install_command_for(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The command for a Linux by its `os-release(5)`: the fields `ID` and `ID_LIKE`.
fn install_command_for(os_release: &str) -> &'static str {
    let families: Vec<&str> = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split(' '))
        .collect();
    let is = |names: &[&str]| names.iter().any(|name| families.contains(name));
    if is(&["debian", "ubuntu"]) {
        "sudo apt-get install -y postgresql"
    } else if is(&["fedora", "rhel", "centos"]) {
        "sudo dnf install -y postgresql-server"
    } else if is(&["alpine"]) {
        "apk add postgresql"
    } else if is(&["arch"]) {
        "sudo pacman -S postgresql"
    } else if is(&["suse", "opensuse"]) {
        "sudo zypper install postgresql-server"
    } else {
        "your system's package manager (the package is mostly called postgresql or postgresql-server)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }

    #[test]
    fn the_newest_version_comes_first_by_number_not_by_spelling() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9.6", "15", "17", "9.6.1", "common"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let names: Vec<_> = newest_first(root.path(), "")
            .iter()
            .map(|dir| dir.parent().unwrap().file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["17", "15", "9.6.1", "9.6"]);
        assert_eq!(version(OsStr::new("postgresql@17"), "postgresql@"), Some(vec![17]));
    }

    #[test]
    fn a_folder_counts_when_it_holds_both_programs() {
        let root = tempfile::tempdir().unwrap();
        touch(&root.path().join("half/postgres"));
        assert_eq!(bin_dir(&root.path().join("half")), None);
        touch(&root.path().join("half/initdb"));
        assert!(bin_dir(&root.path().join("half")).is_some());
    }

    #[test]
    fn links_are_followed_to_the_folder_with_all_the_programs() {
        let root = tempfile::tempdir().unwrap();
        let (real, links) = (root.path().join("15/bin"), root.path().join("links"));
        std::fs::create_dir_all(&links).unwrap();
        for program in ["postgres", "initdb"] {
            touch(&real.join(program));
            std::os::unix::fs::symlink(real.join(program), links.join(program)).unwrap();
        }
        assert_eq!(bin_dir(&links), Some(real.canonicalize().unwrap()));
    }

    #[test]
    fn every_platform_is_told_its_one_command() {
        let cases = [
            ("ID=debian\n", "apt-get"),
            ("NAME=x\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "apt-get"),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "dnf"),
            ("ID=alpine\n", "apk"),
            ("ID=arch\n", "pacman"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", "zypper"),
            ("", "package manager"),
        ];
        for (os_release, expected) in cases {
            assert!(install_command_for(os_release).contains(expected), "{os_release:?}");
        }
    }
}
