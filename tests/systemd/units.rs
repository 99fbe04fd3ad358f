//! The units by themselves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use backstay::daemon::config::{Config, Launcher, Place};
use backstay::sys;

pub(crate) fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd"))
}

/// Runs `systemd-analyze security` on a unit's file: what it says, and whether the exposure is at most that many tenths.
fn judged(unit: &Path, most: u32) -> (bool, String) {
    let threshold = format!("--threshold={most}");
    let ran = Command::new("systemd-analyze")
        .args(["security", "--offline=yes", "--no-pager", &threshold])
        .arg(unit)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("systemd-analyze: the Debian package `systemd` has it");
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (ran.status.success(), said)
}

/// The items that are open, as `systemd-analyze` names them, up to what is in them.
fn open(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| line.strip_prefix('✗'));
    let names = lines.filter_map(|line| line.split_whitespace().next()?.split('=').next().map(str::to_owned));
    names.collect()
}

#[test]
fn units_are_exposed_no_more_than_they_may_be_and_say_why() {
    for (file, most) in
        [("backstay.service", 15), ("backstay-proxy.service", 15), ("example/backstay-agent-support@.service", 25)]
    {
        let unit = folder().join(file);
        let (is_less, said) = judged(&unit, most);
        assert!(is_less, "{file} is exposed more than {most} tenths:\n{said}");
        let text = fs::read_to_string(&unit).unwrap();
        let comments = text.lines().filter(|line| line.starts_with('#')).collect::<String>();
        let open = open(&said);
        assert!(!open.is_empty(), "{said}");
        for item in open {
            assert!(comments.contains(&item), "{file} does not say why `{item}` is open");
        }
    }
}

#[test]
fn a_unit_without_a_sandbox_is_found() {
    let outside = tempfile::tempdir().unwrap();
    let unit = outside.path().join("open.service");
    fs::write(&unit, "[Service]\nExecStart=/bin/true\n").unwrap();
    assert!(!judged(&unit, 25).0);
}

/// Runs `backstay host enrol` for a system beneath `root`: how it ended, and what it said.
fn enrol(root: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
    command.args(["host", "enrol", "--root"]).arg(root).args(args);
    command.arg("--config").arg(folder().join("backstay.toml"));
    let ran = command.output().unwrap();
    (ran.status.code(), [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
}

#[test]
fn root_enrols_an_agent_and_takes_it_back() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path();
    let (code, said) = enrol(root, &["support"]);
    if sys::own_uid() != 0 {
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("only root may enrol an agent"), "{said}");
        return;
    }
    assert_eq!(code, Some(0), "{said}");
    let unit = root.join("etc/systemd/system/backstay-agent-support@.service");
    let rule = root.join("etc/polkit-1/rules.d/50-backstay-agent-support.rules");
    let keeper = Path::new(env!("CARGO_BIN_EXE_backstay-keeper")).display().to_string();
    for path in [&unit, &rule] {
        assert!(said.contains(&format!("{} created", path.display())), "{said}");
        let example = folder().join("example").join(path.file_name().unwrap());
        let text = fs::read_to_string(path).unwrap().replace(&keeper, "/usr/bin/backstay-keeper");
        assert_eq!(text, fs::read_to_string(example).unwrap());
    }
    let secrets = root.join("etc/backstay/credentials/support");
    assert_eq!(fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o700);
    let (_, again) = enrol(root, &["support"]);
    assert_eq!(again.matches(" unchanged").count(), 2, "{again}");

    fs::create_dir(secrets.join("agent-secrets")).unwrap();
    let (code, said) = enrol(root, &["support", "--remove"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!unit.exists() && !rule.exists() && secrets.exists(), "{said}");
    assert!(said.contains("the secrets of `support` stay"), "{said}");
    assert_eq!(enrol(root, &["Support"]).0, Some(2), "no agent has such a name");
}

#[test]
fn the_beginning_of_a_configuration_fits_the_proxys_unit() {
    let file = folder().join("backstay.toml");
    let text = fs::read_to_string(&file).unwrap();
    let config = Config::parse("backstay.toml", Some(&text), &BTreeMap::new()).unwrap();
    let Place::Host(host) = config.target[0].place() else { panic!("a host") };
    assert_eq!(host.launcher, Launcher::Systemd);
    let proxy = config.proxy.clone().unwrap();
    let unit = fs::read_to_string(folder().join("backstay-proxy.service")).unwrap();
    let flag = |name: &str, path: &PathBuf| format!("--{name} {}", path.display());
    assert!(unit.contains(&flag("control", &proxy.control)) && unit.contains(&flag("table", &proxy.table)));
    assert!(config.state.folder.starts_with("/var/lib/backstay"), "as the units and folders have it");
}
