//! Signatures of `OpenPGP`, made by `GnuPG`: S1, S3. What `git verify-commit` says stands beside it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backstay::model::CommitId;
use backstay::source::{NotVerified, Signers, Store, Trusted};
use tempfile::TempDir;

use crate::at;
use crate::git::TestRepo;
use crate::verify::{BEGUN, Standing};

const DAY: i64 = 86_400;

/// A repository, a `GnuPG` with a clock of its own, and a file of exported keys.
struct Desk {
    repo: TestRepo,
    folder: TempDir,
    clock: Arc<Standing>,
}

impl Desk {
    fn new() -> Self {
        let clock = Arc::new(Standing(AtomicI64::new(BEGUN + DAY)));
        let desk = Self { repo: TestRepo::new(), folder: tempfile::tempdir().expect("a folder"), clock };
        std::fs::create_dir(desk.path("home")).expect("a folder");
        std::fs::set_permissions(desk.path("home"), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `GnuPG` at a time.
    fn gpg(&self, time: i64, arguments: &[&str]) -> Output {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.path("home")).args(["--batch", "--yes", "--quiet", "--faked-system-time"]);
        command.arg(format!("{time}!")).args(["--pinentry-mode", "loopback", "--passphrase", ""]).args(arguments);
        let output = command.output().expect("gpg runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A key made a day before the first commit; gives its fingerprint.
    fn key(&self, name: &str, kind: &str, lasts: &str) -> String {
        self.gpg(BEGUN - DAY, &["--quick-generate-key", &format!("{name} <{name}@example.com>"), kind, "sign", lasts]);
        let listed = self.gpg(BEGUN, &["--with-colons", "--list-keys", name]);
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).expect("a fingerprint");
        line.split(':').nth(9).expect("a fingerprint").to_owned()
    }

    /// Lets these keys sign.
    fn allow(&self, names: &[&str]) {
        let exported = self.gpg(BEGUN, &[&["--armor", "--export"], names].concat());
        std::fs::write(self.path("keys.asc"), exported.stdout).expect("written");
    }

    /// Commits a file, signed by a key at a time.
    fn signed(&self, by: &str, text: &str, time: i64, more: &str) -> CommitId {
        self.repo.commit(&[("a.txt", &format!("{text}\n"))], text);
        let script = self.path("gpg.sh");
        let home = self.path("home");
        let run = format!(
            "#!/bin/sh\nexec gpg --homedir {} --batch --pinentry-mode loopback --passphrase '' --faked-system-time {time}! {more} \"$@\"\n",
            home.display()
        );
        std::fs::write(&script, run).expect("a script");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let (program, key) = (format!("gpg.program={}", script.display()), format!("user.signingkey={by}"));
        self.repo.git(&["-c", &program, "-c", &key, "commit", "-q", "--amend", "--no-edit", "-S"]);
        self.repo.id("main")
    }

    fn trusted(&self) -> Trusted {
        Trusted { ssh: None, openpgp: Some(self.path("keys.asc")) }
    }

    fn ours(&self, commit: &CommitId) -> Result<(), String> {
        let verifier =
            Signers::open(self.trusted(), Arc::<Standing>::clone(&self.clock)).map_err(|error| error.to_string())?;
        match Store::open(&self.repo.path()).expect("a store").verified(&at("main", commit), None, &verifier) {
            Ok(_) => Ok(()),
            Err(error @ NotVerified::Unverified(_)) => Err(error.to_string()),
            Err(NotVerified::Source(error)) => panic!("{error}"),
        }
    }

    fn refused(&self, commit: &CommitId, words: &str) {
        let error = self.ours(commit).expect_err(words);
        assert!(error.contains(words) && error.contains(commit.as_str()), "`{words}` in: {error}");
    }

    fn raw(&self, bytes: &str) -> CommitId {
        let id = self
            .repo
            .raw()
            .odb()
            .expect("objects")
            .write(git2::ObjectType::Commit, bytes.as_bytes())
            .expect("a commit");
        id.to_string().parse().expect("an id")
    }
}

#[test]
fn what_gnupg_signs_is_verified_for_every_kind_of_key() {
    let desk = Desk::new();
    for kind in ["ed25519", "rsa3072", "nistp256", "nistp384"] {
        let key = desk.key(kind, kind, "0");
        desk.allow(&[kind]);
        desk.ours(&desk.signed(&key, kind, BEGUN, "")).expect(kind);
    }
    // A subkey that signs, and a primary key that only certifies.
    let key = desk.key("alice", "ed25519", "0");
    desk.gpg(BEGUN - DAY, &["--quick-add-key", &key, "ed25519", "sign", "0"]);
    desk.allow(&["alice"]);
    desk.ours(&desk.signed(&key, "subkey", BEGUN, "")).expect("a subkey");
    assert!(
        Signers::open(Trusted { ssh: Some(desk.path("none")), ..desk.trusted() }, Arc::<Standing>::clone(&desk.clock))
            .is_err()
    );
}

// S1
#[test]
fn what_is_not_by_an_allowed_key_or_not_of_this_content_is_refused() {
    let desk = Desk::new();
    let (alice, mallory) = (desk.key("alice", "ed25519", "0"), desk.key("mallory", "ed25519", "0"));
    desk.allow(&["alice"]);
    desk.refused(&desk.signed(&mallory, "stranger", BEGUN, ""), "is not among the allowed ones");
    let good = desk.signed(&alice, "good", BEGUN, "");
    desk.ours(&good).expect("good");
    let raw = desk.repo.git(&["cat-file", "commit", good.as_str()]) + "\n";
    desk.refused(&desk.raw(&raw.replace("good", "evil")), "is not of this content");
    let (before, rest) = raw.split_once("gpgsig ").expect("a signature");
    let (signature, after) = rest.split_once("-----END PGP SIGNATURE-----\n").expect("its end");
    desk.refused(&desk.raw(&format!("{before}{after}")), "it has no signature");
    for broken in [
        format!("{before}gpgsig {}-----END PGP SIGNATURE-----\n{after}", signature.replacen("iH", "iG", 1)),
        format!("{before}gpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----\n{after}"),
        format!("{before}gpgsig -----BEGIN PGP SIGNATURE-----\n{after}"),
    ] {
        let commit = desk.raw(&broken);
        assert!(desk.ours(&commit).is_err(), "{broken}");
    }
    desk.refused(
        &desk.signed(&alice, "weak", BEGUN, "--digest-algo SHA1 --weak-digest MD5"),
        "a hash that is not trusted",
    );
    desk.refused(&desk.signed(&alice, "later", BEGUN + 30 * DAY, ""), "which is not yet");
    // The policy is on keys of this kind: an SSH signature is none of them.
    let ssh = format!("{before}gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n{after}");
    desk.refused(&desk.raw(&ssh), "only keys of OpenPGP");
}

// S1
#[test]
fn a_key_that_expired_or_was_revoked_signs_nothing_new() {
    let desk = Desk::new();
    let short = desk.key("short", "ed25519", "seconds=172800");
    desk.allow(&["short"]);
    let good = desk.signed(&short, "in time", BEGUN, "");
    desk.clock.0.store(BEGUN + DAY / 2, Ordering::Release);
    desk.ours(&good).expect("in time");
    desk.clock.0.store(BEGUN + 2 * DAY, Ordering::Release);
    desk.refused(&good, "expired at");

    let alice = desk.key("alice", "ed25519", "0");
    desk.allow(&["alice"]);
    let good = desk.signed(&alice, "before", BEGUN, "");
    desk.ours(&good).expect("not revoked");
    // GnuPG made a revocation when it made the key, with a colon before its first line against accidents.
    let revocation = desk.path(&format!("home/openpgp-revocs.d/{alice}.rev"));
    let text = std::fs::read_to_string(&revocation).expect("a revocation").replace(":-----", "-----");
    std::fs::write(&revocation, text).expect("written");
    desk.gpg(BEGUN + DAY, &["--import", &revocation.display().to_string()]);
    desk.allow(&["alice"]);
    desk.refused(&good, "is revoked");

    let bob = desk.key("bob", "ed25519", "0");
    desk.gpg(BEGUN - DAY, &["--quick-add-key", &bob, "ed25519", "sign", "seconds=100"]);
    desk.allow(&["bob"]);
    let sub = desk.signed(&format!("{bob}!"), "by the primary key", BEGUN, "");
    desk.ours(&sub).expect("the primary key signs too");
}

#[test]
fn a_file_of_keys_that_cannot_be_used_is_named_with_its_line() {
    let desk = Desk::new();
    desk.key("alice", "ed25519", "0");
    desk.allow(&["alice"]);
    let whole = std::fs::read_to_string(desk.path("keys.asc")).expect("keys");
    let opened = || {
        Signers::open(desk.trusted(), Arc::<Standing>::clone(&desk.clock)).map(drop).map_err(|error| error.to_string())
    };
    let cases = [
        (String::new(), ":1: there is no key"),
        ("alice's key\n".to_owned(), ":1: there is no key"),
        (
            format!("# alice\n{}", whole.replace("-----END PGP PUBLIC KEY BLOCK-----\n", "")),
            ":2: this block has no end",
        ),
        (format!("{whole}\n-----BEGIN PGP PRIVATE KEY BLOCK-----\n"), "this is no block of public keys"),
        (whole.replacen("mDM", "mDN", 1), ":1: this block cannot be read"),
    ];
    for (text, words) in cases {
        std::fs::write(desk.path("keys.asc"), &text).expect("written");
        assert!(opened().is_err_and(|error| error.contains(words)), "{words}: {:?}", opened());
    }
    std::fs::write(desk.path("keys.asc"), format!("of alice:\n{whole}\nand again:\n{whole}")).expect("written");
    opened().expect("comments between blocks");
}
